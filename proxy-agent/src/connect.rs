//! **One stream from its head to its last byte**: the target is what the head asks for.

use tokio::net::TcpStream;
use tokio::time::Instant;
use towline_agent::outlet::{NoTunnel, Outlet};
use towline_agent::session_loop::Serve;
use towline_protocol::refusal::{Reason, Refusal};
use towline_protocol::target::Target;
use towline_tunnel::session::Dialect;
use towline_tunnel::stream::TunnelStream;
use towline_tunnel::tunnels::Tunnels;

/// Serves streams by CONNECT. The legacy dialect differs in nothing: there the head comes from the
/// client itself, and the answer goes to it.
#[derive(Debug, Clone)]
pub struct Connect {
    outlet: Outlet,
}

// === impl Connect ===

impl Connect {
    /// Serves through this outlet.
    pub fn new(outlet: Outlet) -> Self {
        Self { outlet }
    }

    /// Up to the answer: head, target, dial, yes.
    async fn open(&self, stream: &mut TunnelStream) -> Result<(Target, TcpStream), NoTunnel> {
        let request = self.outlet.read_request(stream).await?;
        let target = dialable(request.target)?;
        let socket = self.outlet.dial(stream, &target, request.deadline).await?;
        self.outlet.accept(stream).await?;
        Ok((target, socket))
    }
}

impl Serve for Connect {
    async fn serve(&self, mut stream: TunnelStream, _dialect: Dialect) {
        let began = Instant::now();
        match self.open(&mut stream).await {
            Ok((target, socket)) => {
                let summary = self.outlet.splice(stream, socket).await;
                self.outlet.record(&target, began, &summary);
            }
            Err(why) => self.outlet.refuse(stream, why).await,
        }
    }

    fn tunnels(&self) -> &Tunnels {
        self.outlet.tunnels()
    }
}

/// Port 0 asks for a fixed upstream, which this kind of agent does not have.
fn dialable(target: Target) -> Result<Target, Refusal> {
    if target.is_upstream() {
        let details = "this agent has no fixed upstream, the target needs a port";
        return Err(Refusal::new(Reason::BadRequest, details));
    }
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a tunnel costs the agent while it is idle, beside its socket and its stream.
    const LONGEST: usize = 1536;

    fn size_of_serving<'a, F>(_serve: impl FnOnce(&'a Connect, TunnelStream, Dialect) -> F) -> usize
    where
        F: Future<Output = ()> + 'a,
    {
        size_of::<F>()
    }

    #[test]
    fn an_idle_tunnel_is_small() {
        let size = size_of_serving(|connect, stream, dialect| connect.serve(stream, dialect));
        assert!(size <= LONGEST, "{size}");
    }
}
