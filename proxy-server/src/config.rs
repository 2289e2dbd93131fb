//! What the server is told to do: the flags of every module, and the checked configuration that
//! they become in one [`load`].

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;
use thiserror::Error;
use towline_quic::args::{QuicArgs, wait};
use towline_service::telemetry::TelemetryArgs;
use towline_session::args::{TableArgs, TableConfig};
use towline_tls::load::LoadError;

use crate::admit::quic::{QuicListenArgs, QuicListenConfig, QuicTlsError};
use crate::admit::{AdmitArgs, AdmitConfig};
use crate::forward::{ForwardArgs, ForwardConfig};
use crate::frontend::FrontendArgs;
use crate::listen::{ListenArgs, ListenConfig, ListenError};
use crate::listener::tls::{TlsArgs, TlsConfig};

/// Where the admin pages are when no flag says so; konnectivity's server uses the same port.
pub const ADMIN_DEFAULT: &str = "127.0.0.1:8095";

/// Every flag of serving.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The clients' listeners.
    #[command(flatten)]
    pub listen: ListenArgs,
    /// TLS for clients.
    #[command(flatten)]
    pub tls: TlsArgs,
    /// The frontends' limits.
    #[command(flatten)]
    pub frontend: FrontendArgs,
    /// The limits of every tunnel.
    #[command(flatten)]
    pub forward: ForwardArgs,
    /// The agents' listener.
    #[command(flatten)]
    pub listen_quic: QuicListenArgs,
    /// Which agents are admitted.
    #[command(flatten)]
    pub admit: AdmitArgs,
    /// QUIC and UDP.
    #[command(flatten)]
    pub quic: QuicArgs,
    /// All tunnels together.
    #[command(flatten)]
    pub table: TableArgs,
    /// The daemon.
    #[command(flatten)]
    pub daemon: DaemonArgs,
    /// The log.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// Flags of the daemon.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Daemon")]
pub struct DaemonArgs {
    /// TCP address of /livez, /readyz and /metrics, which authenticate no client.
    ///
    /// Set it to an address of the pod or the management network for probes and scrapers.
    #[arg(long, env = "TOWLINE_ADMIN_LISTEN", value_name = "IP:PORT", default_value = ADMIN_DEFAULT)]
    pub admin_listen: SocketAddr,

    /// How long live tunnels may go on after the shutdown began; they are reset then.
    ///
    /// Keep it below the time after which the platform kills the process.
    #[arg(
        long,
        env = "TOWLINE_DRAIN_TIMEOUT",
        value_name = "TIME",
        default_value = "30s"
    )]
    #[arg(value_parser = wait)]
    pub drain_timeout: Duration,

    /// Check flags and files, say what is wrong, and exit without listening anywhere; exit status 0
    /// or 2.
    #[arg(long, env = "TOWLINE_CHECK_CONFIG", value_parser = BoolishValueParser::new())]
    pub check_config: bool,
}

/// Everything that a server needs to start: files are read, values are within their bounds.
#[derive(Debug)]
pub struct ServerConfig {
    /// What belongs to the shard.
    pub shard: ShardConfig,
    /// Client connections, and tunnels, at the same time.
    pub max_connections: usize,
    /// Where the admin pages are.
    pub admin_listen: SocketAddr,
    /// How long live tunnels may go on after the shutdown began.
    pub drain_timeout: Duration,
}

/// The part of the configuration that a shard needs.
#[derive(Debug)]
pub struct ShardConfig {
    /// The clients' listeners.
    pub listeners: Vec<ListenConfig>,
    /// How long a client's request head may take to arrive.
    pub head_timeout: Duration,
    /// Every tunnel.
    pub forward: ForwardConfig,
    /// The agents' listener.
    pub listen_quic: QuicListenConfig,
    /// Which agents are admitted.
    pub admit: AdmitConfig,
    /// All tunnels together.
    pub table: TableConfig,
}

/// Why the flags make no configuration. Each names its flag.
#[derive(Debug, Error)]
pub enum ServerConfigError {
    /// Flags of the tunnels that do not go together.
    #[error("{0}")]
    Table(String),
    /// The certificates that clients see.
    #[error(transparent)]
    Tls(#[from] LoadError),
    /// The listeners do not go together.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The certificates that agents see.
    #[error(transparent)]
    Quic(#[from] QuicTlsError),
}

/// Checks the flags and reads the files; opens no socket.
///
/// # Errors
/// The first thing that would keep the server from starting.
pub fn load(args: &ServeArgs) -> Result<ServerConfig, ServerConfigError> {
    let quic = args.quic.config();
    let table = args
        .table
        .config(quic.stream_window)
        .map_err(ServerConfigError::Table)?;
    let tls = TlsConfig::load(&args.tls)?;
    let listeners = args.listen.config(tls.as_ref())?;
    let drain_timeout = args.daemon.drain_timeout;
    Ok(ServerConfig {
        shard: ShardConfig {
            listeners,
            head_timeout: args.frontend.head_timeout,
            forward: args.forward.config(),
            admit: args.admit.config(quic.handshake_timeout, drain_timeout),
            listen_quic: args.listen_quic.config(quic)?,
            table,
        },
        max_connections: args.listen.max_connections(),
        admin_listen: args.daemon.admin_listen,
        drain_timeout,
    })
}
