//! The peers as data: `peers/peers.toml`, which explains its fields and templates.

use std::sync::LazyLock;

use serde::Deserialize;

/// The name of Towline with its default flags.
pub const TOWLINE: &str = "towline";

/// All peers, in the table's order.
static PEERS: LazyLock<Vec<Peer>> = LazyLock::new(|| {
    let file: PeerFile = toml::from_str(include_str!("../../peers/peers.toml"))
        .expect("a test reads the file, which is compiled in");
    file.peer
});

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PeerFile {
    peer: Vec<Peer>,
}

/// Something that can be measured.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// The name in flags and records.
    pub name: String,
    /// The folder of its programs below that of all peers; empty for that of Towline's programs.
    #[serde(default)]
    pub folder: String,
    /// What carries bytes between server and agent.
    pub carrier: Carrier,
    /// How clients enter.
    pub enter: Enter,
    /// What exactly is measured, a template.
    pub about: String,
    /// How the version is found; none without programs.
    pub version: Option<Version>,
    /// Flags for both programs.
    #[serde(default)]
    pub flags: String,
    /// The server, then the agent; none for a direct connection.
    #[serde(default)]
    pub launch: Vec<Launch>,
}

/// What carries bytes between server and agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Carrier {
    /// The kernel's TCP.
    Tcp,
    /// QUIC.
    Quic,
    /// QUIC with datagrams no larger than those of an Ethernet.
    SmallQuic,
}

/// How clients reach the target's services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Enter {
    /// At the services' own addresses.
    Direct,
    /// With CONNECT to a TCP port.
    Proxy,
    /// With CONNECT to an abstract Unix socket.
    Unix,
    /// At a port for each service.
    Ports,
}

/// How the version of the first program is found.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Version {
    /// The line that `--version` prints with this beginning, without it.
    Line(String),
    /// The version of this module in a Go program's build information.
    Go(String),
}

/// A command line.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// The program's file below the peer's folder.
    pub program: String,
    /// Its arguments, separated by white space.
    pub arguments: String,
    /// A further argument for each service.
    pub each: Option<String>,
    /// A file that is written before the start.
    pub file: Option<ConfigFile>,
}

/// A configuration file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// Its name.
    pub name: String,
    /// What it begins with.
    pub text: String,
    /// What follows for each service.
    #[serde(default)]
    pub each: String,
}

// === impl Peer ===

impl Peer {
    /// All of them, in the table's order.
    pub fn all() -> &'static [Self] {
        &PEERS
    }

    /// The place in the table of the peer with this name.
    pub fn position(name: &str) -> Option<usize> {
        PEERS.iter().position(|peer| peer.name == name)
    }

    /// Whether its programs are Towline's.
    pub fn is_ours(&self) -> bool {
        self.must_work() && !self.launch.is_empty()
    }

    /// Whether a cell that fails is an error of the bench: of Towline and of direct connections.
    pub fn must_work(&self) -> bool {
        self.folder.is_empty()
    }
}
