//! Two namespaces with a link between them.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};
use tappers::{Interface, Tun};

use super::Link;
use super::forwarder::{Counters, Forwarder};
pub use super::namespace::has_congestion;
use super::namespace::{Cleanup, Namespace};

/// The device's name on both sides.
const DEVICE: &str = "link0";

/// Packets that a device holds for the forwarder: far more than a burst of a sender, so that
/// nothing is dropped before the link.
const DEVICE_QUEUE: u32 = 20_000;

/// Bytes that a connection of the kernel's may hold on either side: at least, at first and at most.
/// The most is two round trips at 1 Gbit/s and 200 ms: with less, a link of high rate and delay
/// would measure the machine's own limits.
const BUFFERS: &str = "4096 131072 67108864";

/// The largest IP packet, as on an Ethernet.
const MTU: u16 = 1500;

/// A side of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Where clients and the proxy-server are.
    Near,
    /// Where agents and targets are.
    Far,
}

/// Two namespaces and the link between them, which are removed when this is dropped.
///
/// Each side has a loopback interface of its own, one address on the link, and no route to the
/// machine's own network. Addresses are the same in every `Network`.
#[derive(Debug)]
pub struct Network {
    // The order matters: the devices are removed first, then the names.
    forwarder: Forwarder,
    namespaces: [Namespace; 2],
    _cleanup: Cleanup,
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

// === impl Network ===

impl Network {
    /// Makes the namespaces and the devices and starts the link.
    pub fn up(link: &Link) -> Result<Self> {
        let (namespaces, cleanup) = Namespace::pair()?;
        let devices = Side::BOTH.map(|side| {
            let namespace = &namespaces[side.index()];
            // Nothing that a connection learned of the path is kept for the next.
            namespace.set("tcp_no_metrics_save", "1")?;
            namespace.set("tcp_rmem", BUFFERS)?;
            namespace.set("tcp_wmem", BUFFERS)?;
            // Without offloads: no packet is larger than the MTU.
            let device = namespace.run(|| Ok(Tun::new_named(Interface::new(DEVICE)?)?));
            let device = device.context("make a TUN device")?;
            namespace.configure(&configuration(side))?;
            anyhow::Ok(device)
        });
        let [near, far] = devices;
        let forwarder = Forwarder::start(link, [near?, far?]).context("start the link")?;
        Ok(Self {
            forwarder,
            namespaces,
            _cleanup: cleanup,
        })
    }

    /// One side's namespace.
    pub fn namespace(&self, side: Side) -> &Namespace {
        &self.namespaces[side.index()]
    }

    /// What the link has done so far: near to far, then far to near.
    pub fn counters(&self) -> [Counters; 2] {
        self.forwarder.counters()
    }

    /// Sets the congestion control of the kernel's TCP on both sides, which is the machine's
    /// otherwise; sockets that exist keep theirs.
    pub fn set_tcp_congestion(&self, name: &str) -> Result<()> {
        self.namespaces
            .iter()
            .try_for_each(|namespace| namespace.set_congestion(name))
    }

    /// Makes 127.0.0.1 on the far side that of the near side, at the other end of the link: for
    /// agents whose server is configured as one of their own machine. The far side keeps its own
    /// address on the link and `::1`; a program there that listens on 127.0.0.1 is not reached.
    pub fn share_loopback(&self) -> Result<()> {
        let across = format!("conf/{DEVICE}/route_localnet");
        for namespace in &self.namespaces {
            namespace.set(&across, "1")?;
        }
        let far = self.namespace(Side::Far);
        // Programs there may listen on an address that is no longer one of this side's.
        far.set("ip_nonlocal_bind", "1")?;
        far.configure(&format!(
            "addr del 127.0.0.1/8 dev lo\n\
             route add 127.0.0.1/32 via {} dev {DEVICE}\n",
            Side::Near.address()
        ))
    }

    /// Stops the link and removes everything, as dropping does without an error.
    pub fn down(mut self) -> io::Result<()> {
        self.forwarder.stop()
    }
}

fn configuration(side: Side) -> String {
    let address = side.address();
    // Without link-local addresses only what is measured crosses the link.
    format!(
        "link set lo up\n\
         link set {DEVICE} addrgenmode none\n\
         link set {DEVICE} mtu {MTU} txqueuelen {DEVICE_QUEUE}\n\
         addr add {address}/30 dev {DEVICE}\n\
         link set {DEVICE} up\n"
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::UdpSocket;
    use std::time::Duration;

    use clap::{Args, Command, FromArgMatches};

    use super::*;

    fn up() -> Network {
        let flags = Link::augment_args(Command::new("x")).get_matches_from(["x", "--delay", "3ms"]);
        Network::up(&Link::from_arg_matches(&flags).unwrap()).unwrap()
    }

    fn bind(network: &Network, side: Side, address: IpAddr) -> UdpSocket {
        let socket = network.namespace(side).run(|| {
            let socket = UdpSocket::bind((address, 0))?;
            socket.set_read_timeout(Some(Duration::from_secs(5)))?;
            Ok(socket)
        });
        socket.unwrap()
    }

    fn exchange(near: &UdpSocket, far: &UdpSocket) {
        let mut buffer = [0; 2000];
        far.send_to(&[1; 1472], near.local_addr().unwrap()).unwrap();
        let (length, from) = near.recv_from(&mut buffer).unwrap();
        assert_eq!((length, from), (1472, far.local_addr().unwrap()));
        near.send_to(&[2; 10], from).unwrap();
        assert_eq!(far.recv(&mut buffer).unwrap(), 10);
    }

    #[test]
    #[ignore = "needs root, ip and /dev/net/tun"]
    fn packets_cross_both_ways_and_nothing_remains() {
        let network = up();
        let [near, far] = Side::BOTH.map(|side| bind(&network, side, side.address()));
        exchange(&near, &far);
        assert_eq!(network.counters().map(|counters| counters.packets), [1, 1]);
        network.share_loopback().unwrap();
        let near = bind(&network, Side::Near, Ipv4Addr::LOCALHOST.into());
        exchange(&near, &far);

        network.set_tcp_congestion("reno").unwrap();
        let path = "/proc/sys/net/ipv4/tcp_congestion_control";
        let chosen = network
            .namespace(Side::Far)
            .run(|| Ok(fs::read_to_string(path)?));
        assert_eq!(chosen.unwrap().trim(), "reno");
        assert!(network.set_tcp_congestion("no-such").is_err());

        let names = network.namespaces.each_ref().map(|one| one.path());
        assert!(names.iter().all(|path| path.exists()));
        network.down().unwrap();
        assert!(!names.iter().any(|path| path.exists()), "{names:?}");
    }
}
