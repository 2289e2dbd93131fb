//! What is measured: nothing at all, Towline, or a peer.
//!
//! A further peer is a file here, a variant of [`Kind`] and a line in each `match` over it.

mod chisel;
mod frp;
mod go;
mod konnectivity;
mod program;
mod rathole;
mod reference;
mod setup;
mod towline;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use towline_tls::devcerts::{DevCerts, Validity};

pub use self::program::Program;
use self::setup::{Launch, Place, Setup};
use crate::client::{self, Route};
use crate::target::Addresses;

/// How long a subject may take from its start to its first tunnel on one machine.
const START_LIMIT: Duration = Duration::from_secs(10);

/// How often a subject that starts is asked again.
const START_PAUSE: Duration = Duration::from_millis(20);

/// What can be measured, in the table's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The load generator's connections go straight to the target.
    Direct,
    /// proxy-server and proxy-agent.
    Towline,
    /// The same with datagrams no larger than an Ethernet takes, as all QUIC peers send them.
    #[value(name = "towline-1472")]
    #[serde(rename = "towline-1472")]
    TowlineSmall,
    /// quic-server and quic-client of gardener/quic-reverse-http-tunnel.
    Reference,
    /// Server and agent of Kubernetes' apiserver-network-proxy.
    Konnectivity,
    /// frps and frpc over QUIC.
    FrpQuic,
    /// frps and frpc over TCP with TLS.
    FrpTls,
    /// chisel, which speaks SSH in a WebSocket.
    Chisel,
    /// rathole over TLS.
    RatholeTls,
    /// rathole over TCP, not encrypted.
    RatholePlain,
}

/// A subject that is installed.
#[derive(Debug)]
pub struct Subject {
    /// Which one.
    pub kind: Kind,
    /// Flags that both programs of ours get besides; peers have none.
    pub flags: Vec<String>,
    binaries: PathBuf,
    certs: TempDir,
}

/// The processes of a subject; they are killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    /// How clients enter.
    pub route: Route,
    /// Where they find the target behind it.
    pub at: Addresses,
    /// The server, then the agent; none when direct.
    pub programs: Vec<Program>,
    /// Where further agents can come in; none when the bench has no agents of that kind.
    pub swarm: Option<Swarm>,
    _files: TempDir,
}

/// What agents that are all in one process need; see [`crate::swarm`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swarm {
    /// Where the server listens for agents.
    pub server: SocketAddr,
    /// Certificates that it accepts.
    pub certs: PathBuf,
    /// Flags that agents get besides.
    pub flags: Vec<String>,
}

/// Until when a subject must have started.
#[derive(Debug, Clone, Copy)]
struct Deadline {
    limit: Duration,
    at: Instant,
}

// === impl Kind ===

impl Kind {
    /// The column's title.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Towline => "towline",
            Self::TowlineSmall => "towline-1472",
            Self::Reference => "reference",
            Self::Konnectivity => "konnectivity",
            Self::FrpQuic => "frp-quic",
            Self::FrpTls => "frp-tls",
            Self::Chisel => "chisel",
            Self::RatholeTls => "rathole-tls",
            Self::RatholePlain => "rathole-plain (not encrypted)",
        }
    }

    /// Whether a row that fails here is a failure of the bench: ours, or the machine's.
    pub fn must_work(self) -> bool {
        self == Self::Direct || self.is_ours()
    }

    /// Whether its programs are Towline's.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::Towline | Self::TowlineSmall)
    }

    /// Flags of programs of ours that make this subject what it is.
    pub fn flags(self) -> &'static [&'static str] {
        match self {
            Self::TowlineSmall => &["--udp-max-datagram", "1472"],
            _ => &[],
        }
    }

    /// The folder of a peer's programs below that of all peers; none when it is no such peer.
    pub fn folder(self) -> Option<&'static str> {
        match self {
            Self::Direct | Self::Towline | Self::TowlineSmall => None,
            Self::Reference => Some("reference"),
            Self::Konnectivity => Some("konnectivity"),
            Self::FrpQuic | Self::FrpTls => Some("frp"),
            Self::Chisel => Some("chisel"),
            Self::RatholeTls | Self::RatholePlain => Some("rathole"),
        }
    }

    fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Direct => &[],
            Self::Towline | Self::TowlineSmall => &towline::PROGRAMS,
            Self::Reference => &reference::PROGRAMS,
            Self::Konnectivity => &konnectivity::PROGRAMS,
            Self::FrpQuic | Self::FrpTls => &frp::PROGRAMS,
            Self::Chisel => &chisel::PROGRAMS,
            Self::RatholeTls | Self::RatholePlain => &rathole::PROGRAMS,
        }
    }
}

// === impl Subject ===

impl Subject {
    /// A subject whose programs, if it has any, are in the folder `binaries`.
    ///
    /// # Errors
    /// When certificates cannot be made.
    pub fn new(kind: Kind, binaries: &Path) -> Result<Self> {
        let certs = tempfile::tempdir()?;
        DevCerts::generate(Validity::days(1))?.write(certs.path())?;
        Ok(Self {
            kind,
            flags: Vec::new(),
            binaries: binaries.to_owned(),
            certs,
        })
    }

    /// The program that is missing from the folder, if one is.
    pub fn missing(&self) -> Option<PathBuf> {
        let programs = self.kind.programs().iter();
        let mut paths = programs.map(|program| self.binaries.join(program));
        paths.find(|path| !path.is_file())
    }

    /// What exactly is measured, in one line.
    ///
    /// # Errors
    /// When a program does not say its version.
    pub async fn describe(&self) -> Result<String> {
        let binaries = &self.binaries;
        match self.kind {
            Kind::Direct => Ok("load generator to target, no proxy, NOT ENCRYPTED".to_owned()),
            Kind::Towline | Kind::TowlineSmall => towline::describe(binaries, &self.flags).await,
            Kind::Reference => reference::describe(binaries).await,
            Kind::Konnectivity => konnectivity::describe(binaries).await,
            Kind::FrpQuic => frp::describe(binaries, frp::Transport::Quic).await,
            Kind::FrpTls => frp::describe(binaries, frp::Transport::Tls).await,
            Kind::Chisel => chisel::describe(binaries).await,
            Kind::RatholeTls => rathole::describe(binaries, rathole::Transport::Tls).await,
            Kind::RatholePlain => rathole::describe(binaries, rathole::Transport::Plain).await,
        }
    }

    /// Starts the subject's programs and waits until a message comes back through them.
    ///
    /// # Errors
    /// When that does not happen in time; the text has the end of the programs' logs.
    pub async fn start(&self, target: Addresses) -> Result<Running> {
        self.start_apart(target, START_LIMIT, |launch| launch())
            .await
    }

    /// The same with the agent on another network, which may take until `limit` has passed:
    /// `elsewhere` starts the agent by calling its argument there.
    ///
    /// # Errors
    /// Those of [`Subject::start`] and of `elsewhere`.
    pub async fn start_apart(
        &self,
        target: Addresses,
        limit: Duration,
        elsewhere: impl FnOnce(&(dyn Fn() -> Result<Program> + Sync)) -> Result<Program>,
    ) -> Result<Running> {
        let files = tempfile::tempdir()?;
        let place = Place {
            certs: self.certs.path(),
            dir: files.path(),
            target,
        };
        let Some((setup, swarm)) = self.set_up(place)? else {
            return Ok(Running {
                route: Route::Direct,
                at: target,
                programs: Vec::new(),
                swarm: None,
                _files: files,
            });
        };
        let launch = |launch: &Launch| {
            let path = self.binaries.join(launch.program);
            Program::launch(launch.name, &path, launch.arguments.clone(), files.path())
        };
        let Setup {
            server,
            agent,
            up,
            route,
            at,
        } = setup;
        let deadline = Deadline {
            limit,
            at: Instant::now() + limit,
        };
        let mut programs = vec![launch(&server)?];
        // An agent that finds no server waits before it dials again: start it when there is one.
        eventually(deadline, &mut programs, async || {
            TcpStream::connect(up).await?;
            Ok(())
        })
        .await?;
        programs.push(elsewhere(&|| launch(&agent))?);
        eventually(deadline, &mut programs, async || {
            client::exchange(&mut route.open(at.echo).await?).await
        })
        .await?;
        Ok(Running {
            route,
            at,
            programs,
            swarm,
            _files: files,
        })
    }

    fn set_up(&self, place: Place<'_>) -> Result<Option<(Setup, Option<Swarm>)>> {
        let setup = match self.kind {
            Kind::Direct => return Ok(None),
            Kind::Towline | Kind::TowlineSmall => {
                let (setup, swarm) = towline::set_up(place, &self.flags)?;
                return Ok(Some((setup, Some(swarm))));
            }
            Kind::Reference => reference::set_up(place),
            Kind::Konnectivity => konnectivity::set_up(place),
            Kind::FrpQuic => frp::set_up(place, frp::Transport::Quic),
            Kind::FrpTls => frp::set_up(place, frp::Transport::Tls),
            Kind::Chisel => chisel::set_up(place),
            Kind::RatholeTls => rathole::set_up(place, rathole::Transport::Tls),
            Kind::RatholePlain => rathole::set_up(place, rathole::Transport::Plain),
        };
        Ok(Some((setup?, None)))
    }
}

// === impl Running ===

impl Running {
    /// Kills the programs and waits for their end, so that the next cell has the machine alone.
    ///
    /// # Errors
    /// When one had ended before.
    pub async fn stop(self) -> Result<()> {
        for program in self.programs {
            program.stop().await?;
        }
        Ok(())
    }
}

async fn eventually(
    deadline: Deadline,
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
        if Instant::now() >= deadline.at {
            let limit = deadline.limit;
            let logs: Vec<String> = programs.iter().map(Program::last_words).collect();
            return Err(error)
                .with_context(|| format!("not ready within {limit:?}; {}", logs.join("; ")));
        }
        sleep(START_PAUSE).await;
    }
}
