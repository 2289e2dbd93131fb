//! The programs as processes, for tests of signals, `kill -9` and exit statuses.
//!
//! The binaries are those beside the test in the target folder. `cargo test --workspace` builds
//! them before it runs any test, because every program's package has integration tests of its own;
//! `cargo test -p towline-e2e` alone does not, and would run the binaries of an earlier build.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::certs::Certs;
use crate::programs::{agent_line, server_line};

/// How long a program may take to log what a test waits for.
const EVENT_LIMIT: Duration = Duration::from_secs(10);

/// How long a program that cannot serve may take to log its reason and end.
const RUN_LIMIT: Duration = Duration::from_secs(10);

/// A running program; dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    child: Child,
    log: watch::Receiver<Vec<Line>>,
    reader: JoinSet<()>,
}

/// One line that a program wrote to stderr.
#[derive(Debug, Clone)]
pub struct Line {
    /// The line.
    pub text: String,
    /// The log event, if the line is one.
    pub event: Option<Value>,
}

/// A program that has ended by itself.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

/// Runs a program until it ends by itself, with these flags and this environment alone.
///
/// # Panics
/// When the binary is missing, or it does not end in time.
pub async fn run(name: &str, flags: &[&str], environment: &[(&str, &str)]) -> Ended {
    let output = command(name)
        .args(flags)
        .envs(environment.iter().copied())
        .output();
    let output = timeout(RUN_LIMIT, output)
        .await
        .unwrap_or_else(|_elapsed| panic!("{name} {flags:?} {environment:?} does not end"))
        .expect("a program that can be run");
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

// === impl Process ===

impl Process {
    /// Starts a program with a JSON log and these flags. Needs a runtime.
    ///
    /// # Panics
    /// When the binary is missing.
    pub fn start(name: &'static str, flags: &[&str]) -> Self {
        Self::start_in(name, flags, &[])
    }

    /// Starts a program with these environment variables and no others.
    ///
    /// # Panics
    /// When the binary is missing.
    pub fn start_in(name: &'static str, flags: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut child = command(name)
            .args(["--log-format", "json"])
            .args(flags)
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .spawn()
            .expect("a program that can be started");
        let stderr = child.stderr.take().expect("stderr is a pipe");
        let (grow, log) = watch::channel(Vec::new());
        let mut reader = JoinSet::new();
        reader.spawn(read(stderr, grow));
        Self {
            name,
            child,
            log,
            reader,
        }
    }

    /// Starts a proxy-server with CONNECT on a TCP port, a free one unless the flags name it.
    ///
    /// # Panics
    /// When the binary is missing.
    pub fn server(certs: &Certs, flags: &[&str]) -> Self {
        let listen: &[&str] = match flags.contains(&"--listen-tcp") {
            true => &[],
            false => &["--listen-tcp", "127.0.0.1:0"],
        };
        Self::start_line(
            "proxy-server",
            &server_line(certs, &[listen, flags].concat()),
        )
    }

    /// Starts a proxy-agent for `server`, and `flags` behind the usual ones.
    ///
    /// # Panics
    /// When the binary is missing.
    pub fn agent(certs: &Certs, server: SocketAddr, flags: &[&str]) -> Self {
        Self::start_line(
            "proxy-agent",
            &agent_line("proxy-agent", certs, server, flags),
        )
    }

    /// Starts an agent-tcp for `server` with a fixed upstream, and `flags` behind the usual ones.
    ///
    /// # Panics
    /// When the binary is missing.
    pub fn agent_tcp(
        certs: &Certs,
        server: SocketAddr,
        upstream: SocketAddr,
        flags: &[&str],
    ) -> Self {
        let upstream = upstream.to_string();
        let flags = [&["--upstream", &upstream], flags].concat();
        Self::start_line("agent-tcp", &agent_line("agent-tcp", certs, server, &flags))
    }

    /// The line begins with the program's name.
    fn start_line(name: &'static str, line: &[String]) -> Self {
        let flags: Vec<_> = line.iter().skip(1).map(String::as_str).collect();
        Self::start(name, &flags)
    }

    /// The address of the first listener of this frontend, read from the log: `connect`, `raw`, or
    /// `agents` for the QUIC listener.
    ///
    /// # Panics
    /// If it is not logged in time.
    pub async fn address(&self, frontend: &str) -> SocketAddr {
        let listening = self
            .event("listening", |event| event["frontend"] == frontend)
            .await;
        parsed(&listening["address"])
    }

    /// The address of the admin pages, read from the log.
    ///
    /// # Panics
    /// If it is not logged in time.
    pub async fn admin(&self) -> SocketAddr {
        match self.name {
            "proxy-server" => parsed(&self.event("admin listening", |_| true).await["address"]),
            _ => parsed(&self.event("started", |_| true).await["admin"]),
        }
    }

    /// Waits for a log event with this message of which `is` is true, since the start.
    ///
    /// # Panics
    /// When there is none in time, or the log ends without one.
    pub async fn event(&self, message: &str, is: impl Fn(&Value) -> bool) -> Value {
        let found = |lines: &[Line]| {
            let mut events = lines.iter().filter_map(|line| line.event.as_ref());
            events
                .find(|event| event["message"] == message && is(event))
                .cloned()
        };
        let mut log = self.log.clone();
        let waited = timeout(EVENT_LIMIT, log.wait_for(|lines| found(lines).is_some())).await;
        let event = waited
            .ok()
            .and_then(Result::ok)
            .and_then(|lines| found(&lines));
        event.unwrap_or_else(|| panic!("{} does not log {message:?}: {}", self.name, self.text()))
    }

    /// Every line that it wrote to stderr up to now; after [`Self::exit_status`], every line.
    pub fn lines(&self) -> Vec<Line> {
        self.log.borrow().clone()
    }

    /// What it wrote to stderr up to now.
    pub fn text(&self) -> String {
        let lines = self.log.borrow();
        let lines: Vec<_> = lines.iter().map(|line| line.text.as_str()).collect();
        lines.join("\n")
    }

    /// Kills it with SIGKILL.
    ///
    /// # Panics
    /// When it has ended by itself.
    pub async fn kill(mut self) {
        let ended = self.child.try_wait().expect("a child of this process");
        assert!(
            ended.is_none(),
            "{} has ended by itself: {}",
            self.name,
            self.text()
        );
        self.child.kill().await.expect("a child that can be killed");
    }

    /// Asks it to stop: SIGTERM.
    ///
    /// # Panics
    /// If it has ended already.
    pub async fn terminate(&self) {
        self.signal("TERM").await;
    }

    /// Asks it to stop as a terminal does: SIGINT.
    ///
    /// # Panics
    /// If it has ended already.
    pub async fn interrupt(&self) {
        self.signal("INT").await;
    }

    /// Uses the `kill` of the shell: a system call would need `unsafe`.
    async fn signal(&self, name: &str) {
        let id = self
            .child
            .id()
            .unwrap_or_else(|| panic!("{} has been waited for", self.name));
        let sent = Command::new("sh")
            .args(["-c", "kill -s \"$0\" \"$1\"", name, &id.to_string()])
            .status();
        let sent = sent.await.expect("a shell");
        assert!(sent.success(), "{} is gone: {}", self.name, self.text());
    }

    /// Waits until it has ended and its log was read to the end.
    ///
    /// # Panics
    /// When it has not within `limit`.
    pub async fn exit_status(&mut self, limit: Duration) -> ExitStatus {
        let ended = async {
            let status = self.child.wait().await.expect("a child of this process");
            while self.reader.join_next().await.is_some() {}
            status
        };
        match timeout(limit, ended).await {
            Ok(status) => status,
            Err(_elapsed) => panic!(
                "{} did not end within {limit:?}: {}",
                self.name,
                self.text()
            ),
        }
    }
}

/// A program without arguments or environment, killed when it is dropped, whose stderr is read.
fn command(name: &str) -> Command {
    let path = binary(name);
    assert!(
        path.exists(),
        "{} is missing: run `cargo build --workspace` first",
        path.display()
    );
    let mut command = Command::new(path);
    command
        .env_clear()
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Tests are in `target/PROFILE/deps`, programs one folder up.
fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let folder = test.ancestors().nth(2).expect("target/PROFILE/deps/TEST");
    folder.join(name)
}

async fn read(stderr: ChildStderr, grow: watch::Sender<Vec<Line>>) {
    let mut lines = BufReader::new(stderr).lines();
    while let Some(text) = lines.next_line().await.expect("a log in UTF-8") {
        let event = serde_json::from_str(&text).ok();
        grow.send_modify(|lines| lines.push(Line { text, event }));
    }
}

fn parsed(address: &Value) -> SocketAddr {
    let text = address.as_str().expect("an address as text");
    text.parse().expect("an address of TCP or UDP")
}
