//! The checked configuration of an agent: plain values, every file read, every bound held.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use thiserror::Error;
use towline_protocol::control::{AgentKind, Hello};
use towline_protocol::ids::{AgentId, AgentIdError, Epoch};
use towline_protocol::target::Target;
use towline_quic::args::QuicConfig;
use towline_quic::dialer::DialConfig;
use towline_service::build_info;
use towline_session::args::TableConfig;
use towline_session::dialect::ALPN;
use towline_tls::load::{Credentials, LoadError, PemPath, Roots};
use towline_tls::quic_client;

use crate::args::{AgentArgs, TunnelArgs};
use crate::server_connector::QuicConnectorConfig;

/// What an agent needs to start.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// A session is kept to each; no server comes twice.
    pub servers: Vec<Target>,
    /// How to connect to the servers.
    pub connector: QuicConnectorConfig,
    /// How long live tunnels may go on after the shutdown began.
    pub drain_timeout: Duration,
    /// The address of the admin pages.
    pub admin_listen: SocketAddr,
    /// Bounds of each tunnel.
    pub tunnels: TunnelConfig,
    /// Bounds of all tunnels together.
    pub table: TableConfig,
}

/// Bounds of each tunnel.
#[derive(Debug, Clone, Copy)]
pub struct TunnelConfig {
    /// How long the request head may take to arrive.
    pub head_timeout: Duration,
    /// How long name look-up and connection may take together.
    pub dial_timeout: Duration,
    /// Silence in both directions after which a tunnel is reset; nothing for no limit.
    pub idle_timeout: Option<Duration>,
}

/// Why the flags make no configuration. Each names its flag.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A required flag is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// Two sessions to one server would take over from each other for ever.
    #[error("--server {0} is given twice")]
    Twice(Target),
    /// A file cannot be used; the text names flag and file.
    #[error(transparent)]
    File(#[from] LoadError),
    /// The host's name cannot serve as the agent's.
    #[error("--agent-id: the host's name {name:?} cannot be used: {why}")]
    HostName {
        /// The host's name.
        name: String,
        /// What is wrong with it.
        why: AgentIdError,
    },
    /// Flags of the tunnels that do not go together.
    #[error("{0}")]
    Table(String),
    /// Pings that are too rare for the idle timeout end every quiet session.
    #[error("--quic-keep-alive {keep_alive:?} is more than half of --quic-idle-timeout {idle:?}")]
    KeepAlive {
        /// How often the agent would ping.
        keep_alive: Duration,
        /// When the server would give up.
        idle: Duration,
    },
}

// === impl AgentConfig ===

impl AgentConfig {
    /// An agent of this kind and name, as it is without further flags.
    pub fn new(
        kind: AgentKind,
        agent_id: AgentId,
        servers: Vec<Target>,
        credentials: &Credentials,
        roots: &Roots,
    ) -> Self {
        let quic = QuicConfig::default();
        let hello = Hello {
            agent_id,
            epoch: epoch(),
            version: build_info::VERSION.to_owned(),
            kind,
            max_streams: quic.max_streams,
        };
        Self {
            servers,
            connector: QuicConnectorConfig {
                server_name: None,
                dial: DialConfig {
                    tls: quic_client(credentials, roots, &ALPN),
                    quic,
                    keep_alive: Duration::from_secs(2),
                },
                hello,
            },
            drain_timeout: Duration::from_secs(30),
            admin_listen: (Ipv4Addr::LOCALHOST, 8094).into(),
            tunnels: TunnelConfig::default(),
            table: TableConfig::default(),
        }
    }

    /// Checks the flags and reads the files of an agent of this kind.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(args: &AgentArgs, kind: AgentKind) -> Result<Self, ConfigError> {
        let quic = args.quic.config();
        let table = args
            .table
            .config(quic.stream_window)
            .map_err(ConfigError::Table)?;
        let (keep_alive, idle) = (args.quic_keep_alive, quic.idle_timeout);
        if keep_alive > idle / 2 {
            return Err(ConfigError::KeepAlive { keep_alive, idle });
        }
        let servers = servers(&args.servers)?;
        let roots = Roots::load(&pem("--ca-file", args.ca_file.as_ref())?)?;
        let credentials = Credentials::load(
            &pem("--cert-file", args.cert_file.as_ref())?,
            &pem("--cert-key", args.cert_key.as_ref())?,
        )?;
        let agent_id = args.agent_id.clone().map_or_else(host_name, Ok)?;
        let mut config = Self::new(kind, agent_id, servers, &credentials, &roots);
        config.connector.server_name.clone_from(&args.server_name);
        config.connector.hello.max_streams = quic.max_streams;
        config.connector.dial.quic = quic;
        config.connector.dial.keep_alive = keep_alive;
        config.drain_timeout = args.drain_timeout;
        config.admin_listen = args.admin_listen;
        config.tunnels = args.tunnels.config();
        config.table = table;
        Ok(config)
    }
}

// === impl TunnelConfig ===

impl Default for TunnelConfig {
    /// What the flags are without any.
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_secs(10),
            dial_timeout: Duration::from_secs(10),
            idle_timeout: None,
        }
    }
}

impl TunnelArgs {
    /// The configuration that these flags ask for.
    fn config(&self) -> TunnelConfig {
        TunnelConfig {
            head_timeout: self.head_timeout,
            dial_timeout: self.dial_timeout,
            idle_timeout: self.idle_timeout,
        }
    }
}

fn servers(servers: &[Target]) -> Result<Vec<Target>, ConfigError> {
    for (index, server) in servers.iter().enumerate() {
        if servers[..index].contains(server) {
            return Err(ConfigError::Twice(server.clone()));
        }
    }
    if servers.is_empty() {
        return Err(ConfigError::Missing("--server"));
    }
    Ok(servers.to_vec())
}

fn pem(flag: &'static str, path: Option<&PathBuf>) -> Result<PemPath, ConfigError> {
    let path = path.ok_or(ConfigError::Missing(flag))?.clone();
    Ok(PemPath { flag, path })
}

/// The name of the host, for an agent that is given none.
fn host_name() -> Result<AgentId, ConfigError> {
    let name = gethostname::gethostname().to_string_lossy().into_owned();
    name.parse()
        .map_err(|why| ConfigError::HostName { name, why })
}

/// The start of this process. A clock before 1970 makes every other instance the newer one.
fn epoch() -> Epoch {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Epoch(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
