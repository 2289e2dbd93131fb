//! What is measured: nothing at all, Towline, or a peer.
//!
//! A further peer is a file here, a variant of [`Kind`] and a line in each `match` over it.

mod program;
mod reference;
mod towline;

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use towline_tls::devcerts::{DevCerts, Validity};

pub use self::program::Program;
use crate::client::{self, Route};

/// How long a subject may take from its start to its first tunnel.
const START_LIMIT: Duration = Duration::from_secs(10);

/// How often a subject that starts is asked again.
const START_PAUSE: Duration = Duration::from_millis(20);

/// What can be measured, in the table's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub enum Kind {
    /// The load generator's connections go straight to the target.
    Direct,
    /// proxy-server and proxy-agent.
    Towline,
    /// quic-server and quic-client of gardener/quic-reverse-http-tunnel.
    Reference,
}

/// A subject that is installed.
#[derive(Debug)]
pub struct Subject {
    /// Which one.
    pub kind: Kind,
    binaries: PathBuf,
    certs: TempDir,
}

/// The processes of a subject; they are killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    /// How clients reach targets.
    pub route: Route,
    /// The server, then the agent; none when direct.
    pub programs: Vec<Program>,
    _logs: TempDir,
}

/// The addresses that a subject is told to use.
#[derive(Debug, Clone, Copy)]
struct Ports {
    tcp: SocketAddr,
    quic: SocketAddr,
}

// === impl Kind ===

impl Kind {
    /// The column's title.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Towline => "towline",
            Self::Reference => "reference",
        }
    }
}

// === impl Subject ===

impl Subject {
    /// A subject whose programs, if it has any, are in the folder `binaries`.
    ///
    /// # Errors
    /// When one is missing, or certificates cannot be made.
    pub fn new(kind: Kind, binaries: &Path) -> Result<Self> {
        let programs = match kind {
            Kind::Direct => [].as_slice(),
            Kind::Towline => &towline::PROGRAMS,
            Kind::Reference => &reference::PROGRAMS,
        };
        for program in programs {
            let path = binaries.join(program);
            if !path.is_file() {
                bail!("{} is not there: build it first", path.display());
            }
        }
        let certs = tempfile::tempdir()?;
        DevCerts::generate(Validity::days(1))?.write(certs.path())?;
        Ok(Self {
            kind,
            binaries: binaries.to_owned(),
            certs,
        })
    }

    /// What exactly is measured, in one line.
    ///
    /// # Errors
    /// When a program does not say its version.
    pub async fn describe(&self) -> Result<String> {
        Ok(match self.kind {
            Kind::Direct => "load generator to target, no proxy".to_owned(),
            Kind::Towline => towline::describe(&self.binaries).await?,
            Kind::Reference => reference::describe(&self.binaries).await?,
        })
    }

    /// Starts the subject's programs and waits until a message to `echo` comes back through them.
    ///
    /// # Errors
    /// When that does not happen in time; the text has the end of the programs' logs.
    pub async fn start(&self, echo: SocketAddr) -> Result<Running> {
        let logs = tempfile::tempdir()?;
        let ports = Ports::free()?;
        let spawn = |name: &'static str, flags: &[(&str, String)]| {
            Program::start(name, &self.binaries, flags, logs.path())
        };
        let (server, agent) = match self.kind {
            Kind::Direct => {
                return Ok(Running {
                    route: Route::Direct,
                    programs: Vec::new(),
                    _logs: logs,
                });
            }
            Kind::Towline => towline::flags(ports, self.certs.path()),
            Kind::Reference => reference::flags(ports, self.certs.path()),
        };
        let [server_name, agent_name] = match self.kind {
            Kind::Reference => reference::PROGRAMS,
            _ => towline::PROGRAMS,
        };
        let deadline = Instant::now() + START_LIMIT;
        let mut programs = vec![spawn(server_name, &server)?];
        // An agent that finds no server waits before it dials again: start it when there is one.
        eventually(deadline, &mut programs, async || {
            TcpStream::connect(ports.tcp).await?;
            Ok(())
        })
        .await?;
        programs.push(spawn(agent_name, &agent)?);
        let route = Route::Proxy(ports.tcp);
        eventually(deadline, &mut programs, async || {
            client::exchange(&mut route.open(echo).await?).await
        })
        .await?;
        Ok(Running {
            route,
            programs,
            _logs: logs,
        })
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

// === impl Ports ===

impl Ports {
    /// Ports that are free now; the reference cannot be asked which one it took.
    fn free() -> Result<Self> {
        Ok(Self {
            tcp: TcpListener::bind("127.0.0.1:0")?.local_addr()?,
            quic: UdpSocket::bind("127.0.0.1:0")?.local_addr()?,
        })
    }
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

fn flag(name: &'static str, value: impl ToString) -> (&'static str, String) {
    (name, value.to_string())
}

fn file(name: &'static str, dir: &Path, file: &str) -> (&'static str, String) {
    (name, dir.join(file).display().to_string())
}
