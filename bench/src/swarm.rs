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
use towline_agent::args::AgentArgs;
use towline_agent::config::AgentConfig;
use towline_agent::server_connector::{DialError, QuicConnector};
use towline_agent::session_loop::{SessionLoop, SessionObserver, StreamHandler};
use towline_protocol::code::StreamCode;
use towline_protocol::control::AgentKind;
use towline_protocol::target::Target;
use towline_service::shutdown::Shutdown;
use towline_session::incoming::IncomingTunnel;
use towline_session::session::Session;
use towline_session::tunnel_table::TunnelTable;

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
    tunnels: TunnelTable,
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

impl StreamHandler for Idle {
    const KIND: AgentKind = AgentKind::Connect;

    async fn serve(&self, tunnel: IncomingTunnel) {
        tunnel.reset(StreamCode::Internal);
    }

    fn tunnels(&self) -> &TunnelTable {
        &self.tunnels
    }
}

impl SessionObserver for Idle {
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
    let config = AgentConfig::load(&agent, AgentKind::Connect)?;
    let mut stdin = told()?;
    say("ready")?;
    let Some(number) = stdin.next_line().await? else {
        return Ok(());
    };
    let (agents, shutdown) = (number.parse()?, Shutdown::new());
    let mut sessions = JoinSet::new();
    connect(&config, agents, &mut sessions, &shutdown).await?;
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
    config: &AgentConfig,
    agents: u32,
    sessions: &mut JoinSet<()>,
    shutdown: &Shutdown,
) -> Result<()> {
    let (connected, mut reports) = mpsc::unbounded_channel();
    let idle = Idle {
        tunnels: TunnelTable::new(&config.table),
        connected,
    };
    let (mut started, mut up) = (0, 0);
    while up < agents {
        while started < agents && started - up < DIALERS {
            let mut connector = config.connector.clone();
            connector.hello.agent_id = format!("swarm-{started}").parse()?;
            let agent = SessionLoop {
                connector: QuicConnector::new(connector),
                handler: idle.clone(),
                observer: idle.clone(),
                drain_timeout: config.drain_timeout,
                shutdown: shutdown.token(),
            };
            sessions.spawn(agent.run_all(config.servers.clone()));
            started += 1;
        }
        reports.recv().await.context("`idle` holds the other end")?;
        up += 1;
    }
    Ok(())
}
