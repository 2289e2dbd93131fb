//! A link between two namespaces.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use tappers::{Interface, Tun};

use crate::counters::Counters;
use crate::engine::Engine;
use crate::kernel;
use crate::link::Link;
use crate::namespace::{Guardian, Namespace};

/// The device's name on both sides.
pub const DEVICE: &str = "wan0";

/// Packets that a device holds for the engine. Far more than a burst of a sender, so that nothing
/// is dropped in front of the link.
const DEVICE_QUEUE: u32 = 20_000;

/// Bytes that a connection of the kernel's may hold on either side: at least, at first and at most.
/// The most is two round trips at 1 Gbit/s and 200 ms: a long fat link would measure the machine's
/// own limits otherwise.
const BUFFERS: &str = "4096 131072 67108864";

/// What the kernel's TCP uses unless told otherwise: Linux's own default, whatever the machine's.
const CONGESTION: &str = "cubic";

/// A side of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Side {
    /// Where clients and the proxy-server are.
    Near,
    /// Where agents and targets are.
    Far,
}

/// Two namespaces and the link between them; all of it is gone when this is dropped.
///
/// Each side has a loopback of its own, one address on the link, and nothing else: neither sees
/// the machine's own network. The addresses are the same in every `Wan`, which never meet.
#[derive(Debug)]
pub struct Wan {
    // The order matters: the devices go first, then the names.
    engine: Engine,
    namespaces: [Namespace; 2],
    _guardian: Guardian,
}

// === impl Side ===

impl Side {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Near, Self::Far];

    /// The side's address on the link.
    pub const fn address(self) -> IpAddr {
        match self {
            Self::Near => IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1)),
            Self::Far => IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2)),
        }
    }

    const fn index(self) -> usize {
        match self {
            Self::Near => 0,
            Self::Far => 1,
        }
    }
}

// === impl Wan ===

impl Wan {
    /// Makes the namespaces and the devices and starts the link.
    ///
    /// # Errors
    /// Without root, without `ip` (iproute2) or without `/dev/net/tun`.
    pub fn up(link: &Link) -> Result<Self> {
        let (namespaces, guardian) = Namespace::pair()?;
        let machine = &Namespace::machine()?;
        let devices = Side::BOTH.map(|side| {
            let namespace = &namespaces[side.index()];
            let device = namespace.run(|| {
                // Nothing that a connection learned of the path is kept for the next.
                kernel::set("tcp_no_metrics_save", "1")?;
                kernel::set("tcp_rmem", BUFFERS)?;
                kernel::set("tcp_wmem", BUFFERS)?;
                kernel::set_congestion(CONGESTION, machine)?;
                device().context("make a TUN device")
            })?;
            namespace.configure(&configuration(side, link.mtu))?;
            anyhow::Ok(device)
        });
        let [near, far] = devices;
        let engine = Engine::start(link, [near?, far?]).context("start the link")?;
        Ok(Self {
            engine,
            namespaces,
            _guardian: guardian,
        })
    }

    /// One side's namespace.
    pub fn namespace(&self, side: Side) -> &Namespace {
        &self.namespaces[side.index()]
    }

    /// A command that starts `program` on one side.
    pub fn command(&self, side: Side, program: &str) -> Command {
        self.namespace(side).command(program)
    }

    /// What the link has done so far: near to far, then far to near.
    pub fn counters(&self) -> [Counters; 2] {
        self.engine.counters()
    }

    /// The CPU time that the link itself has taken so far.
    ///
    /// # Errors
    /// When the link has failed.
    pub fn cpu_time(&self) -> io::Result<Duration> {
        self.engine.cpu_time()
    }

    /// The kernel's TCP uses this congestion control on both sides from now on instead of `cubic`;
    /// sockets that exist keep theirs.
    ///
    /// # Errors
    /// When the kernel does not have it.
    pub fn set_tcp_congestion(&self, name: &str) -> Result<()> {
        let machine = Namespace::machine()?;
        for namespace in &self.namespaces {
            namespace.run(|| kernel::set_congestion(name, &machine))?;
        }
        Ok(())
    }

    /// The kernel's TCP asks for and understands marks (ECN) on both sides from now on.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn set_tcp_ecn(&self) -> Result<()> {
        for namespace in &self.namespaces {
            namespace.run(|| kernel::set("tcp_ecn", "1"))?;
        }
        Ok(())
    }

    /// From now on 127.0.0.1 on the far side is the near side's, at the other end of the link: for
    /// agents that are told a server on their own machine. The far side keeps its own address on
    /// the link and `::1`; a program there that listens on 127.0.0.1 is reached by nobody.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn share_loopback(&self) -> Result<()> {
        let across = format!("conf/{DEVICE}/route_localnet");
        for namespace in &self.namespaces {
            namespace.run(|| kernel::set(&across, "1"))?;
        }
        let far = self.namespace(Side::Far);
        // Programs that listen there find an address that is no longer one of this side's.
        far.run(|| kernel::set("ip_nonlocal_bind", "1"))?;
        far.configure(&format!(
            "addr del 127.0.0.1/8 dev lo\n\
             route add 127.0.0.1/32 via {} dev {DEVICE}\n",
            Side::Near.address()
        ))
    }

    /// Stops the link and removes everything; dropping does the same and says nothing.
    ///
    /// # Errors
    /// What the link had failed with before.
    pub fn down(mut self) -> io::Result<()> {
        self.engine.stop()
    }
}

/// A device without offloads: every packet that crosses it has at most the size of its MTU.
fn device() -> Result<Tun> {
    Ok(Tun::new_named(Interface::new(DEVICE)?)?)
}

fn configuration(side: Side, mtu: u16) -> String {
    let address = side.address();
    // Without link-local addresses nothing but what is measured crosses the link.
    format!(
        "link set lo up\n\
         link set {DEVICE} addrgenmode none\n\
         link set {DEVICE} mtu {mtu} txqueuelen {DEVICE_QUEUE}\n\
         addr add {address}/30 dev {DEVICE}\n\
         link set {DEVICE} up\n"
    )
}
