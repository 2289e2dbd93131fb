//! What a tunnel is connected to: the target that its head asks for.

use std::time::Duration;

use tokio::net::TcpStream;
use towline_agent::connector::Connector;
use towline_agent::dialer::TargetDialer;
use towline_protocol::ask::Ask;
use towline_protocol::control::AgentKind;
use towline_protocol::refusal::{Reason, Refusal};

/// Dials the targets that servers ask for.
#[derive(Debug, Default)]
pub struct TargetConnector {
    dialer: TargetDialer,
}

// === impl TargetConnector ===

impl Connector for TargetConnector {
    type Stream = TcpStream;

    const KIND: AgentKind = AgentKind::Connect;

    async fn connect(&self, ask: &Ask, limit: Duration) -> Result<TcpStream, Refusal> {
        match ask {
            Ask::Connect(target) => self.dialer.dial(target, limit).await,
            Ask::Upstream => {
                let details = "this agent has no fixed upstream, the target needs a port";
                Err(Refusal::new(Reason::BadRequest, details))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use towline_agent::serve::TunnelHandler;
    use towline_agent::session_loop::StreamHandler;
    use towline_session::incoming::IncomingTunnel;

    use super::*;

    /// What a tunnel costs the agent while it is idle, beside its socket and its stream.
    const LONGEST: usize = 1536;

    const LIMIT: Duration = Duration::from_secs(10);

    type Handler = TunnelHandler<TargetConnector>;

    fn size_of_serving<'a, F>(_serve: impl FnOnce(&'a Handler, IncomingTunnel) -> F) -> usize
    where
        F: Future<Output = ()> + 'a,
    {
        size_of::<F>()
    }

    #[test]
    fn an_idle_tunnel_is_small() {
        let size = size_of_serving(|handler, tunnel| handler.serve(tunnel));
        assert!(size <= LONGEST, "{size}");
    }

    #[tokio::test]
    async fn the_target_of_the_head_is_dialed() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let target = listener.local_addr().unwrap();
        let ask = Ask::Connect(target.to_string().parse().unwrap());
        let socket = TargetConnector::default().connect(&ask, LIMIT).await;
        assert_eq!(socket.unwrap().peer_addr().unwrap(), target);
    }

    #[tokio::test]
    async fn an_upstream_is_refused() {
        let socket = TargetConnector::default()
            .connect(&Ask::Upstream, LIMIT)
            .await;
        let details = "this agent has no fixed upstream, the target needs a port";
        let expected = Refusal::new(Reason::BadRequest, details);
        assert_eq!(socket.unwrap_err(), expected);
    }
}
