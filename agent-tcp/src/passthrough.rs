//! What a tunnel is connected to: one fixed upstream.

use std::time::Duration;

use clap::Args;
use tokio::net::TcpStream;
use towline_agent::args::destination;
use towline_agent::config::ConfigError;
use towline_agent::connector::Connector;
use towline_agent::dialer::TargetDialer;
use towline_protocol::ask::Ask;
use towline_protocol::control::AgentKind;
use towline_protocol::refusal::Refusal;
use towline_protocol::target::Target;

/// The flag that names the upstream.
#[derive(Debug, Clone, Args)]
pub struct UpstreamArgs {
    /// Target that every tunnel is connected to.
    #[arg(
        long,
        env = "TOWLINE_UPSTREAM",
        value_name = "HOST:PORT",
        required = true
    )]
    #[arg(value_parser = destination)]
    upstream: Option<Target>,
}

/// Dials the upstream, whatever is asked for.
#[derive(Debug)]
pub struct UpstreamConnector {
    upstream: Target,
    dialer: TargetDialer,
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

// === impl UpstreamConnector ===

impl UpstreamConnector {
    /// A connector to this upstream.
    pub fn new(upstream: Target) -> Self {
        Self {
            upstream,
            dialer: TargetDialer::new(),
        }
    }
}

impl Connector for UpstreamConnector {
    type Stream = TcpStream;

    const KIND: AgentKind = AgentKind::Passthrough;

    async fn connect(&self, _ask: &Ask, limit: Duration) -> Result<TcpStream, Refusal> {
        self.dialer.dial(&self.upstream, limit).await
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[tokio::test]
    async fn the_upstream_is_dialed_whatever_is_asked_for() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let upstream = listener.local_addr().unwrap();
        let connector = UpstreamConnector::new(upstream.to_string().parse().unwrap());
        let other = Ask::Connect("nowhere.invalid:1".parse().unwrap());
        for ask in [Ask::Upstream, other] {
            let socket = connector.connect(&ask, Duration::from_secs(10)).await;
            assert_eq!(socket.unwrap().peer_addr().unwrap(), upstream, "{ask}");
        }
    }
}
