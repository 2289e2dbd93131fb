//! A process of many agents, each with a session of its own to one server.
//!
//! Every agent is what proxy-agent is underneath: the loop that keeps a session, with a UDP socket,
//! a handshake and a name of its own. It resets every stream: a server opens none here.
//!
//! The process prints `ready`, is told a number on stdin, prints `connected` when so many sessions
//! are up, and closes them all when stdin ends.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use towline_agent::args::{AgentArgs, AgentConfig};
use towline_agent::session_loop::{DialError, Keep, Observe, Serve};
use towline_protocol::code::StreamCode;
use towline_protocol::control::AgentKind;
use towline_protocol::target::Target;
use towline_service::shutdown::Shutdown;
use towline_tunnel::session::{Dialect, Session};
use towline_tunnel::stream::TunnelStream;
use towline_tunnel::tunnels::Tunnels;

use crate::place::Stage;
use crate::process::{Part, say, told};

/// How long all agents may take to connect, or to close.
const LIMIT: Duration = Duration::from_secs(60);

/// Agents that connect at the same time: a handshake is work for both ends.
const DIALERS: u32 = 32;

/// How agents are started that are all in one process.
#[derive(Debug, Clone)]
pub struct Swarm {
    /// Where the server listens for agents.
    pub server: SocketAddr,
    /// The folder of certificates that it accepts.
    pub certs: PathBuf,
    /// Further flags for the agents.
    pub flags: Vec<String>,
}

/// The agents' process; it ends when this is dropped.
#[derive(Debug)]
pub struct Agents(Part);

/// The process's command line: flags of proxy-agent.
#[derive(Debug, Clone, Args)]
pub struct SwarmArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    agent: Vec<String>,
}

/// The flags of an agent, as a command line of their own.
#[derive(Debug, Parser)]
struct AgentLine {
    #[command(flatten)]
    agent: AgentArgs,
}

/// Serves no streams, and reports each session that is up.
#[derive(Debug, Clone)]
struct Idle {
    tunnels: Tunnels,
    connected: mpsc::UnboundedSender<()>,
}

// === impl Swarm ===

impl Swarm {
    /// Starts the process at the far side, without any session yet.
    pub async fn start(&self, stage: &Stage<'_>) -> Result<Agents> {
        let file = |name| self.certs.join(name).display().to_string();
        let arguments = [
            ("--server", self.server.to_string()),
            ("--ca-file", file("ca.pem")),
            ("--cert-file", file("agent.pem")),
            ("--cert-key", file("agent-key.pem")),
        ];
        let mut line = vec!["swarm".to_owned(), "--".to_owned()];
        line.extend(
            arguments
                .into_iter()
                .flat_map(|(flag, value)| [flag.to_owned(), value]),
        );
        line.extend_from_slice(&self.flags);
        let mut agents = Agents(stage.far(|| Part::start(&line))?);
        agents.expect("ready").await?;
        Ok(agents)
    }
}

// === impl Agents ===

impl Agents {
    /// The process id.
    pub fn pid(&self) -> u32 {
        self.0.pid
    }

    /// Connects so many agents and waits until the server has welcomed all.
    pub async fn connect(&mut self, agents: u32) -> Result<()> {
        self.0.tell(&agents.to_string()).await?;
        self.expect("connected").await
    }

    /// Closes all sessions and waits for the end of the process.
    pub async fn stop(self) -> Result<()> {
        self.0.stop(LIMIT).await
    }

    async fn expect(&mut self, word: &str) -> Result<()> {
        let line = self
            .0
            .line(LIMIT)
            .await
            .with_context(|| format!("agents: {word}"))?;
        ensure!(
            line == word,
            "the agents' process printed {line:?} instead of {word}"
        );
        Ok(())
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
        // The receiver is gone once all are up.
        self.connected.send(()).ok();
    }

    fn disconnected(&self, _server: &Target, _session: &Session, _why: &str) {}

    fn failed(&self, _server: &Target, _why: &DialError) {}
}

/// Runs the agents until stdin ends.
pub async fn serve(args: &SwarmArgs) -> Result<()> {
    let line = ["swarm".to_owned()].into_iter().chain(args.agent.clone());
    let AgentLine { agent } = AgentLine::try_parse_from(line)?;
    let keep = AgentConfig::load(&agent, AgentKind::Connect)?.keep;
    let mut stdin = told()?;
    say("ready")?;
    let Some(number) = stdin.next_line().await? else {
        return Ok(());
    };
    let (agents, shutdown) = (number.parse()?, Shutdown::new());
    let mut sessions = JoinSet::new();
    connect(&keep, agents, &mut sessions, &shutdown).await?;
    say("connected")?;
    ensure!(
        stdin.next_line().await?.is_none(),
        "told more than a number"
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
    let (connected, mut reports) = mpsc::unbounded_channel();
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
        reports.recv().await.context("`idle` holds the other end")?;
        up += 1;
    }
    Ok(())
}
