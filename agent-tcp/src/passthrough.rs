//! **One stream from its first to its last byte**: all lead to one fixed upstream.

use clap::Args;
use tokio::net::TcpStream;
use tokio::time::Instant;
use towline_agent::args::{ConfigError, destination};
use towline_agent::outlet::{NoTunnel, Outlet};
use towline_agent::session_loop::Serve;
use towline_protocol::target::Target;
use towline_tunnel::session::Dialect;
use towline_tunnel::stream::TunnelStream;
use towline_tunnel::tunnels::Tunnels;

/// The flag that names the upstream.
#[derive(Debug, Clone, Args)]
pub struct UpstreamArgs {
    /// Where every stream is connected to.
    #[arg(
        long,
        env = "TOWLINE_UPSTREAM",
        value_name = "HOST:PORT",
        required = true
    )]
    #[arg(value_parser = destination)]
    upstream: Option<Target>,
}

/// Serves streams by connecting each to the upstream.
#[derive(Debug, Clone)]
pub struct Passthrough {
    upstream: Target,
    outlet: Outlet,
}

// === impl UpstreamArgs ===

impl UpstreamArgs {
    /// The upstream.
    ///
    /// # Errors
    /// When there is none.
    pub fn target(&self) -> Result<Target, ConfigError> {
        self.upstream
            .clone()
            .ok_or(ConfigError::Missing("--upstream"))
    }
}

// === impl Passthrough ===

impl Passthrough {
    /// Serves through this outlet.
    pub fn new(upstream: Target, outlet: Outlet) -> Self {
        Self { upstream, outlet }
    }

    /// Up to the answer: head, whose target is ignored, dial, yes.
    async fn open(&self, stream: &mut TunnelStream) -> Result<TcpStream, NoTunnel> {
        let request = self.outlet.read_request(stream).await?;
        let socket = self
            .outlet
            .dial(stream, &self.upstream, request.deadline)
            .await?;
        self.outlet.accept(stream).await?;
        Ok(socket)
    }

    /// The legacy dialect has neither head nor answer: what arrives meanwhile is payload, and
    /// waits within the stream's window.
    async fn open_raw(&self, stream: &TunnelStream) -> Result<TcpStream, NoTunnel> {
        self.outlet.dial(stream, &self.upstream, None).await
    }
}

impl Serve for Passthrough {
    async fn serve(&self, mut stream: TunnelStream, dialect: Dialect) {
        let began = Instant::now();
        let opened = match dialect {
            Dialect::Towline => self.open(&mut stream).await,
            Dialect::Legacy => self.open_raw(&stream).await,
        };
        match (opened, dialect) {
            (Ok(socket), _) => {
                let summary = self.outlet.splice(stream, socket).await;
                self.outlet.record(&self.upstream, began, &summary);
            }
            (Err(why), Dialect::Towline) => self.outlet.refuse(stream, why).await,
            (Err(why), Dialect::Legacy) => self.outlet.reset(stream, why),
        }
    }

    fn tunnels(&self) -> &Tunnels {
        self.outlet.tunnels()
    }
}
