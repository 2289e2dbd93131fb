//! Raw bytes: every connection goes as it is to a passthrough agent's upstream, or to one fixed
//! target. There is no answer to send; a refusal is a reset.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;
use towline_protocol::control::AgentKind;
use towline_protocol::refusal::Refusal;
use towline_protocol::target::Target;
use towline_tunnel::splice::Socket;

use crate::forward::{Forward, Responder};
use crate::listener::ClientStream;
use crate::request::{ClientInfo, Request};

/// How often a client that waits for its tunnel is looked at.
const LOOK: Duration = Duration::from_millis(500);

struct RawResponder(ClientStream);

/// Serves one connection to its end.
pub(super) async fn serve(
    stream: ClientStream,
    client: ClientInfo,
    target: Option<Target>,
    forward: &Arc<Forward>,
) {
    let (kind, target) = match target {
        Some(target) => (AgentKind::Connect, target),
        None => (AgentKind::Passthrough, Target::upstream()),
    };
    let request = Request {
        target,
        kind,
        client,
        traceparent: None,
    };
    forward.handle(request, RawResponder(stream)).await;
}

// === impl RawResponder ===

impl Responder for RawResponder {
    type Stream = ClientStream;

    /// Its bytes are payload already, and an end of file among them ends one half only: just a
    /// connection that failed has nobody at its end.
    async fn hung_up(&mut self) {
        while self.0.failure().is_none() {
            sleep(LOOK).await;
        }
    }

    async fn accept(self) -> io::Result<(ClientStream, Bytes)> {
        Ok((self.0, Bytes::new()))
    }

    async fn refuse(self, _why: &Refusal) -> io::Result<()> {
        self.0.abort_on_close();
        Ok(())
    }
}
