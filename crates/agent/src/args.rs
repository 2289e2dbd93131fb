//! The flags that both agents have, and what they become once they are checked.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::session_loop::Keep;
use clap::Args;
use clap::builder::BoolishValueParser;
use thiserror::Error;
use towline_protocol::control::{AgentKind, Hello};
use towline_protocol::target::Target;
use towline_service::build_info;
use towline_service::telemetry::TelemetryArgs;
use towline_tls::load::{Credentials, LoadError, PemPath, Roots};
use towline_tls::quic_client;
use towline_tunnel::endpoint::{DialConfig, SocketArgs};
use towline_tunnel::knobs::{SessionArgs, wait};
use towline_tunnel::session::ALPN;

/// Longest agent id in bytes: as long as a host name may be.
pub const MAX_AGENT_ID: usize = 253;

/// Flags of every agent. What is required is an `Option` here, because `healthcheck` needs none
/// of it; [`AgentConfig`] has no such doubt.
#[derive(Debug, Clone, Args)]
pub struct AgentArgs {
    /// A server to keep a session to; may be given several times.
    ///
    /// Its name is resolved anew for every dial, and all its addresses are tried.
    #[arg(
        long = "server",
        env = "TOWLINE_SERVER",
        value_name = "HOST:PORT",
        required = true
    )]
    #[arg(value_delimiter = ' ', value_parser = destination)]
    servers: Vec<Target>,

    /// Certificates (PEM) of the authorities that the servers' certificates come from.
    #[arg(long, env = "TOWLINE_CA_FILE", value_name = "FILE", required = true)]
    ca_file: Option<PathBuf>,

    /// Certificate chain (PEM) that the agent shows, its own certificate first.
    #[arg(long, env = "TOWLINE_CERT_FILE", value_name = "FILE", required = true)]
    cert_file: Option<PathBuf>,

    /// Private key (PEM) of the certificate.
    #[arg(long, env = "TOWLINE_CERT_KEY", value_name = "FILE", required = true)]
    cert_key: Option<PathBuf>,

    /// Name that every server's certificate must carry, instead of the host of --server.
    #[arg(long, env = "TOWLINE_SERVER_NAME", value_name = "NAME", value_parser = server_name)]
    server_name: Option<String>,

    /// Name of this agent, the same over restarts; the host's name by default.
    ///
    /// A later start with the same name takes over from an earlier one.
    #[arg(long, env = "TOWLINE_AGENT_ID", value_name = "NAME", value_parser = agent_id)]
    agent_id: Option<String>,

    /// How long live tunnels may go on after a shutdown began.
    #[arg(
        long,
        env = "TOWLINE_DRAIN_TIMEOUT",
        value_name = "TIME",
        default_value = "30s"
    )]
    #[arg(value_parser = wait)]
    drain_timeout: Duration,

    /// Where /livez, /readyz and /metrics are served.
    #[arg(long, env = "TOWLINE_ADMIN_LISTEN", value_name = "ADDR", global = true)]
    #[arg(default_value = "127.0.0.1:8094")]
    pub admin_listen: SocketAddr,

    /// How often to ping a server: at most half of the idle timeout of either end.
    #[arg(
        long,
        env = "TOWLINE_QUIC_KEEP_ALIVE",
        value_name = "TIME",
        default_value = "2s"
    )]
    #[arg(value_parser = wait)]
    quic_keep_alive: Duration,

    #[command(flatten)]
    session: SessionArgs,

    #[command(flatten)]
    socket: SocketArgs,

    #[command(flatten)]
    tunnels: TunnelArgs,

    #[command(flatten)]
    pub(crate) telemetry: TelemetryArgs,

    /// Check flags and files, then exit: 0 when the agent could start.
    #[arg(long, env = "TOWLINE_CHECK_CONFIG", value_parser = BoolishValueParser::new())]
    pub(crate) check_config: bool,
}

/// Flags of every tunnel that an agent serves.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Tunnels")]
pub struct TunnelArgs {
    /// How long the head of a tunnel may take to arrive.
    #[arg(
        long,
        env = "TOWLINE_HEAD_TIMEOUT",
        value_name = "TIME",
        default_value = "10s"
    )]
    #[arg(value_parser = wait)]
    pub head_timeout: Duration,

    /// How long name look-up and connecting may take together; a head may ask for less.
    #[arg(
        long,
        env = "TOWLINE_DIAL_TIMEOUT",
        value_name = "TIME",
        default_value = "10s"
    )]
    #[arg(value_parser = wait)]
    pub dial_timeout: Duration,

    /// Silence in both directions after which a tunnel is reset; by default it may last for ever,
    /// as that of `kubectl exec` does.
    #[arg(long, env = "TOWLINE_IDLE_TIMEOUT", value_name = "TIME", value_parser = wait)]
    pub idle_timeout: Option<Duration>,
}

/// What an agent needs to start: every file is read, every value is in its bounds.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// The sessions to keep.
    pub keep: Keep,
    /// Where the admin pages are served.
    pub admin_listen: SocketAddr,
    /// Bounds of each tunnel.
    pub tunnels: TunnelArgs,
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
        why: String,
    },
    /// Flags of the sessions that do not go together.
    #[error("{0}")]
    Session(String),
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
    /// Checks the flags and reads the files of an agent of this kind.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(args: &AgentArgs, kind: AgentKind) -> Result<Self, ConfigError> {
        let AgentArgs {
            servers, session, ..
        } = args;
        let (keep_alive, idle) = (args.quic_keep_alive, session.quic_idle_timeout);
        session.check().map_err(ConfigError::Session)?;
        if keep_alive > idle / 2 {
            return Err(ConfigError::KeepAlive { keep_alive, idle });
        }
        for (index, server) in servers.iter().enumerate() {
            if servers[..index].contains(server) {
                return Err(ConfigError::Twice(server.clone()));
            }
        }
        if servers.is_empty() {
            return Err(ConfigError::Missing("--server"));
        }
        let roots = Roots::load(&pem("--ca-file", args.ca_file.as_ref())?)?;
        let credentials = Credentials::load(
            &pem("--cert-file", args.cert_file.as_ref())?,
            &pem("--cert-key", args.cert_key.as_ref())?,
        )?;
        let keep = Keep {
            servers: servers.clone(),
            server_name: args.server_name.clone(),
            dial: DialConfig {
                tls: quic_client(&credentials, &roots, &ALPN),
                session: session.clone(),
                socket: args.socket.clone(),
                keep_alive,
            },
            hello: hello(args, kind)?,
            drain: args.drain_timeout,
        };
        Ok(Self {
            keep,
            admin_listen: args.admin_listen,
            tunnels: args.tunnels.clone(),
        })
    }
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

fn pem(flag: &'static str, path: Option<&PathBuf>) -> Result<PemPath, ConfigError> {
    let path = path.ok_or(ConfigError::Missing(flag))?.clone();
    Ok(PemPath { flag, path })
}

fn hello(args: &AgentArgs, kind: AgentKind) -> Result<Hello, ConfigError> {
    let agent_id = match &args.agent_id {
        Some(name) => name.clone(),
        None => {
            let name = gethostname::gethostname().to_string_lossy().into_owned();
            agent_id(&name).map_err(|why| ConfigError::HostName { name, why })?
        }
    };
    // A clock before 1970 makes every other instance the newer one, which is as good as any.
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Ok(Hello {
        agent_id,
        epoch: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX),
        version: build_info::VERSION.to_owned(),
        kind,
        max_streams: args.session.max_tunnels_per_session,
    })
}

fn agent_id(text: &str) -> Result<String, String> {
    let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
    if printable && (1..=MAX_AGENT_ID).contains(&text.len()) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "a name is 1 to {MAX_AGENT_ID} printable ASCII characters without spaces"
        ))
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

#[cfg(test)]
mod tests;
