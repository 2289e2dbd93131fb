//! What is recorded of a tunnel: its metrics, and one line in the access log.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::time::Instant;
use towline_protocol::code::StreamCode;
use towline_protocol::refusal::{Reason, Refusal};
use towline_service::telemetry::ACCESS;
use towline_session::splice::CloseReason;
use towline_session::tunnel_table::{TunnelGuard, TunnelStats};
use tracing::info;

use crate::metrics::ServerMetrics;
use crate::registry::SessionEntry;
use crate::request::{ClientInfo, Request};

/// The status of a client that left before its answer, as access logs write it.
const CLIENT_LEFT: u16 = 499;

/// One tunnel from before its first wait to its end. Dropping it writes the access-log line and
/// the metrics, also when the task is aborted or panics.
pub(crate) struct TunnelRecord {
    request: Request,
    guard: TunnelGuard,
    metrics: Arc<ServerMetrics>,
    began: Instant,
    /// The session that serves it, and how long it took to get there.
    opened: Option<(Arc<SessionEntry>, Duration)>,
    outcome: Option<Outcome>,
}

/// How a tunnel, or the attempt at one, ended.
enum Outcome {
    ClientLeft,
    Refused { refusal: Refusal, status: u16 },
    Ended(CloseReason),
}

/// A request that was refused before it could be read.
pub(crate) fn unread(client: &ClientInfo, refusal: &Refusal, status: u16) {
    info!(
        target: ACCESS, listener = %client.listener, client = %client.address,
        outcome = refusal.reason.label(), status, reason = %refusal,
        "refused"
    );
}

// === impl TunnelRecord ===

impl TunnelRecord {
    pub(crate) fn begin(
        request: Request,
        guard: TunnelGuard,
        metrics: &Arc<ServerMetrics>,
    ) -> Self {
        Self {
            request,
            guard,
            metrics: Arc::clone(metrics),
            began: Instant::now(),
            opened: None,
            outcome: None,
        }
    }

    pub(crate) fn request(&self) -> &Request {
        &self.request
    }

    pub(crate) fn guard(&self) -> &TunnelGuard {
        &self.guard
    }

    pub(crate) fn guard_mut(&mut self) -> &mut TunnelGuard {
        &mut self.guard
    }

    /// An agent has accepted the tunnel.
    pub(crate) fn opened(&mut self, entry: Arc<SessionEntry>) {
        let took = self.began.elapsed();
        self.metrics.opened(took);
        self.opened = Some((entry, took));
    }

    /// The client left before it had its answer.
    pub(crate) fn client_left(mut self) {
        self.outcome = Some(Outcome::ClientLeft);
    }

    /// There is no tunnel, and the client is told so with this status.
    pub(crate) fn refused(mut self, refusal: &Refusal, status: u16) {
        let refusal = refusal.clone();
        self.outcome = Some(Outcome::Refused { refusal, status });
    }

    /// The tunnel has ended.
    pub(crate) fn ended(mut self, reason: CloseReason) {
        self.outcome = Some(Outcome::Ended(reason));
    }

    /// Counts the end and says how the log writes it: label, status, words.
    fn count(&self) -> (&'static str, u16, String) {
        match &self.outcome {
            Some(Outcome::ClientLeft) => {
                self.metrics.cancelled();
                let words = "the client left before the answer";
                ("cancelled", CLIENT_LEFT, words.to_owned())
            }
            Some(Outcome::Refused { refusal, status }) => {
                self.metrics.refused(refusal.reason);
                (refusal.reason.label(), *status, refusal.to_string())
            }
            Some(Outcome::Ended(reason)) => {
                self.metrics.ended(reason.label(), self.began.elapsed());
                (reason.label(), 200, reason.to_string())
            }
            None => self.count_interrupted(),
        }
    }

    /// The task ended before the tunnel did: it panicked, or was aborted after the drain.
    fn count_interrupted(&self) -> (&'static str, u16, String) {
        let (code, words) = if thread::panicking() {
            (StreamCode::Internal, "the tunnel's task panicked")
        } else {
            (StreamCode::Draining, "the tunnel's task was aborted")
        };
        let status = if self.opened.is_some() {
            self.metrics.ended(code.label(), self.began.elapsed());
            200
        } else {
            self.metrics.interrupted(code.label());
            500
        };
        (code.label(), status, words.to_owned())
    }
}

impl Drop for TunnelRecord {
    /// The fields alone tell the story, and so does the line.
    fn drop(&mut self) {
        let (outcome, status, reason) = self.count();
        let TunnelStats {
            to_target,
            to_client,
        } = self.guard.stats();
        let entry = self.opened.as_ref().map(|(entry, _)| entry);
        info!(
            target: ACCESS,
            listener = %self.request.client.listener,
            client = %self.request.client.address,
            identity = self.request.client.identity.as_deref(),
            to = %self.request.ask,
            agent = entry.map(|entry| entry.agent.id.as_str()),
            session = entry.map(|entry| entry.id.number()),
            status,
            outcome,
            reason,
            bytes_to_target = to_target,
            bytes_to_client = to_client,
            open_ms = self.opened.as_ref().map(|(_, took)| millis(*took)),
            duration_ms = millis(self.began.elapsed()),
            "tunnel",
        );
    }
}

/// The refusal of a tunnel that is told to end before it is open.
pub(crate) fn aborted(code: StreamCode) -> Refusal {
    match code {
        StreamCode::Draining => Refusal::new(Reason::NoAgent, "this server is shutting down"),
        other => Refusal::new(Reason::Overload, format!("ended as {other}")),
    }
}

/// Milliseconds with microseconds behind the point.
fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
