//! A process of many agents, each with a session of its own to one server.
//!
//! Every agent is what proxy-agent is underneath: the loop that keeps a session, with a UDP socket,
//! a handshake and a name of its own. It serves no streams: a server may open none here.
//!
//! The process says `ready`, is told a number on stdin, says `connected` when so many sessions are
//! up, and closes them all when stdin ends.

use std::io::{self, Write};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use towline_agent::args::{AgentArgs, AgentConfig};
use towline_agent::session_loop::{DialError, Keep, Observe, Serve};
use towline_protocol::code::StreamCode;
use towline_protocol::control::AgentKind;
use towline_protocol::target::Target;
use towline_service::shutdown::Shutdown;
use towline_tunnel::session::{Dialect, Session};
use towline_tunnel::stream::TunnelStream;
use towline_tunnel::tunnels::Tunnels;

use crate::subject;

/// How long all agents may take to connect, or to close.
const LIMIT: Duration = Duration::from_secs(60);

/// Agents that connect at the same time: a handshake is work for both ends.
const DIALERS: u32 = 32;

/// The agents' process, as the generator holds it; it ends when this is dropped.
#[derive(Debug)]
pub struct Swarm {
    /// The process's id.
    pub pid: u32,
    process: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

/// What the process is told on its command line: exactly what proxy-agent is.
#[derive(Debug, Clone, Args)]
pub struct SwarmArgs {
    /// Flags of proxy-agent.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    agent: Vec<String>,
}

/// The flags of an agent, as a command line of their own.
#[derive(Debug, Parser)]
struct AgentLine {
    #[command(flatten)]
    agent: AgentArgs,
}

/// Serves nothing, and tells who is connected.
#[derive(Debug, Clone)]
struct Idle {
    tunnels: Tunnels,
    connected: mpsc::UnboundedSender<()>,
}

// === impl Swarm ===

impl Swarm {
    /// Starts the process without any session yet.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(place: &subject::Swarm) -> Result<Self> {
        let file = |name: &str| place.certs.join(name);
        let mut process = Command::new("/proc/self/exe")
            .args(["swarm", "--", "--server", &place.server.to_string()])
            .arg("--ca-file")
            .arg(file("ca.pem"))
            .arg("--cert-file")
            .arg(file("agent.pem"))
            .arg("--cert-key")
            .arg(file("agent-key.pem"))
            .args(&place.flags)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("start the swarm")?;
        let stdin = process.stdin.take().context("the swarm has a stdin")?;
        let stdout = process.stdout.take().context("the swarm has a stdout")?;
        let mut swarm = Self {
            pid: process.id().context("a process that was just started")?,
            process,
            stdin,
            lines: BufReader::new(stdout).lines(),
        };
        swarm.expect("ready").await?;
        Ok(swarm)
    }

    /// Connects so many agents and waits until all are welcome.
    ///
    /// # Errors
    /// When one is not in time.
    pub async fn connect(&mut self, agents: u32) -> Result<()> {
        self.stdin
            .write_all(format!("{agents}\n").as_bytes())
            .await?;
        self.expect("connected").await
    }

    /// Closes all sessions and waits for the end of the process.
    ///
    /// # Errors
    /// When it does not end well.
    pub async fn stop(mut self) -> Result<()> {
        drop(self.stdin);
        let ended = timeout(LIMIT, self.process.wait()).await;
        let status = ended.context("the swarm does not end")??;
        ensure!(status.success(), "the swarm ended with {status}");
        Ok(())
    }

    async fn expect(&mut self, word: &str) -> Result<()> {
        let line = timeout(LIMIT, self.lines.next_line()).await;
        let line = line.with_context(|| format!("the swarm is not {word} within {LIMIT:?}"))??;
        match line {
            Some(line) if line == word => Ok(()),
            other => bail!("the swarm is not {word}, but says {other:?}"),
        }
    }
}

// === impl Idle ===

impl Serve for Idle {
    async fn serve(&self, stream: TunnelStream, _dialect: Dialect) {
        stream.reset(StreamCode::Internal);
    }

    fn tunnels(&self) -> &Tunnels {
        &self.tunnels
    }
}

impl Observe for Idle {
    fn connected(&self, _server: &Target, _session: &Session) {
        // Nobody listens any more once all are up.
        self.connected.send(()).ok();
    }

    fn disconnected(&self, _server: &Target, _session: &Session, _why: &str) {}

    fn failed(&self, _server: &Target, _why: &DialError) {}
}

/// Is the swarm, until stdin ends.
///
/// # Errors
/// When a flag is wrong.
pub async fn serve(args: &SwarmArgs) -> Result<()> {
    let line = ["swarm".to_owned()].into_iter().chain(args.agent.clone());
    let AgentLine { agent } = AgentLine::try_parse_from(line)?;
    let keep = AgentConfig::load(&agent, AgentKind::Connect)?.keep;
    let mut stdin = BufReader::new(tokio::io::stdin()).lines();
    writeln!(io::stdout().lock(), "ready")?;
    let Some(number) = stdin.next_line().await? else {
        return Ok(());
    };
    let (agents, shutdown) = (number.parse()?, Shutdown::new());
    let mut sessions = JoinSet::new();
    connect(&keep, agents, &mut sessions, &shutdown).await?;
    writeln!(io::stdout().lock(), "connected")?;
    ensure!(
        stdin.next_line().await?.is_none(),
        "told more than one number"
    );
    shutdown.trigger();
    while let Some(ended) = sessions.join_next().await {
        ended?;
    }
    Ok(())
}

async fn connect(
    keep: &Keep,
    agents: u32,
    sessions: &mut JoinSet<()>,
    shutdown: &Shutdown,
) -> Result<()> {
    let (connected, mut told) = mpsc::unbounded_channel();
    let knobs = &keep.dial.session;
    let (window, budget) = (knobs.stream_window, knobs.stall_budget);
    let idle = Idle {
        tunnels: Tunnels::new(window.as_u64(), budget.as_u64()),
        connected,
    };
    let (mut started, mut up) = (0, 0);
    while up < agents {
        while started < agents && started - up < DIALERS {
            let mut keep = keep.clone();
            keep.hello.agent_id = format!("swarm-{started}");
            sessions.spawn(keep.run(idle.clone(), idle.clone(), shutdown.token()));
            started += 1;
        }
        told.recv().await.context("the agents hold the other end")?;
        up += 1;
    }
    Ok(())
}
