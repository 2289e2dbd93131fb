//! What is kept of a tunnel: its metrics, and one line in the access log.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use towline_protocol::refusal::Refusal;
use towline_tunnel::splice::Summary;
use tracing::info;

use crate::metrics::Metrics;
use crate::registry::Member;
use crate::request::Request;

/// One tunnel in the making, until it is written down.
pub(super) struct Record {
    metrics: Arc<Metrics>,
    began: Instant,
    /// The session that serves it, and how long it took to get there.
    opened: Option<(Arc<Member>, Duration)>,
}

/// How a tunnel, or the attempt at one, went.
struct Outcome<'a> {
    label: &'a str,
    status: u16,
    reason: &'a str,
    bytes_to_target: u64,
    bytes_to_client: u64,
}

// === impl Record ===

impl Record {
    pub(super) fn begin(metrics: &Arc<Metrics>) -> Self {
        Self {
            metrics: Arc::clone(metrics),
            began: Instant::now(),
            opened: None,
        }
    }

    pub(super) fn opened(&mut self, member: &Arc<Member>) {
        let took = self.began.elapsed();
        self.metrics.opened(took);
        self.opened = Some((Arc::clone(member), took));
    }

    /// The client left before it had its answer; 499 is what access logs call it.
    pub(super) fn client_left(self, request: &Request) {
        self.metrics.cancelled();
        let reason = "the client left before the answer";
        self.write(request, &Outcome::unopened("cancelled", 499, reason));
    }

    pub(super) fn refused(self, request: &Request, why: &Refusal) {
        self.metrics.refused(why.reason);
        let (label, status) = (why.reason.label(), why.reason.status());
        self.write(request, &Outcome::unopened(label, status, &why.to_string()));
    }

    pub(super) fn ended(self, request: &Request, summary: &Summary) {
        let label = summary.end.label();
        self.metrics.ended(label, self.began.elapsed());
        let outcome = Outcome {
            label,
            status: 200,
            reason: &summary.end.to_string(),
            bytes_to_target: summary.to_target,
            bytes_to_client: summary.to_client,
        };
        self.write(request, &outcome);
    }

    /// The access log: the fields alone tell the story, and so does the line.
    fn write(&self, request: &Request, outcome: &Outcome<'_>) {
        let member = self.opened.as_ref().map(|(member, _)| member);
        info!(
            target: "access",
            listener = %request.client.listener,
            client = %request.client.address,
            identity = request.client.identity.as_deref(),
            to = %request.target,
            agent = member.map(|member| &*member.agent.id),
            session = member.map(|member| member.id.number()),
            status = outcome.status,
            outcome = outcome.label,
            reason = outcome.reason,
            bytes_to_target = outcome.bytes_to_target,
            bytes_to_client = outcome.bytes_to_client,
            open_ms = self.opened.as_ref().map(|(_, took)| millis(*took)),
            duration_ms = millis(self.began.elapsed()),
            "tunnel",
        );
    }
}

// === impl Outcome ===

impl<'a> Outcome<'a> {
    fn unopened(label: &'a str, status: u16, reason: &'a str) -> Self {
        Self {
            label,
            status,
            reason,
            bytes_to_target: 0,
            bytes_to_client: 0,
        }
    }
}

/// Milliseconds with microseconds behind the point.
fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
