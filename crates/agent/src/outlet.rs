//! The steps of a tunnel that both agents take: read the head, dial, answer, splice, record. An
//! agent's own module puts them in order.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use towline_protocol::code::StreamCode;
use towline_protocol::head::{Answer, Request};
use towline_protocol::refusal::{Reason, Refusal};
use towline_protocol::target::Target;
use towline_tunnel::splice::{Options, Summary, splice};
use towline_tunnel::stream::{ReadHeadError, TunnelStream};
use towline_tunnel::tunnels::{Direction, Tunnels};
use tracing::debug;

use crate::args::TunnelArgs;
use crate::dialer::Dialer;
use crate::metrics::Metrics;

/// How long a server may take to accept an answer, which fits any flow-control window: only a
/// server that stopped reading the session takes longer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Where tunnels leave the agent for their targets; clones share everything.
#[derive(Debug, Clone)]
pub struct Outlet(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: &'static str,
    args: TunnelArgs,
    dialer: Dialer,
    tunnels: Tunnels,
    metrics: Metrics,
}

/// Why a stream becomes no tunnel.
#[derive(Debug, Error)]
pub enum NoTunnel {
    /// The server is to be told why.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The server has left; there is nobody to tell.
    #[error("cancelled by the server")]
    Cancelled,
}

// === impl Outlet ===

impl Outlet {
    pub(crate) fn new(
        name: &'static str,
        args: TunnelArgs,
        tunnels: Tunnels,
        metrics: Metrics,
    ) -> Self {
        Self(Arc::new(Inner {
            name,
            args,
            dialer: Dialer::new(),
            tunnels,
            metrics,
        }))
    }

    /// The live tunnels.
    pub fn tunnels(&self) -> &Tunnels {
        &self.0.tunnels
    }

    /// Reads the request head, within the head timeout.
    ///
    /// # Errors
    /// A refusal when the head is late, malformed or cut short.
    pub async fn read_request(&self, stream: &mut TunnelStream) -> Result<Request, NoTunnel> {
        let Ok(read) = timeout(self.0.args.head_timeout, stream.read_request()).await else {
            return Err(Refusal::from(Reason::HeadTimeout).into());
        };
        read.map_err(|error| match error {
            ReadHeadError::Head(error) => Refusal::from(error).into(),
            ReadHeadError::Eof => Refusal::new(Reason::BadRequest, error.to_string()).into(),
            ReadHeadError::Stream(_) => NoTunnel::Cancelled,
        })
    }

    /// Connects to the target within the time that the head asks for, at most the dial timeout.
    /// A server that leaves meanwhile ends the attempt at once.
    ///
    /// # Errors
    /// A refusal with the reason, or that the server has left.
    pub async fn dial(
        &self,
        stream: &TunnelStream,
        target: &Target,
        asked: Option<Duration>,
    ) -> Result<TcpStream, NoTunnel> {
        let longest = self.0.args.dial_timeout;
        let limit = asked.map_or(longest, |asked| asked.min(longest));
        let began = Instant::now();
        // On the heap for as long as it takes: a tunnel lives longer than its dial.
        let dial = Box::pin(self.0.dialer.dial(target, limit));
        let dialed = tokio::select! {
            () = stream.cancelled() => return Err(NoTunnel::Cancelled),
            dialed = dial => dialed,
        };
        let outcome = if dialed.is_ok() {
            "connected"
        } else {
            "failed"
        };
        self.0.metrics.dialed(outcome, began.elapsed());
        Ok(dialed?)
    }

    /// Tells the server that payload follows.
    ///
    /// # Errors
    /// When the server has left, or takes nothing.
    pub async fn accept(&self, stream: &mut TunnelStream) -> Result<(), NoTunnel> {
        match timeout(ANSWER_LIMIT, stream.write_all(Answer::ACCEPTED)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(NoTunnel::Cancelled),
        }
    }

    /// Passes bytes both ways until both halves have ended or one is reset.
    pub async fn splice(&self, stream: TunnelStream, socket: TcpStream) -> Summary {
        let options = Options {
            from_socket: Direction::ToClient,
            idle_timeout: self.0.args.idle_timeout,
        };
        splice(
            socket,
            Bytes::new(),
            stream,
            self.0.tunnels.take_seat(),
            options,
        )
        .await
    }

    /// Notes a tunnel that has ended.
    pub fn record(&self, target: &Target, began: Instant, summary: &Summary) {
        self.0.metrics.tunnel_ended(summary.end.label());
        debug!(
            %target,
            to_target = summary.to_target,
            to_client = summary.to_client,
            duration = ?began.elapsed(),
            end = %summary.end,
            "tunnel ended"
        );
    }

    /// Ends a stream that becomes no tunnel with an HTTP answer that says why.
    pub async fn refuse(&self, mut stream: TunnelStream, why: NoTunnel) {
        if let Some(refusal) = self.note(why) {
            let response = refusal.to_response(self.0.name);
            match timeout(ANSWER_LIMIT, stream.write_all(&response)).await {
                Ok(Ok(())) => stream.finish(),
                Ok(Err(_)) | Err(_) => debug!("the server did not take the refusal"),
            }
        }
    }

    /// Ends a stream that becomes no tunnel where no answer is spoken: with a reset.
    pub fn reset(&self, stream: TunnelStream, why: NoTunnel) {
        let code = match self.note(why).map(|refusal| refusal.reason) {
            None => StreamCode::Cancelled,
            Some(Reason::Overload) => StreamCode::Overload,
            Some(Reason::Internal) => StreamCode::Internal,
            Some(_) => StreamCode::TargetReset,
        };
        stream.reset(code);
    }

    /// Counts and logs; returns what there is to answer.
    fn note(&self, why: NoTunnel) -> Option<Refusal> {
        match why {
            NoTunnel::Cancelled => {
                self.0.metrics.tunnel_ended("cancelled");
                debug!("cancelled by the server");
                None
            }
            NoTunnel::Refused(refusal) => {
                self.0.metrics.refused(refusal.reason);
                debug!(reason = refusal.reason.label(), %refusal, "refused");
                Some(refusal)
            }
        }
    }
}
