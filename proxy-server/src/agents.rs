//! Accepts sessions: handshake, identity, hello, register, then wait for the end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use thiserror::Error;
use tokio::time::timeout;
use towline_protocol::code::SessionCode;
use towline_protocol::control::{AgentKind, Draining, Message, Welcome};
use towline_service::tasks::Tasks;
use towline_tls::ConfigError;
use towline_tls::load::{Credentials, LoadError, PemPath, Roots};
use towline_tunnel::control_stream::{ControlStream, ControlStreamError, next_message};
use towline_tunnel::endpoint::{BindError, Incoming, Listener, SocketArgs};
use towline_tunnel::knobs::SessionArgs;
use towline_tunnel::session::{ALPN, Dialect, Session, SessionError};
use tracing::{Instrument, debug, info, info_span};

use crate::metrics::Metrics;
use crate::registry::{AgentInfo, Member, NotTaken, Registration, Registry};

/// How long a message to an agent may take to leave.
const SEND_LIMIT: Duration = Duration::from_secs(5);

/// Longest agent id in bytes: it names metrics and log lines.
const MAX_AGENT_ID: usize = 253;

/// Flags of the agents' side.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Agents")]
pub struct AgentsArgs {
    /// UDP address that agents dial.
    #[arg(
        long,
        env = "TOWLINE_LISTEN_QUIC",
        value_name = "IP:PORT",
        default_value = "0.0.0.0:8888"
    )]
    pub listen_quic: std::net::SocketAddr,

    /// Certificate chain (PEM) that agents see.
    #[arg(long, env = "TOWLINE_CERT_FILE", value_name = "FILE", required = true)]
    pub cert_file: PathBuf,

    /// Private key (PEM) of --cert-file.
    #[arg(long, env = "TOWLINE_CERT_KEY", value_name = "FILE", required = true)]
    pub cert_key: PathBuf,

    /// Authorities (PEM) of the agents' certificates; an agent without one is not let in.
    #[arg(
        long,
        env = "TOWLINE_CLIENT_CA_FILE",
        value_name = "FILE",
        required = true
    )]
    pub client_ca_file: PathBuf,

    /// What agents of gardener/quic-reverse-http-tunnel are, as they cannot say so themselves.
    #[arg(
        long,
        env = "TOWLINE_LEGACY_AGENTS",
        value_name = "KIND",
        default_value = "connect"
    )]
    pub legacy_agents: LegacyAgents,

    /// Agent sessions held at the same time; more are closed as overload.
    #[arg(
        long,
        env = "TOWLINE_MAX_SESSIONS",
        value_name = "N",
        default_value_t = 10_000
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_sessions: u32,
}

/// What to do with agents of the legacy dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LegacyAgents {
    /// They dial what the CONNECT head asks for (the reference's `client`).
    Connect,
    /// They pass raw bytes to a fixed upstream (the reference's `client-tcp`).
    Passthrough,
    /// They are not let in.
    Refuse,
}

/// Why agents cannot be served.
#[derive(Debug, Error)]
pub enum OpenError {
    /// A file cannot be used.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The files do not make a configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No socket.
    #[error("--listen-quic")]
    Bind(#[from] BindError),
}

/// Why an agent was not let in, or its session ended by our will.
#[derive(Debug, Error)]
enum AdmitError {
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Control(#[from] ControlStreamError),
    #[error("the agent id is empty, has control characters, or more than {MAX_AGENT_ID} bytes")]
    AgentId,
    #[error(transparent)]
    NotTaken(#[from] NotTaken),
    #[error("legacy agents are refused here")]
    Legacy,
}

/// What admits agents.
#[derive(Debug)]
pub struct Agents {
    listener: Listener,
    legacy: LegacyAgents,
    max_sessions: usize,
    handshake_timeout: Duration,
    drain: Duration,
    registry: Registry,
    metrics: Arc<Metrics>,
    /// This server's name for the agents' logs.
    server_id: String,
}

// === impl Agents ===

impl Agents {
    /// Loads the files and opens the UDP socket.
    ///
    /// # Errors
    /// Which flag is at fault, and why.
    pub fn open(
        args: &AgentsArgs,
        (session, socket): (&SessionArgs, &SocketArgs),
        drain: Duration,
        registry: Registry,
        metrics: Arc<Metrics>,
    ) -> Result<Self, OpenError> {
        let tls = args.load()?;
        let listener = Listener::bind(args.listen_quic, tls, session, socket)?;
        let server_id = format!("{}-{:08x}", env!("CARGO_PKG_NAME"), fastrand::u32(..));
        Ok(Self {
            listener,
            legacy: args.legacy_agents,
            max_sessions: usize::try_from(args.max_sessions).unwrap_or(usize::MAX),
            handshake_timeout: session.quic_handshake_timeout,
            drain,
            registry,
            metrics,
            server_id,
        })
    }

    /// The UDP socket that agents dial.
    pub fn listener(&self) -> &Listener {
        &self.listener
    }

    /// Admits agents until the socket is closed; each is a task of `tasks`.
    pub async fn run(self: Arc<Self>, tasks: Tasks) {
        while let Some(incoming) = self.listener.accept().await {
            let span = info_span!("agent", remote = %incoming.remote_address());
            let agents = Arc::clone(&self);
            tasks.spawn(
                "agent",
                async move { agents.serve(incoming).await }.instrument(span),
            );
        }
    }

    /// One agent from its first packet to the end of its session.
    async fn serve(&self, incoming: Incoming) {
        let session = match incoming.handshake().await {
            Ok(session) => session,
            Err(error) => {
                self.metrics.session_refused("handshake");
                return debug!(%error, "no session");
            }
        };
        match self.admit(&session).await {
            Ok((registration, control)) => {
                self.metrics.session_admitted();
                let member = Arc::clone(registration.member());
                info!(agent = %member.agent.id, session = %member.id,
                    kind = ?member.agent.kind, dialect = ?session.dialect(),
                    identity = session.identity().name(), "agent connected");
                let why = self.wait(&member, control).await;
                drop(registration);
                self.metrics.session_ended(why.label());
                info!(agent = %member.agent.id, session = %member.id, %why, "agent gone");
            }
            Err(error) => {
                self.metrics.session_refused(error.label());
                info!(identity = session.identity().name(), %error, "agent refused");
                session.close(error.code(), &error.to_string());
            }
        }
    }

    /// Hello, checks, registration, welcome.
    async fn admit(
        &self,
        session: &Session,
    ) -> Result<(Registration, Option<ControlStream>), AdmitError> {
        if session.dialect() == Dialect::Legacy {
            let agent = self.legacy_agent(session)?;
            return Ok((
                self.registry
                    .register(agent, session.clone(), self.max_sessions)?,
                None,
            ));
        }
        let (mut control, hello) =
            ControlStream::await_hello(session, self.handshake_timeout).await?;
        let id = hello.agent_id;
        if id.is_empty() || id.len() > MAX_AGENT_ID || id.chars().any(char::is_control) {
            return Err(AdmitError::AgentId);
        }
        let agent = AgentInfo {
            id: id.into(),
            identity: session.identity().name().into(),
            kind: hello.kind,
            epoch: hello.epoch.max(1),
        };
        let registration = self
            .registry
            .register(agent, session.clone(), self.max_sessions)?;
        let welcome = Message::Welcome(Welcome {
            server_id: self.server_id.clone(),
            session_id: registration.member().id.number(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        });
        send(&mut control, &welcome).await?;
        Ok((registration, Some(control)))
    }

    /// A legacy agent has a certificate and nothing else.
    fn legacy_agent(&self, session: &Session) -> Result<AgentInfo, AdmitError> {
        let kind = match self.legacy {
            LegacyAgents::Connect => AgentKind::Connect,
            LegacyAgents::Passthrough => AgentKind::Passthrough,
            LegacyAgents::Refuse => return Err(AdmitError::Legacy),
        };
        let id = session
            .identity()
            .name()
            .chars()
            .take(MAX_AGENT_ID)
            .collect::<String>();
        Ok(AgentInfo {
            id: id.into(),
            identity: session.identity().name().into(),
            kind,
            epoch: 0,
        })
    }

    /// Waits for the session's end; once it drains, ends it with its last tunnel.
    async fn wait(&self, member: &Member, mut control: Option<ControlStream>) -> SessionError {
        let session = &member.session;
        let mut told = false;
        loop {
            tokio::select! {
                why = session.closed() => return why,
                message = next_message(&mut control) => match message {
                    Ok(Message::Draining(_)) if !told => {
                        info!("the agent drains");
                        told = true;
                        member.drain();
                    }
                    // Whatever else it says, however often, changes nothing.
                    Ok(message) => debug!(?message, "the agent says"),
                    Err(error) => {
                        control = None;
                        session.close(SessionCode::Protocol, &error.to_string());
                    }
                },
                () = member.draining(), if !told => {
                    told = true;
                    self.tell_draining(&mut control).await;
                }
                () = session.idle(), if told => {
                    session.close(SessionCode::Closed, "drained");
                    return session.closed().await;
                }
            }
        }
    }

    async fn tell_draining(&self, control: &mut Option<ControlStream>) {
        let Some(stream) = control else { return };
        let deadline_ms = u64::try_from(self.drain.as_millis()).unwrap_or(u64::MAX);
        if let Err(error) = send(stream, &Message::Draining(Draining { deadline_ms })).await {
            debug!(%error, "the agent was not told that its session drains");
        }
    }
}

// === impl AgentsArgs ===

impl AgentsArgs {
    /// Loads the files; opens nothing.
    ///
    /// # Errors
    /// Which file of which flag is unusable, and why.
    pub fn check(&self) -> Result<(), OpenError> {
        self.load().map(drop)
    }

    fn load(&self) -> Result<Arc<rustls::ServerConfig>, OpenError> {
        let credentials = Credentials::load(
            &PemPath {
                flag: "--cert-file",
                path: self.cert_file.clone(),
            },
            &PemPath {
                flag: "--cert-key",
                path: self.cert_key.clone(),
            },
        )?;
        let roots = Roots::load(&PemPath {
            flag: "--client-ca-file",
            path: self.client_ca_file.clone(),
        })?;
        // The legacy protocol is offered even where legacy agents are refused: a session that is
        // closed with words beats a handshake that fails.
        Ok(towline_tls::quic_server(&credentials, &roots, &ALPN)?)
    }
}

// === impl AdmitError ===

impl AdmitError {
    fn code(&self) -> SessionCode {
        match self {
            Self::Session(_) => SessionCode::Internal,
            Self::Control(_) | Self::AgentId => SessionCode::Protocol,
            Self::NotTaken(NotTaken::Stale(_)) => SessionCode::Replaced,
            Self::NotTaken(NotTaken::Full) => SessionCode::Overload,
            Self::NotTaken(NotTaken::ShuttingDown) => SessionCode::Draining,
            Self::Legacy => SessionCode::Refused,
        }
    }

    fn label(&self) -> &'static str {
        self.code().label()
    }
}

async fn send(control: &mut ControlStream, message: &Message) -> Result<(), ControlStreamError> {
    timeout(SEND_LIMIT, control.send(message))
        .await
        .map_err(|_elapsed| ControlStreamError::Timeout)?
}
