//! One tunnel from request to last byte, in phases: register, open a tunnel on a session, answer
//! the client, splice, record.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use clap::builder::BoolishValueParser;
use tokio::sync::Semaphore;
use towline_protocol::refusal::{Reason, Refusal};
use towline_quic::args::wait;
use towline_session::local_stream::LocalStream;
use towline_session::splice::{self, Options};
use towline_session::tunnel_table::{Direction, TunnelTable};
use tracing::debug;

use crate::access_log::{self, TunnelRecord};
use crate::metrics::ServerMetrics;
use crate::open::{Opened, Opener};
use crate::registry::Registry;
use crate::request::{ClientInfo, Request};

/// How a frontend tells its client the outcome, in its own protocol.
pub trait Responder: Send {
    /// What the tunnel's bytes are spliced with.
    type Stream: LocalStream;

    /// Resolves when the client has left before it got its answer. Cancel-safe.
    fn hung_up(&mut self) -> impl Future<Output = ()> + Send;

    /// Answers that the tunnel is open; returns the stream and the bytes that the client sent
    /// meanwhile.
    fn accept(self) -> impl Future<Output = io::Result<(Self::Stream, Bytes)>> + Send;

    /// The status that stands for a refusal in the access log.
    fn status(reason: Reason) -> u16;

    /// Answers why there is no tunnel.
    fn refuse(self, refusal: &Refusal) -> impl Future<Output = io::Result<()>> + Send;
}

/// Flags of every tunnel.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Tunnels")]
pub struct ForwardArgs {
    /// How long a client waits for its tunnel, name look-up, dial and retries included; 504 then.
    ///
    /// After half of it without an answer a second session is asked. Raise it for targets that take
    /// long to accept a connection.
    #[arg(
        long,
        env = "TOWLINE_DIAL_TIMEOUT",
        value_name = "TIME",
        default_value = "10s"
    )]
    #[arg(value_parser = wait)]
    pub dial_timeout: Duration,

    /// Silence in both directions after which a tunnel is reset; without it a tunnel may be silent
    /// forever, as a kubectl exec is.
    ///
    /// Set it where clients leave tunnels behind that they no longer use.
    #[arg(long, env = "TOWLINE_IDLE_TIMEOUT", value_name = "TIME")]
    #[arg(value_parser = wait)]
    pub idle_timeout: Option<Duration>,

    /// Do not tell agents the clients' addresses (the Forwarded header); set it where agents must not
    /// learn them.
    #[arg(long, env = "TOWLINE_NO_FORWARDED", value_parser = BoolishValueParser::new())]
    pub no_forwarded: bool,
}

/// The settings of every tunnel.
#[derive(Debug, Clone)]
pub struct ForwardConfig {
    /// How long a client waits for its tunnel.
    pub dial_timeout: Duration,
    /// Silence in both directions after which a tunnel is reset; nothing sets no limit.
    pub idle_timeout: Option<Duration>,
    /// Whether agents are told the clients' addresses.
    pub forwarded: bool,
}

/// Turns requests into tunnels; every frontend has it in its context.
#[derive(Debug)]
pub struct Forward {
    opener: Opener,
    tunnels: TunnelTable,
    limit: Arc<Semaphore>,
    idle_timeout: Option<Duration>,
    metrics: Arc<ServerMetrics>,
}

// === impl ForwardArgs ===

impl ForwardArgs {
    /// The configuration that these flags ask for.
    pub fn config(&self) -> ForwardConfig {
        ForwardConfig {
            dial_timeout: self.dial_timeout,
            idle_timeout: self.idle_timeout,
            forwarded: !self.no_forwarded,
        }
    }
}

// === impl ForwardConfig ===

impl Default for ForwardConfig {
    /// What the flags are without any.
    fn default() -> Self {
        Self {
            dial_timeout: Duration::from_secs(10),
            idle_timeout: None,
            forwarded: true,
        }
    }
}

// === impl Forward ===

impl Forward {
    /// Serves requests with the sessions of `registry`; tunnels are registered in `tunnels`, and
    /// each takes a permit of `limit`.
    pub fn new(
        config: &ForwardConfig,
        registry: Registry,
        tunnels: TunnelTable,
        limit: Arc<Semaphore>,
        metrics: Arc<ServerMetrics>,
    ) -> Arc<Self> {
        let opener = Opener::new(
            config.dial_timeout,
            config.forwarded,
            registry,
            Arc::clone(&metrics),
        );
        Arc::new(Self {
            opener,
            tunnels,
            limit,
            idle_timeout: config.idle_timeout,
            metrics,
        })
    }

    /// One tunnel from request to last byte. The future holds its arguments once: an `async fn`
    /// would hold them twice.
    pub fn handle<R: Responder>(
        &self,
        request: Request,
        mut responder: R,
    ) -> impl Future<Output = ()> + Send {
        // From here on the tunnel can be aborted, and is recorded however it ends.
        let mut record = TunnelRecord::begin(request, self.tunnels.register(), &self.metrics);
        async move {
            let Ok(_permit) = self.limit.try_acquire() else {
                let words = "this server has all its tunnels in use";
                let refusal = Refusal::new(Reason::Overload, words);
                return refuse(record, responder, refusal).await;
            };
            let opened = tokio::select! {
                opened = self.opener.open(record.request()) => opened,
                // Dropping the attempt resets its stream, and the agent drops its dial.
                () = responder.hung_up() => return record.client_left(),
                code = record.guard().aborted() => Err(access_log::aborted(code)),
            };
            let stream = match opened {
                Ok(Opened { entry, stream }) => {
                    record.opened(entry);
                    stream
                }
                Err(refusal) => return refuse(record, responder, refusal).await,
            };
            let (client, early) = match responder.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    debug!(%error, "the client left with the answer on its way");
                    return record.client_left();
                }
            };
            let options = Options {
                from_socket: Direction::ToTarget,
                idle_timeout: self.idle_timeout,
            };
            let reason = splice::splice(client, early, stream, record.guard_mut(), options).await;
            record.ended(reason);
        }
    }

    /// Refuses a client whose request could not even be read.
    pub async fn refuse_unread<R: Responder>(
        &self,
        client: &ClientInfo,
        responder: R,
        refusal: &Refusal,
    ) {
        self.metrics.refused(refusal.reason);
        access_log::unread(client, refusal, R::status(refusal.reason));
        answered(responder.refuse(refusal).await);
    }

    /// Counts a client that left before its request was complete.
    pub fn client_left_early(&self, client: &ClientInfo) {
        self.metrics.left_early();
        debug!(listener = %client.listener, client = %client.address, "left without a request");
    }
}

/// Records the refusal, then answers: the client may take its time with the answer. Boxed, so that
/// the future of a tunnel does not keep its size for life.
fn refuse<R: Responder>(
    record: TunnelRecord,
    responder: R,
    refusal: Refusal,
) -> Pin<Box<impl Future<Output = ()> + Send>> {
    record.refused(&refusal, R::status(refusal.reason));
    Box::pin(async move { answered(responder.refuse(&refusal).await) })
}

/// A client that is gone before it was refused has lost nothing.
fn answered(sent: io::Result<()>) {
    if let Err(error) = sent {
        debug!(%error, "the client did not wait for its refusal");
    }
}

#[cfg(test)]
mod tests;
