//! What differs between agents: to what a tunnel is connected.

use std::time::Duration;

use towline_protocol::ask::Ask;
use towline_protocol::control::AgentKind;
use towline_protocol::refusal::Refusal;
use towline_session::local_stream::LocalStream;

/// Connects tunnels to their local ends. It sees neither streams nor dialects of the protocol.
pub trait Connector: Send + Sync + 'static {
    /// The local end of a tunnel.
    type Stream: LocalStream;

    /// The kind that the agent announces to its servers.
    const KIND: AgentKind;

    /// Connects to what is asked for, within `limit`. The future is dropped when the tunnel is no
    /// longer wanted, which must end the attempt at once.
    ///
    /// # Errors
    /// Why there is no connection; the text is for the user of the tunnel.
    fn connect(
        &self,
        ask: &Ask,
        limit: Duration,
    ) -> impl Future<Output = Result<Self::Stream, Refusal>> + Send;
}
