//! Where a row is measured: on the loopback interface, or over an emulated link.
//!
//! Clients and the subject's server are at the near side of a place, agents and targets at the far
//! side. On loopback both sides are the machine.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::Result;
use tokio::runtime::Handle;

use crate::link::Link;
use crate::link::network::{Network, Side};

/// A place, as data.
#[derive(Debug, Clone, PartialEq)]
pub enum Place {
    /// The machine itself.
    Loopback,
    /// Two network namespaces and a link between them, made anew for each cell.
    Link(Link),
}

/// A place that is up.
#[derive(Debug)]
pub enum Stage<'a> {
    /// The machine itself.
    Loopback,
    /// Two namespaces; the calling thread is in the near one.
    Link(&'a Network),
}

// === impl Place ===

impl Place {
    /// How long a packet and its answer travel without other traffic.
    pub fn round_trip(&self) -> Duration {
        match self {
            Self::Loopback => Duration::ZERO,
            Self::Link(link) => link.delay * 2,
        }
    }
}

// === impl Stage ===

impl Stage<'_> {
    /// The address on which targets listen.
    pub fn far_address(&self) -> IpAddr {
        match self {
            Self::Loopback => Ipv4Addr::LOCALHOST.into(),
            Self::Link(_) => Side::Far.address(),
        }
    }

    /// Runs `work` at the far side: processes that it starts stay there. They belong to the
    /// calling thread's runtime.
    pub fn far<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let Self::Link(network) = self else {
            return work();
        };
        let runtime = Handle::current();
        network.namespace(Side::Far).run(|| {
            let _entered = runtime.enter();
            work()
        })
    }

    /// Packets that the queue towards the clients has dropped, and all that were offered to it;
    /// none on loopback.
    pub fn dropped(&self) -> Option<[u64; 2]> {
        let Self::Link(network) = self else {
            return None;
        };
        let [_, back] = network.counters();
        Some([back.overflowed, back.offered()])
    }
}
