//! Every metric of proxy-server: name, help, labels. Label values are bounded: fixed words, the
//! listeners of the command line, and the agents that are connected now.

pub mod state;

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry as MetricsRegistry, Unit};
use towline_protocol::refusal::Reason;

/// The prefix of every metric of a server.
pub(crate) const PREFIX: &str = "towline_server";

/// A counter by one label, whose values are fixed words.
type LabeledCounter = Family<[(&'static str, &'static str); 1], Counter>;

/// What is counted where it happens; what is read at scrape time is in [`state`].
#[derive(Debug)]
pub struct ServerMetrics {
    tunnels: LabeledCounter,
    refusals: LabeledCounter,
    left_early: Counter,
    retries: Counter,
    connections: Counter,
    accept_errors: Counter,
    accept_pauses: Counter,
    tls_failures: Counter,
    sessions_admitted: Counter,
    sessions_refused: LabeledCounter,
    sessions_ended: LabeledCounter,
    open_seconds: Histogram,
    answer_seconds: Histogram,
    tunnel_seconds: Histogram,
}

// === impl ServerMetrics ===

impl ServerMetrics {
    /// Registers everything under `towline_server_`.
    pub fn register(registry: &mut MetricsRegistry) -> Arc<Self> {
        let metrics = Self {
            tunnels: LabeledCounter::default(),
            refusals: LabeledCounter::default(),
            left_early: Counter::default(),
            retries: Counter::default(),
            connections: Counter::default(),
            accept_errors: Counter::default(),
            accept_pauses: Counter::default(),
            tls_failures: Counter::default(),
            sessions_admitted: Counter::default(),
            sessions_refused: LabeledCounter::default(),
            sessions_ended: LabeledCounter::default(),
            // 0.5 ms … 16 s: a loopback dial to beyond the default deadline.
            open_seconds: Histogram::new(exponential_buckets(0.0005, 2.0, 16)),
            answer_seconds: Histogram::new(exponential_buckets(0.0005, 2.0, 16)),
            // 10 ms … 45 h: a health check to a port-forward left open over the weekend.
            tunnel_seconds: Histogram::new(exponential_buckets(0.01, 4.0, 12)),
        };
        metrics.register_in(registry.sub_registry_with_prefix(PREFIX));
        Arc::new(metrics)
    }

    fn register_in(&self, to: &mut MetricsRegistry) {
        let seconds = || Unit::Seconds;
        to.register(
            "tunnels",
            "Tunnels that have ended, by outcome",
            self.tunnels.clone(),
        );
        to.register(
            "refusals",
            "Requests refused, by reason",
            self.refusals.clone(),
        );
        to.register(
            "clients_left_early",
            "Connections that ended before a whole request",
            self.left_early.clone(),
        );
        to.register(
            "retries",
            "Further sessions asked after the first one of a request",
            self.retries.clone(),
        );
        to.register(
            "connections",
            "Client connections accepted",
            self.connections.clone(),
        );
        to.register(
            "accept_errors",
            "Accepts that the system refused, for example for lack of descriptors",
            self.accept_errors.clone(),
        );
        to.register(
            "accept_pauses",
            "Times that accepting waited because all connections were in use",
            self.accept_pauses.clone(),
        );
        to.register(
            "tls_failures",
            "Client TLS handshakes that failed",
            self.tls_failures.clone(),
        );
        to.register(
            "sessions_admitted",
            "Agent sessions admitted",
            self.sessions_admitted.clone(),
        );
        to.register(
            "sessions_refused",
            "Agent sessions refused, by reason",
            self.sessions_refused.clone(),
        );
        to.register(
            "sessions_ended",
            "Agent sessions that ended, by close reason",
            self.sessions_ended.clone(),
        );
        to.register_with_unit(
            "open",
            "From a client's request to its 200",
            seconds(),
            self.open_seconds.clone(),
        );
        to.register_with_unit(
            "answer",
            "From a head sent to the agent's answer: a round trip and the agent's dial",
            seconds(),
            self.answer_seconds.clone(),
        );
        to.register_with_unit(
            "tunnel",
            "From a client's request to the tunnel's last byte",
            seconds(),
            self.tunnel_seconds.clone(),
        );
    }

    /// A client's connection was accepted.
    pub fn connected(&self) {
        self.connections.inc();
    }

    /// The system refused an accept.
    pub fn accept_failed(&self) {
        self.accept_errors.inc();
    }

    /// All connections are in use, so accepting waits.
    pub fn accept_paused(&self) {
        self.accept_pauses.inc();
    }

    /// A client's TLS handshake failed.
    pub fn tls_failed(&self) {
        self.tls_failures.inc();
    }

    /// A client left before its request was complete.
    pub fn left_early(&self) {
        self.left_early.inc();
    }

    /// A further session is asked for a request.
    pub fn retried(&self) {
        self.retries.inc();
    }

    /// An agent answered a head, `took` after it was sent.
    pub fn answered(&self, took: Duration) {
        self.answer_seconds.observe(took.as_secs_f64());
    }

    /// A tunnel is open, `took` after its request.
    pub fn opened(&self, took: Duration) {
        self.open_seconds.observe(took.as_secs_f64());
    }

    /// A request was refused.
    pub fn refused(&self, reason: Reason) {
        self.refusals
            .get_or_create(&[("reason", reason.label())])
            .inc();
        self.tunnels.get_or_create(&[("outcome", "refused")]).inc();
    }

    /// A client left before its answer.
    pub fn cancelled(&self) {
        self.tunnels
            .get_or_create(&[("outcome", "cancelled")])
            .inc();
    }

    /// The task of a tunnel ended as `outcome` before the tunnel was open.
    pub fn interrupted(&self, outcome: &'static str) {
        self.tunnels.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// A tunnel ended as `outcome`, `took` after its request.
    pub fn ended(&self, outcome: &'static str, took: Duration) {
        self.tunnels.get_or_create(&[("outcome", outcome)]).inc();
        self.tunnel_seconds.observe(took.as_secs_f64());
    }

    /// An agent was admitted.
    pub fn session_admitted(&self) {
        self.sessions_admitted.inc();
    }

    /// An agent was refused.
    pub fn session_refused(&self, reason: &'static str) {
        self.sessions_refused
            .get_or_create(&[("reason", reason)])
            .inc();
    }

    /// An agent's session ended.
    pub fn session_ended(&self, reason: &'static str) {
        self.sessions_ended
            .get_or_create(&[("reason", reason)])
            .inc();
    }
}
