//! What is measured over the link, and how its programs are started on both sides of it.
//!
//! Peers come from towline-bench as they are there, where all addresses are loopback ones: their
//! agents run on a far side whose 127.0.0.1 is the near side's.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};
use towline_bench::client::Route;
use towline_bench::subject::{Kind, Program, Running as PeerRunning, Subject as Peer};
use towline_bench::target::Addresses;
use towline_tls::devcerts::{DevCerts, Validity};

use crate::load;
use crate::target::Target;
use crate::wan::{Side, Wan};

/// The kernel's congestion controls: Linux's default, and the one that losses do not stop.
const CUBIC: &str = "cubic";
const BBR: &str = "bbr";

/// How long a subject may take from its start to its first tunnel; losses may hit the handshake.
const START_LIMIT: Duration = Duration::from_secs(20);

/// How often a subject that starts is asked again.
const START_PAUSE: Duration = Duration::from_millis(50);

/// The name in the development certificate of servers that no address of the link is in.
const SERVER_NAME: &str = "proxy-server";

/// What can be measured on this machine.
#[derive(Debug)]
pub struct Subject {
    /// The column's title.
    pub name: String,
    /// What exactly is measured, in one line.
    pub description: String,
    /// The congestion control of the kernel's TCP on both sides while it is measured.
    pub tcp: &'static str,
    carrier: Carrier,
}

/// What carries bytes from side to side.
#[derive(Debug)]
enum Carrier {
    /// The kernel alone.
    Kernel,
    /// Programs that are told the link's addresses.
    Programs(Programs),
    /// Programs that look for each other on one machine.
    Peer(Peer),
}

/// Programs, and how they are called.
#[derive(Debug)]
struct Programs {
    folder: PathBuf,
    certs: TempDir,
    flags: fn(&Ports, &Path) -> Launch,
    /// For server and agent alike.
    more: Vec<(String, String)>,
}

/// A server for the near side and an agent for the far one.
#[derive(Debug)]
pub struct Launch {
    /// The server's file name and flags.
    pub server: (&'static str, Flags),
    /// The agent's.
    pub agent: (&'static str, Flags),
}

/// Flags and their values.
pub type Flags = Vec<(&'static str, String)>;

/// Where programs are.
#[derive(Debug, Clone, Copy)]
pub struct Folders<'a> {
    /// proxy-server and proxy-agent.
    pub ours: &'a Path,
    /// quic-server and quic-client.
    pub reference: Option<&'a Path>,
    /// A folder for each peer, as `make bench-peers` installs them.
    pub peers: Option<&'a Path>,
}

/// The addresses that programs are told to use.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// For clients, on the near side's loopback.
    pub clients: SocketAddr,
    /// For agents, on the link.
    pub agents: SocketAddr,
}

/// A subject's processes; they are killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    route: Route,
    /// Where clients find the target's first listener behind the route.
    orders: SocketAddr,
    _programs: Vec<Program>,
    _logs: Option<TempDir>,
    _peer: Option<PeerRunning>,
}

// === impl Subject ===

impl Subject {
    /// All subjects there are: the kernel's TCP, ours, ours with other flags for each of
    /// `variants` (`NAME=--flag value`), the Go reference and the peers if their folders are named.
    ///
    /// # Errors
    /// When programs of ours or of the reference are missing.
    pub async fn find(folders: &Folders<'_>, variants: &[String]) -> Result<Vec<Self>> {
        let mut all = Vec::new();
        for tcp in [CUBIC, BBR] {
            let about = format!("load generator to target, no proxy, the kernel's {tcp}");
            all.push(Self::new("direct", tcp, &about, Carrier::Kernel).with_tcp_named());
        }
        let ours = || Programs::new(folders.ours, towline);
        let about = "mutual TLS, metrics, log and access log on";
        all.push(Self::new(
            "towline",
            CUBIC,
            about,
            Carrier::Programs(ours()?),
        ));
        for variant in variants {
            let (name, flags) = variant.split_once('=').context("a variant is NAME=FLAGS")?;
            let mut programs = ours()?;
            programs.more = pairs(flags)?;
            let (name, about) = (
                format!("towline, {name}"),
                format!("{about}; both with {flags}"),
            );
            all.push(Self::new(&name, CUBIC, &about, Carrier::Programs(programs)));
        }
        if let Some(folder) = folders.reference {
            let about =
                "gardener/quic-reverse-http-tunnel, default flags: mutual TLS, no access log";
            let programs = Programs::new(folder, reference)?;
            all.push(Self::new(
                "reference",
                CUBIC,
                about,
                Carrier::Programs(programs),
            ));
        }
        for kind in Kind::value_variants() {
            if let (Some(all_peers), Some(own)) = (folders.peers, kind.folder()) {
                all.extend(Self::peers(*kind, &all_peers.join(own)).await?);
            }
        }
        Ok(all)
    }

    /// A peer with each congestion control that carries it; none when it is not installed.
    async fn peers(kind: Kind, folder: &Path) -> Result<Vec<Self>> {
        let mut peers = Vec::new();
        let both: &[&str] = if kind == Kind::FrpQuic {
            &[CUBIC]
        } else {
            &[CUBIC, BBR]
        };
        for tcp in both {
            let peer = Peer::new(kind, folder)?;
            if peer.missing().is_some() {
                break;
            }
            let about = peer.describe().await?;
            let subject = Self::new(kind.name(), tcp, &about, Carrier::Peer(peer));
            peers.push(if both.len() > 1 {
                subject.with_tcp_named()
            } else {
                subject
            });
        }
        Ok(peers)
    }

    fn new(name: &str, tcp: &'static str, about: &str, carrier: Carrier) -> Self {
        Self {
            name: name.to_owned(),
            description: about.to_owned(),
            tcp,
            carrier,
        }
    }

    /// With the congestion control in the name, where it matters.
    fn with_tcp_named(mut self) -> Self {
        self.name = format!("{}, {}", self.name, self.tcp);
        self
    }

    /// Whether the agent looks for the server on its own machine; see [`Wan::share_loopback`].
    pub fn shares_loopback(&self) -> bool {
        matches!(self.carrier, Carrier::Peer(_))
    }

    /// Whether a cell that fails is a failure of the bench: ours, or the machine's.
    pub fn must_work(&self) -> bool {
        self.name.starts_with("direct") || self.name.starts_with("towline")
    }

    /// Starts the programs and waits until a message comes back through them. The calling thread
    /// is on the near side.
    ///
    /// # Errors
    /// When that does not happen in time; the text has the end of the programs' logs.
    pub async fn start(&self, wan: &Wan, target: &Target) -> Result<Running> {
        match &self.carrier {
            Carrier::Kernel => Ok(Running::new(Route::Direct, target.at(0))),
            Carrier::Programs(programs) => programs.run(wan, target).await,
            Carrier::Peer(peer) => run_peer(peer, wan, target).await,
        }
    }
}

// === impl Programs ===

impl Programs {
    fn new(folder: &Path, flags: fn(&Ports, &Path) -> Launch) -> Result<Self> {
        let certs = tempfile::tempdir()?;
        DevCerts::generate(Validity::days(1))?.write(certs.path())?;
        let anywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let ports = Ports {
            clients: anywhere,
            agents: anywhere,
        };
        let launch = flags(&ports, certs.path());
        for (program, _) in [launch.server, launch.agent] {
            let path = folder.join(program);
            if !path.is_file() {
                bail!("{} is not there: build it first", path.display());
            }
        }
        Ok(Self {
            folder: folder.to_owned(),
            certs,
            flags,
            more: Vec::new(),
        })
    }

    async fn run(&self, wan: &Wan, target: &Target) -> Result<Running> {
        let logs = tempfile::tempdir()?;
        let ports = Ports::free()?;
        let launch = (self.flags)(&ports, self.certs.path());
        let deadline = Instant::now() + START_LIMIT;
        let mut programs = vec![self.start(&launch.server, logs.path())?];
        // An agent that finds no server waits before it dials again: start it when there is one.
        eventually(deadline, &mut programs, async || {
            TcpStream::connect(ports.clients).await?;
            Ok(())
        })
        .await?;
        programs.push(on_far_side(wan, || self.start(&launch.agent, logs.path()))?);
        let mut running = Running::new(Route::Proxy(ports.clients), target.at(0));
        eventually(deadline, &mut programs, async || {
            load::exchange(&mut running.open().await?).await
        })
        .await?;
        running._programs = programs;
        running._logs = Some(logs);
        Ok(running)
    }

    /// Starts a program on the calling thread's side.
    fn start(&self, (name, flags): &(&'static str, Flags), logs: &Path) -> Result<Program> {
        let more = self.more.iter();
        let more = more.map(|(flag, value)| (flag.as_str(), value.clone()));
        let flags: Vec<(&str, String)> = flags.iter().cloned().chain(more).collect();
        Program::start(name, &self.folder, &flags, logs)
    }
}

// === impl Running ===

impl Running {
    fn new(route: Route, orders: SocketAddr) -> Self {
        Self {
            route,
            orders,
            _programs: Vec::new(),
            _logs: None,
            _peer: None,
        }
    }

    /// Opens a connection to the target's first listener, through the subject.
    ///
    /// # Errors
    /// When it is refused or takes too long.
    pub async fn open(&self) -> Result<TcpStream> {
        self.route.open(self.orders).await
    }
}

// === impl Ports ===

impl Ports {
    /// Ports that are free now on the calling thread's side.
    fn free() -> Result<Self> {
        let near = Side::Near.address();
        Ok(Self {
            clients: TcpListener::bind("127.0.0.1:0")?.local_addr()?,
            agents: UdpSocket::bind((near, 0))?.local_addr()?,
        })
    }
}

async fn run_peer(peer: &Peer, wan: &Wan, target: &Target) -> Result<Running> {
    // Only two of the services are asked for: orders, and messages while it starts.
    let (orders, echo) = (target.at(0), target.echo());
    let services = Addresses::from([orders, orders, echo, orders]);
    let elsewhere = |launch: &(dyn Fn() -> Result<Program> + Sync)| on_far_side(wan, launch);
    let started = peer.start_apart(services, START_LIMIT, elsewhere).await?;
    let mut running = Running::new(started.route, started.at.source);
    running._peer = Some(started);
    Ok(running)
}

/// Starts a program on the far side that belongs to the calling thread's runtime.
fn on_far_side(wan: &Wan, start: impl FnOnce() -> Result<Program> + Send) -> Result<Program> {
    let runtime = Handle::current();
    wan.namespace(Side::Far).run(|| {
        let _entered = runtime.enter();
        start()
    })
}

fn towline(ports: &Ports, certs: &Path) -> Launch {
    let mut server = server_flags(ports, certs);
    server.push(("--admin-listen", "127.0.0.1:0".to_owned()));
    let mut agent = agent_flags(ports, certs);
    agent.push(("--admin-listen", "127.0.0.1:0".to_owned()));
    agent.push(("--server-name", SERVER_NAME.to_owned()));
    Launch {
        server: ("proxy-server", server),
        agent: ("proxy-agent", agent),
    }
}

fn reference(ports: &Ports, certs: &Path) -> Launch {
    Launch {
        server: ("quic-server", server_flags(ports, certs)),
        agent: ("quic-client", agent_flags(ports, certs)),
    }
}

fn server_flags(ports: &Ports, certs: &Path) -> Flags {
    vec![
        ("--listen-tcp", ports.clients.to_string()),
        ("--listen-quic", ports.agents.to_string()),
        ("--cert-file", file(certs, "server.pem")),
        ("--cert-key", file(certs, "server-key.pem")),
        ("--client-ca-file", file(certs, "ca.pem")),
    ]
}

fn agent_flags(ports: &Ports, certs: &Path) -> Flags {
    vec![
        ("--server", ports.agents.to_string()),
        ("--ca-file", file(certs, "ca.pem")),
        ("--cert-file", file(certs, "agent.pem")),
        ("--cert-key", file(certs, "agent-key.pem")),
    ]
}

fn file(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}

/// `--a 1 --b 2` as pairs.
fn pairs(flags: &str) -> Result<Vec<(String, String)>> {
    let words: Vec<&str> = flags.split_whitespace().collect();
    let pairs = words.chunks(2).map(|pair| match pair {
        [flag, value] => Ok(((*flag).to_owned(), (*value).to_owned())),
        _ => bail!("{flags}: each flag needs a value behind a space"),
    });
    pairs.collect()
}

async fn eventually(
    deadline: Instant,
    programs: &mut [Program],
    mut ask: impl AsyncFnMut() -> Result<()>,
) -> Result<()> {
    loop {
        let Err(error) = ask().await else {
            return Ok(());
        };
        for program in &mut *programs {
            program.still_runs()?;
        }
        if Instant::now() >= deadline {
            let logs: Vec<String> = programs.iter().map(Program::last_words).collect();
            return Err(error)
                .with_context(|| format!("not ready within {START_LIMIT:?}; {}", logs.join("; ")));
        }
        sleep(START_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_come_in_pairs() {
        let pair = |flag: &str, value: &str| (flag.to_owned(), value.to_owned());
        assert_eq!(
            pairs("--a 1 --b 2").unwrap(),
            [pair("--a", "1"), pair("--b", "2")]
        );
        assert!(pairs("").unwrap().is_empty());
        assert!(pairs("--a 1 --b").is_err());
    }
}
