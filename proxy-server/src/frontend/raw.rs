//! Raw bytes: every connection goes as it is to a passthrough agent's upstream, or to one fixed
//! target. There is no answer to send; a refusal is a reset.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;
use towline_protocol::ask::Ask;
use towline_protocol::refusal::{Reason, Refusal};
use towline_protocol::target::{Target, TargetError};
use towline_session::local_stream::LocalStream;
use towline_tls::HTTP_1_1;

use crate::forward::Responder;
use crate::frontend::{
    Connection, Frontend, FrontendDesc, ServeContext, Setting, SettingError, http_answer,
};
use crate::listener::ClientStream;
use crate::request::Request;

/// How often the connection of a client that waits for its tunnel is checked for a failure.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The key of the fixed target.
const TARGET: &str = "target";

/// The frontend's entry in the table.
pub const DESC: FrontendDesc = FrontendDesc {
    name: "raw",
    keys: &[TARGET],
    alpn: &[HTTP_1_1],
    build,
};

/// Passes connections to one fixed place.
#[derive(Debug)]
struct Raw {
    ask: Ask,
}

struct RawResponder(ClientStream);

fn build(settings: &[Setting]) -> Result<Arc<dyn Frontend>, SettingError> {
    let target = settings.iter().find(|setting| setting.key == TARGET);
    let ask = match target {
        None => Ask::Upstream,
        Some(setting) => {
            let refused = |error: TargetError| SettingError {
                key: TARGET,
                reason: error.to_string(),
            };
            let target: Target = setting.value.parse().map_err(refused)?;
            Ask::Connect(target)
        }
    };
    Ok(Arc::new(Raw { ask }))
}

// === impl Raw ===

impl Frontend for Raw {
    fn name(&self) -> &'static str {
        DESC.name
    }

    fn serve<'a>(
        &'a self,
        connection: Connection,
        context: &'a ServeContext,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        let request = Request {
            ask: self.ask.clone(),
            client: connection.client,
            traceparent: None,
        };
        let responder = RawResponder(connection.stream);
        Box::pin(async move { context.forward.handle(request, responder).await })
    }
}

// === impl RawResponder ===

impl Responder for RawResponder {
    type Stream = ClientStream;

    /// Its bytes are payload already, and an end of file among them ends one half only: only a
    /// connection that failed has no client at its end.
    async fn hung_up(&mut self) {
        while self.0.failure().is_none() {
            sleep(POLL_INTERVAL).await;
        }
    }

    async fn accept(self) -> io::Result<(ClientStream, Bytes)> {
        Ok((self.0, Bytes::new()))
    }

    fn status(reason: Reason) -> u16 {
        http_answer::status(reason)
    }

    async fn refuse(self, _refusal: &Refusal) -> io::Result<()> {
        self.0.abort_on_close();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
