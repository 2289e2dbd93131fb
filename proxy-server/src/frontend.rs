//! What a client's bytes mean: the seam between listeners and tunnels, and the table of frontends.

pub mod http_connect;
pub mod raw;

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use towline_protocol::target::Target;
use towline_tunnel::knobs::wait;

use crate::forward::Forward;
use crate::listener::ClientStream;
use crate::request::ClientInfo;

/// Flags of the frontends.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Clients")]
pub struct FrontendArgs {
    /// How long a client may take to send its request head; 408 then.
    #[arg(
        long,
        env = "TOWLINE_HEAD_TIMEOUT",
        value_name = "TIME",
        default_value = "10s"
    )]
    #[arg(value_parser = wait)]
    pub head_timeout: Duration,
}

/// What speaks on a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frontend {
    /// HTTP/1.1 CONNECT.
    Connect,
    /// Bytes as they come: to a passthrough agent, or to a fixed target through a connect agent.
    Raw(Option<Target>),
}

// === impl Frontend ===

impl Frontend {
    /// The word for it on the command line and in logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Raw(_) => "raw",
        }
    }

    /// Serves one connection to its end.
    pub async fn serve(
        &self,
        stream: ClientStream,
        client: ClientInfo,
        args: &FrontendArgs,
        forward: &Arc<Forward>,
    ) {
        match self {
            Self::Connect => http_connect::serve(stream, client, args, forward).await,
            Self::Raw(target) => raw::serve(stream, client, target.clone(), forward).await,
        }
    }
}
