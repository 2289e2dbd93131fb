//! What is measured over the link, and how its programs are started on both sides of it.
//!
//! A further peer is a function that returns a [`Launch`] and a line in [`Subject::find`].

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};
use towline_bench::client::Route;
use towline_bench::subject::Program;
use towline_tls::devcerts::{DevCerts, Validity};

use crate::load;
use crate::target::Target;
use crate::wan::{Side, Wan};

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
    programs: Option<Programs>,
}

/// The programs of a subject that has some.
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
    _programs: Vec<Program>,
    _logs: TempDir,
}

// === impl Subject ===

impl Subject {
    /// All subjects there are: the kernel's TCP, ours, ours with other flags for each of
    /// `variants` (`NAME=--flag value`), and the Go reference if its folder is named.
    ///
    /// # Errors
    /// When programs are missing from a folder where they should be.
    pub fn find(ours: &Path, reference: Option<&Path>, variants: &[String]) -> Result<Vec<Self>> {
        let direct = |tcp| Self {
            name: format!("direct, {tcp}"),
            description: format!("load generator to target, no proxy, the kernel's {tcp}"),
            tcp,
            programs: None,
        };
        let mut all = vec![direct("cubic"), direct("bbr")];
        let about = "mutual TLS, metrics, log and access log on";
        all.push(Self::new("towline", about, Programs::new(ours, towline)?));
        for variant in variants {
            let (name, flags) = variant.split_once('=').context("a variant is NAME=FLAGS")?;
            let mut programs = Programs::new(ours, towline)?;
            programs.more = pairs(flags)?;
            let about = format!("{about}; both with {flags}");
            all.push(Self::new(&format!("towline, {name}"), &about, programs));
        }
        if let Some(folder) = reference {
            let about =
                "gardener/quic-reverse-http-tunnel, default flags: mutual TLS, no access log";
            all.push(Self::new(
                "reference",
                about,
                Programs::new(folder, reference_flags)?,
            ));
        }
        Ok(all)
    }

    fn new(name: &str, about: &str, programs: Programs) -> Self {
        Self {
            name: name.to_owned(),
            description: about.to_owned(),
            tcp: "cubic",
            programs: Some(programs),
        }
    }

    /// Starts the programs and waits until a message to the target comes back through them. The
    /// calling thread is on the near side.
    ///
    /// # Errors
    /// When that does not happen in time; the text has the end of the programs' logs.
    pub async fn start(&self, wan: &Wan, target: &Target) -> Result<Running> {
        let logs = tempfile::tempdir()?;
        let Some(programs) = &self.programs else {
            return Ok(Running {
                route: Route::Direct,
                _programs: Vec::new(),
                _logs: logs,
            });
        };
        let ports = Ports::free()?;
        let launch = (programs.flags)(&ports, programs.certs.path());
        let deadline = Instant::now() + START_LIMIT;
        let mut running = vec![programs.start(&launch.server, logs.path())?];
        // An agent that finds no server waits before it dials again: start it when there is one.
        eventually(deadline, &mut running, async || {
            TcpStream::connect(ports.clients).await?;
            Ok(())
        })
        .await?;
        let runtime = Handle::current();
        running.push(wan.namespace(Side::Far).run(|| {
            let _entered = runtime.enter();
            programs.start(&launch.agent, logs.path())
        })?);
        let route = Route::Proxy(ports.clients);
        eventually(deadline, &mut running, async || {
            load::exchange(&mut route.open(target.from_far(0)).await?).await
        })
        .await?;
        Ok(Running {
            route,
            _programs: running,
            _logs: logs,
        })
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
    /// Opens a connection to the target's listener with this index, through the subject.
    ///
    /// # Errors
    /// When it is refused or takes too long.
    pub async fn open(&self, target: &Target, index: usize) -> Result<TcpStream> {
        let address = match self.route {
            Route::Direct => target.from_near(index),
            Route::Proxy(_) | Route::Unix(_) => target.from_far(index),
        };
        self.route.open(address).await
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

fn reference_flags(ports: &Ports, certs: &Path) -> Launch {
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
