//! What a client's bytes mean: the seam between listeners and tunnels, and the table of frontends.
//!
//! A frontend decodes what its client asks for and hands requests to
//! [`Forward`]; it knows no session and no route. A further one is a file here and a line in
//! [`FRONTENDS`].

pub mod connect;
mod http_answer;
pub mod raw;

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use thiserror::Error;
use towline_quic::args::wait;
use towline_service::shutdown::DrainWatch;
use towline_service::tasks::Tasks;

use crate::forward::Forward;
use crate::listener::ClientStream;
use crate::listener::tls::TlsInfo;
use crate::request::ClientInfo;

/// Every frontend, by its name in `--listen`.
pub const FRONTENDS: &[FrontendDesc] = &[connect::DESC, raw::DESC];

/// Flags of the frontends.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Clients")]
pub struct FrontendArgs {
    /// How long a client may take to send its request head; 408 then.
    ///
    /// Raise it for clients on slow links.
    #[arg(
        long,
        env = "TOWLINE_HEAD_TIMEOUT",
        value_name = "TIME",
        default_value = "10s"
    )]
    #[arg(value_parser = wait)]
    pub head_timeout: Duration,
}

/// What speaks on a listener. One connection may carry many tunnels.
pub trait Frontend: Debug + Send + Sync {
    /// Its name on the command line and in logs.
    fn name(&self) -> &'static str;

    /// Serves one connection to its end.
    fn serve<'a>(
        &'a self,
        connection: Connection,
        context: &'a ServeContext,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
}

/// A frontend in the table: how it is made from what stands in `--listen`.
#[derive(Debug)]
pub struct FrontendDesc {
    /// Its name in front of the URL.
    pub name: &'static str,
    /// The keys that may stand behind the URL.
    pub keys: &'static [&'static str],
    /// Its application protocols over TLS (ALPN, RFC 7301), the preferred one first.
    pub alpn: &'static [&'static [u8]],
    /// Makes it; the settings have only known keys, each once.
    pub build: BuildFrontend,
}

/// Makes a frontend from what stands behind the URL of its listener.
pub type BuildFrontend = fn(&[Setting]) -> Result<Arc<dyn Frontend>, SettingError>;

/// A `KEY=VALUE` behind the URL of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// One of [`FrontendDesc::keys`].
    pub key: String,
    /// What stands behind it.
    pub value: String,
}

/// A value that a frontend does not accept.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{key}: {reason}")]
pub struct SettingError {
    /// The key.
    pub key: &'static str,
    /// What is wrong with its value.
    pub reason: String,
}

/// A client's connection, ready to be read.
#[derive(Debug)]
pub struct Connection {
    /// Its bytes.
    pub stream: ClientStream,
    /// The client and the listener it used.
    pub client: ClientInfo,
    /// What the TLS handshake told; nothing without TLS.
    pub tls: Option<TlsInfo>,
}

/// What a frontend gets with each connection.
#[derive(Debug)]
pub struct ServeContext {
    /// Turns requests into tunnels, as many at the same time as the server allows.
    pub forward: Arc<Forward>,
    /// Owns the connections' tasks, and those that a connection spawns besides its own.
    pub tasks: Tasks,
    /// Tells when the server drains: a connection that carries many tunnels takes no more then.
    pub drain: DrainWatch,
    /// How long a request head may take to arrive.
    pub head_timeout: Duration,
}
