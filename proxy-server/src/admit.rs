//! Admits sessions of any transport: hello, checks, registration, welcome, then the wait for the
//! end. A transport brings established sessions here: see [`quic`].

pub mod quic;

use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use thiserror::Error;
use tokio::time::timeout;
use towline_protocol::code::SessionCode;
use towline_protocol::control::{AgentKind, Draining, Hello, Message, Welcome};
use towline_protocol::failure::SessionError;
use towline_protocol::ids::AgentId;
use towline_session::control_stream::{ControlStream, ControlStreamError, next_message};
use towline_session::dialect::Dialect;
use towline_session::session::Session;
use tracing::{debug, info};

use crate::metrics::ServerMetrics;
use crate::registry::{AgentInfo, RegisterError, Registration, Registry, SessionEntry};

/// How long a message to an agent may take to leave.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// Flags of the agents' side, whatever the transport.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Agents")]
pub struct AdmitArgs {
    /// Kind of agents of gardener/quic-reverse-http-tunnel, which cannot tell it themselves.
    ///
    /// Set it to refuse once all agents are new.
    #[arg(
        long,
        env = "TOWLINE_LEGACY_AGENTS",
        value_name = "KIND",
        default_value = "connect"
    )]
    pub legacy_agents: LegacyAgents,

    /// Agent sessions held at the same time; more are closed as overload.
    ///
    /// An idle session holds 42 to 63 KiB.
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
    /// They are refused.
    Refuse,
}

/// The settings of the agents' side, whatever the transport.
#[derive(Debug, Clone)]
pub struct AdmitConfig {
    /// What agents of the legacy dialect are.
    pub legacy_agents: LegacyAgents,
    /// Agent sessions held at the same time.
    pub max_sessions: usize,
    /// How long an agent may take to say hello.
    pub handshake_timeout: Duration,
    /// How long agents are told that their tunnels may go on in a drain.
    pub drain_timeout: Duration,
}

/// Admits sessions into a registry.
#[derive(Debug)]
pub struct Admission {
    config: AdmitConfig,
    registry: Registry,
    metrics: Arc<ServerMetrics>,
    /// This server's name in the agents' logs.
    server_id: String,
}

/// Why an agent is refused.
#[derive(Debug, Error)]
enum AdmitError {
    #[error(transparent)]
    Control(#[from] ControlStreamError),
    #[error(transparent)]
    Register(#[from] RegisterError),
    #[error("legacy agents are refused here")]
    Legacy,
}

/// An agent whose session is registered.
struct Admitted {
    registration: Registration,
    /// Nothing on a legacy session.
    control: Option<ControlStream>,
    /// What the agent's hello says of itself; nothing on a legacy session.
    hello: Option<Hello>,
}

// === impl AdmitArgs ===

impl AdmitArgs {
    /// The configuration that these flags ask for.
    pub fn config(&self, handshake_timeout: Duration, drain_timeout: Duration) -> AdmitConfig {
        AdmitConfig {
            legacy_agents: self.legacy_agents,
            max_sessions: usize::try_from(self.max_sessions).unwrap_or(usize::MAX),
            handshake_timeout,
            drain_timeout,
        }
    }
}

// === impl AdmitConfig ===

impl Default for AdmitConfig {
    /// What the flags are without any.
    fn default() -> Self {
        Self {
            legacy_agents: LegacyAgents::Connect,
            max_sessions: 10_000,
            handshake_timeout: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(30),
        }
    }
}

// === impl Admission ===

impl Admission {
    /// Admits into `registry`.
    pub fn new(config: AdmitConfig, registry: Registry, metrics: Arc<ServerMetrics>) -> Self {
        Self {
            config,
            registry,
            metrics,
            server_id: format!("{}-{:08x}", env!("CARGO_PKG_NAME"), fastrand::u32(..)),
        }
    }

    /// A connection attempt that came to no session.
    pub fn handshake_failed(&self, error: &SessionError) {
        self.metrics.session_refused("handshake");
        debug!(%error, "handshake failed");
    }

    /// One session from its hello to its end.
    pub async fn serve(&self, session: Session) {
        match self.admit(&session).await {
            Ok(admitted) => {
                self.metrics.session_admitted();
                let Admitted {
                    registration,
                    control,
                    hello,
                } = admitted;
                let entry = Arc::clone(registration.entry());
                info!(agent = %entry.agent.id, session = %entry.id,
                    kind = ?entry.agent.kind, dialect = ?session.dialect(),
                    transport = session.transport().label(),
                    identity = session.identity().name(),
                    version = hello.as_ref().map(|hello| &*hello.version),
                    max_streams = hello.as_ref().map(|hello| hello.max_streams),
                    "agent connected");
                let why = self.wait(&entry, control).await;
                drop(registration);
                self.metrics.session_ended(why.label());
                info!(agent = %entry.agent.id, session = %entry.id, %why, "agent gone");
            }
            Err(error) => {
                self.metrics.session_refused(error.label());
                info!(identity = session.identity().name(), %error, "agent refused");
                session.close(error.code(), &error.to_string());
            }
        }
    }

    /// Hello, checks, registration, welcome.
    async fn admit(&self, session: &Session) -> Result<Admitted, AdmitError> {
        if session.dialect() == Dialect::Legacy {
            let agent = self.legacy_agent(session)?;
            return Ok(Admitted {
                registration: self.register(agent, session)?,
                control: None,
                hello: None,
            });
        }
        let (mut control, hello) =
            ControlStream::await_hello(session, self.config.handshake_timeout).await?;
        let agent = AgentInfo {
            id: hello.agent_id.clone(),
            identity: session.identity().name().into(),
            kind: hello.kind,
            epoch: Some(hello.epoch),
        };
        let registration = self.register(agent, session)?;
        let welcome = Message::Welcome(Welcome {
            server_id: self.server_id.clone(),
            session_id: registration.entry().id.number(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        });
        send(&mut control, &welcome).await?;
        Ok(Admitted {
            registration,
            control: Some(control),
            hello: Some(hello),
        })
    }

    fn register(&self, agent: AgentInfo, session: &Session) -> Result<Registration, RegisterError> {
        self.registry
            .register(agent, session.clone(), self.config.max_sessions)
    }

    /// A legacy agent has a certificate and nothing else.
    fn legacy_agent(&self, session: &Session) -> Result<AgentInfo, AdmitError> {
        let kind = match self.config.legacy_agents {
            LegacyAgents::Connect => AgentKind::Connect,
            LegacyAgents::Passthrough => AgentKind::Passthrough,
            LegacyAgents::Refuse => return Err(AdmitError::Legacy),
        };
        let name = session.identity().name();
        Ok(AgentInfo {
            id: AgentId::from_certificate_name(name),
            identity: name.into(),
            kind,
            epoch: None,
        })
    }

    /// Waits for the session's end; once it drains, ends it with its last tunnel.
    async fn wait(&self, entry: &SessionEntry, mut control: Option<ControlStream>) -> SessionError {
        let session = &entry.session;
        let (mut draining, mut leaving) = (false, false);
        loop {
            tokio::select! {
                why = session.closed() => return why,
                message = next_message(&mut control) => match message {
                    Ok(Message::Draining(_)) if !draining => {
                        info!("agent drains and takes no new tunnels");
                        draining = true;
                        entry.drain();
                    }
                    Ok(Message::Bye(bye)) if !leaving => {
                        leaving = true;
                        info!(reason = bye.reason, "agent announced its close");
                    }
                    // Further messages change nothing, however often they come.
                    Ok(message) => debug!(?message, "message from the agent"),
                    Err(error) => {
                        control = None;
                        session.close(SessionCode::Protocol, &error.to_string());
                    }
                },
                () = entry.draining(), if !draining => {
                    draining = true;
                    self.announce_drain(&mut control).await;
                }
                () = session.idle(), if draining => {
                    session.close(SessionCode::Closed, "drained");
                    return session.closed().await;
                }
            }
        }
    }

    async fn announce_drain(&self, control: &mut Option<ControlStream>) {
        let Some(stream) = control else { return };
        let drain = self.config.drain_timeout.as_millis();
        let deadline_ms = u64::try_from(drain).unwrap_or(u64::MAX);
        if let Err(error) = send(stream, &Message::Draining(Draining { deadline_ms })).await {
            debug!(%error, "telling the agent of the drain failed");
        }
    }
}

// === impl AdmitError ===

impl AdmitError {
    fn code(&self) -> SessionCode {
        match self {
            Self::Control(_) => SessionCode::Protocol,
            Self::Register(RegisterError::Stale(_)) => SessionCode::Replaced,
            Self::Register(RegisterError::Full) => SessionCode::Overload,
            Self::Register(RegisterError::ShuttingDown) => SessionCode::Draining,
            Self::Legacy => SessionCode::Refused,
        }
    }

    fn label(&self) -> &'static str {
        self.code().label()
    }
}

async fn send(control: &mut ControlStream, message: &Message) -> Result<(), ControlStreamError> {
    timeout(SEND_TIMEOUT, control.send(message))
        .await
        .map_err(|_elapsed| ControlStreamError::Timeout)?
}

#[cfg(test)]
mod tests;
