//! Programs that are not ours, as processes: peers of the legacy dialect and kube-apiserver's
//! dialer. This module starts them and reads their output.

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::certs::Certs;
use crate::target;

pub mod exchange;
pub mod pairs;

/// How long a program may take to write the line that a test waits for: a dead session is detected
/// within 8 s, and then an agent has to dial again.
const SAY_LIMIT: Duration = Duration::from_secs(20);

/// Where the real programs of the reference are, if they are installed.
const REFERENCE_DIR: &str = "TOWLINE_REFERENCE_DIR";

/// A running program and the lines that it wrote; dropping it kills it.
#[derive(Debug)]
pub struct Peer {
    name: String,
    child: Child,
    /// Never written to. The Go programs stop at its end, which comes with the end of their test.
    _stdin: ChildStdin,
    lines: watch::Receiver<Vec<String>>,
    readers: JoinSet<()>,
}

/// Which programs of the legacy dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Those of `crates/e2e/interop`, which share nothing with ours.
    Legacy,
    /// Those of gardener/quic-reverse-http-tunnel.
    Reference,
}

/// An agent of the legacy dialect, of either kind.
#[derive(Debug)]
pub struct LegacyAgent {
    peer: Peer,
    /// The text that it logs for each session.
    connected: &'static str,
}

/// A server of the legacy dialect.
#[derive(Debug)]
pub struct LegacyServer {
    /// The address for clients.
    pub clients: SocketAddr,
    /// The address for agents.
    pub agents: SocketAddr,
    peer: Peer,
}

/// A program that `make interop` has built, by its name.
pub fn go_program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let target = test.ancestors().nth(3).expect("target/PROFILE/deps/TEST");
    target.join("interop").join(name)
}

// === impl Peer ===

impl Peer {
    /// Starts a program. Needs a runtime.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start<S: AsRef<str>>(program: &Path, flags: &[S]) -> Self {
        let name = program.display().to_string();
        let mut child = Command::new(program)
            .args(flags.iter().map(AsRef::as_ref))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}; `make interop` builds it"));
        let (grow, lines) = watch::channel(Vec::new());
        let mut readers = JoinSet::new();
        readers.spawn(read(child.stdout.take().expect("a pipe"), grow.clone()));
        readers.spawn(read(child.stderr.take().expect("a pipe"), grow));
        Self {
            name,
            _stdin: child.stdin.take().expect("a pipe"),
            child,
            lines,
            readers,
        }
    }

    /// Waits until `find` finds what it looks for in the lines so far, and returns it.
    ///
    /// # Panics
    /// If no line matches in time, or the program ends without one.
    pub async fn says<T>(&self, what: &str, find: impl Fn(&[String]) -> Option<T>) -> T {
        let mut lines = self.lines.clone();
        let said = timeout(SAY_LIMIT, lines.wait_for(|lines| find(lines).is_some())).await;
        let found = said
            .ok()
            .and_then(Result::ok)
            .and_then(|lines| find(&lines));
        let lines = || self.lines.borrow().join("\n");
        found.unwrap_or_else(|| panic!("{} does not say {what}:\n{}", self.name, lines()))
    }

    /// Waits until it has ended by itself, and returns all that it wrote.
    ///
    /// # Panics
    /// When it does not end in time.
    pub async fn ended(mut self) -> Vec<String> {
        let ended = async {
            self.child.wait().await.expect("a child of this process");
            while self.readers.join_next().await.is_some() {}
        };
        let ended = timeout(SAY_LIMIT, ended).await;
        ended.unwrap_or_else(|_elapsed| panic!("{} does not end", self.name));
        self.lines.borrow().clone()
    }

    /// Kills it as a crash would, and waits until it is gone.
    ///
    /// # Panics
    /// When it has ended by itself.
    pub async fn kill(mut self) {
        let ended = self.child.try_wait().expect("a child of this process");
        assert_eq!(ended, None, "{}: {:?}", self.name, self.lines.borrow());
        self.child.kill().await.expect("a child that can be killed");
    }
}

// === impl Family ===

impl Family {
    /// Starts the agent that dials what it is asked for.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn connect_agent(self, certs: &Certs, server: SocketAddr) -> LegacyAgent {
        let (name, connected) = match self {
            Self::Legacy => ("legacy-agent", "connected "),
            Self::Reference => ("quic-client", "starting http server"),
        };
        let peer = self.start(name, &agent_flags(certs, server));
        LegacyAgent { peer, connected }
    }

    /// Starts the agent with one fixed upstream.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn passthrough_agent(
        self,
        certs: &Certs,
        server: SocketAddr,
        upstream: SocketAddr,
    ) -> LegacyAgent {
        let (name, connected) = match self {
            Self::Legacy => ("legacy-agent-tcp", "connected "),
            Self::Reference => ("quic-client-tcp", "connected to quic server"),
        };
        let mut flags = agent_flags(certs, server);
        flags.push(format!("--upstream={upstream}"));
        let peer = self.start(name, &flags);
        LegacyAgent { peer, connected }
    }

    /// Starts a server on free ports.
    ///
    /// # Panics
    /// When it does not start in time.
    pub async fn server(self, certs: &Certs) -> LegacyServer {
        match self {
            Self::Legacy => self.server_at(certs, ([127, 0, 0, 1], 0).into()).await,
            // It does not print its ports, so it gets ports that were free a moment ago.
            Self::Reference => {
                let free = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
                self.server_at(certs, free.expect("a free port")).await
            }
        }
    }

    /// Starts a server with the agents' side at this address.
    ///
    /// # Panics
    /// When it does not start in time.
    pub async fn server_at(self, certs: &Certs, agents: SocketAddr) -> LegacyServer {
        let (name, clients) = match self {
            Self::Legacy => ("legacy-server", SocketAddr::from(([127, 0, 0, 1], 0))),
            Self::Reference => ("quic-server", target::unused_address().await),
        };
        let flags = [
            format!("--listen-tcp={clients}"),
            format!("--listen-quic={agents}"),
            format!("--cert-file={}", certs.flag("server.pem")),
            format!("--cert-key={}", certs.flag("server-key.pem")),
            format!("--client-ca-file={}", certs.flag("ca.pem")),
        ];
        let peer = self.start(name, &flags);
        let (clients, agents) = match self {
            Self::Legacy => peer.says("where it listens", listening).await,
            Self::Reference => {
                let started = |lines: &[String]| count(lines, "server started").min(1);
                let is_up = |lines: &[String]| (started(lines) == 1).then_some(());
                peer.says("that it has started", is_up).await;
                (clients, agents)
            }
        };
        LegacyServer {
            clients,
            agents,
            peer,
        }
    }

    /// The reference logs its sessions only with this flag.
    fn start(self, name: &str, flags: &[String]) -> Peer {
        match self {
            Self::Legacy => Peer::start(&go_program(name), flags),
            Self::Reference => {
                let verbose = [flags, &["--v=2".to_owned()]].concat();
                Peer::start(&reference_dir().join(name), &verbose)
            }
        }
    }
}

// === impl LegacyAgent ===

impl LegacyAgent {
    /// Waits until it has had this many sessions since its start.
    ///
    /// # Panics
    /// When it has not in time.
    pub async fn has_connected(&self, times: usize) {
        let connected = |lines: &[String]| count(lines, self.connected) >= times;
        let what = format!("that it has connected {times} times");
        self.peer
            .says(&what, |lines| connected(lines).then_some(()))
            .await;
    }

    /// Kills it; its sessions end with their idle timeout.
    pub async fn kill(self) {
        self.peer.kill().await;
    }
}

// === impl LegacyServer ===

impl LegacyServer {
    /// Waits until this many agents have a session.
    ///
    /// # Panics
    /// When they have not in time.
    pub async fn has_agents(&self, expected: usize) {
        let are = |lines: &[String]| (sessions(lines) == expected).then_some(());
        self.peer.says(&format!("{expected} agents"), are).await;
    }

    /// Kills it; its sessions end with their idle timeout, or when its successor denies them.
    pub async fn kill(self) {
        self.peer.kill().await;
    }
}

/// The folder with the reference's own programs.
#[expect(
    clippy::disallowed_methods,
    reason = "a test has no command line on which a person could name the folder"
)]
fn reference_dir() -> PathBuf {
    let dir = std::env::var(REFERENCE_DIR);
    dir.unwrap_or_else(|_| panic!("the reference is not installed; set {REFERENCE_DIR}"))
        .into()
}

fn agent_flags(certs: &Certs, server: SocketAddr) -> Vec<String> {
    vec![
        format!("--server={server}"),
        format!("--ca-file={}", certs.flag("ca.pem")),
        format!("--cert-file={}", certs.flag("agent.pem")),
        format!("--cert-key={}", certs.flag("agent-key.pem")),
    ]
}

/// `listening tcp=ADDRESS quic=ADDRESS`
fn listening(lines: &[String]) -> Option<(SocketAddr, SocketAddr)> {
    lines.iter().find_map(|line| {
        let (clients, agents) = line.strip_prefix("listening tcp=")?.split_once(" quic=")?;
        Some((clients.parse().ok()?, agents.parse().ok()?))
    })
}

/// Sessions at a server: the legacy one logs their number, the reference logs each.
fn sessions(lines: &[String]) -> usize {
    let counted = lines.iter().filter_map(|line| line.strip_prefix("agents "));
    let counted = counted.filter_map(|count| count.parse().ok()).next_back();
    let come = count(lines, "got a quic client session");
    counted.unwrap_or_else(|| come.saturating_sub(count(lines, "lost a client")))
}

fn count(lines: &[String], what: &str) -> usize {
    lines.iter().filter(|line| line.contains(what)).count()
}

async fn read(output: impl AsyncRead + Unpin, grow: watch::Sender<Vec<String>>) {
    let mut output = BufReader::new(output).lines();
    while let Some(line) = output.next_line().await.expect("lines in UTF-8") {
        grow.send_modify(|lines| lines.push(line));
    }
}
