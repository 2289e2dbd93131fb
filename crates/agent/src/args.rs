//! The flags that both agents have; [`AgentConfig`](crate::config::AgentConfig) checks them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;
use towline_protocol::ids::AgentId;
use towline_protocol::target::Target;
use towline_quic::args::{QuicArgs, wait};
use towline_service::telemetry::TelemetryArgs;
use towline_session::args::TableArgs;

/// Flags of every agent. What is required is an `Option` here, because `healthcheck` needs none of
/// it.
#[derive(Debug, Clone, Args)]
pub struct AgentArgs {
    /// A server to keep a session to; may be given several times.
    ///
    /// Its name is resolved again for each connection, and all its addresses are tried.
    #[arg(
        long = "server",
        env = "TOWLINE_SERVER",
        value_name = "HOST:PORT",
        required = true
    )]
    #[arg(value_delimiter = ' ', value_parser = destination)]
    pub(crate) servers: Vec<Target>,

    /// Certificates (PEM) of the authorities that issue the servers' certificates.
    #[arg(long, env = "TOWLINE_CA_FILE", value_name = "FILE", required = true)]
    pub(crate) ca_file: Option<PathBuf>,

    /// Certificate chain (PEM) that the agent presents, its own certificate first.
    #[arg(long, env = "TOWLINE_CERT_FILE", value_name = "FILE", required = true)]
    pub(crate) cert_file: Option<PathBuf>,

    /// Private key (PEM) of the certificate in --cert-file.
    #[arg(long, env = "TOWLINE_CERT_KEY", value_name = "FILE", required = true)]
    pub(crate) cert_key: Option<PathBuf>,

    /// Name that every server's certificate must carry instead of the host of --server.
    ///
    /// Set it where --server is an address or a name that no certificate carries.
    #[arg(long, env = "TOWLINE_SERVER_NAME", value_name = "NAME", value_parser = server_name)]
    pub(crate) server_name: Option<String>,

    /// Name of this agent, the same over restarts; the name of the host by default.
    ///
    /// A later start with the same name takes over from an earlier one: set it where several agents
    /// run on one host, or where host names change.
    #[arg(long, env = "TOWLINE_AGENT_ID", value_name = "NAME")]
    pub(crate) agent_id: Option<AgentId>,

    /// How long live tunnels may go on after a shutdown began; then they are reset.
    #[arg(
        long,
        env = "TOWLINE_DRAIN_TIMEOUT",
        value_name = "TIME",
        default_value = "30s"
    )]
    #[arg(value_parser = wait)]
    pub(crate) drain_timeout: Duration,

    /// Address on which /livez, /readyz and /metrics are served.
    #[arg(long, env = "TOWLINE_ADMIN_LISTEN", value_name = "ADDR", global = true)]
    #[arg(default_value = "127.0.0.1:8094")]
    pub admin_listen: SocketAddr,

    /// How often to ping a server: at most half of the idle timeout of either end.
    ///
    /// Lower it where a NAT on the path forgets quiet UDP flows sooner.
    #[arg(
        long,
        env = "TOWLINE_QUIC_KEEP_ALIVE",
        value_name = "TIME",
        default_value = "2s"
    )]
    #[arg(value_parser = wait)]
    pub(crate) quic_keep_alive: Duration,

    #[command(flatten)]
    pub(crate) quic: QuicArgs,

    #[command(flatten)]
    pub(crate) table: TableArgs,

    #[command(flatten)]
    pub(crate) tunnels: TunnelArgs,

    #[command(flatten)]
    pub(crate) telemetry: TelemetryArgs,

    /// Check flags and files, then exit: 0 when the agent could start.
    #[arg(long, env = "TOWLINE_CHECK_CONFIG", value_parser = BoolishValueParser::new())]
    pub(crate) check_config: bool,
}

/// Flags of the tunnels that an agent serves.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Tunnels")]
pub struct TunnelArgs {
    /// How long the request head of a tunnel may take to arrive.
    #[arg(
        long,
        env = "TOWLINE_HEAD_TIMEOUT",
        value_name = "TIME",
        default_value = "10s"
    )]
    #[arg(value_parser = wait)]
    pub head_timeout: Duration,

    /// How long the name look-up and the connection to a target may take together; a request may ask
    /// for less.
    #[arg(
        long,
        env = "TOWLINE_DIAL_TIMEOUT",
        value_name = "TIME",
        default_value = "10s"
    )]
    #[arg(value_parser = wait)]
    pub dial_timeout: Duration,

    /// Silence in both directions after which a tunnel is reset; without it there is no limit.
    ///
    /// Set it where peers vanish without closing; tunnels of `kubectl exec` may be silent for hours.
    #[arg(long, env = "TOWLINE_IDLE_TIMEOUT", value_name = "TIME", value_parser = wait)]
    pub idle_timeout: Option<Duration>,
}

/// Reads a `host:port` to connect to, for clap.
///
/// # Errors
/// A sentence when the text is no authority or its port is 0.
pub fn destination(text: &str) -> Result<Target, String> {
    let target: Target = text.parse().map_err(|error| format!("{error}"))?;
    match target.port {
        0 => Err("port must not be 0".to_owned()),
        _ => Ok(target),
    }
}

/// A host as certificates carry it: the host of a target, alone.
fn server_name(text: &str) -> Result<String, String> {
    let bracketed = if text.contains(':') {
        format!("[{text}]:1")
    } else {
        format!("{text}:1")
    };
    match bracketed.parse::<Target>() {
        Ok(_) => Ok(text.trim_end_matches('.').to_owned()),
        Err(_) => Err("neither a host name nor an IP address".to_owned()),
    }
}
