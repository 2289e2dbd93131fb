//! Every metric of an agent: its name, its help, its labels. Those that servers have too are in
//! `towline-metrics`.
//!
//! Labels are bounded: outcomes and reasons are closed sets, servers are those of the configuration.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use towline_metrics::{PATH_METRICS, SESSION_METRICS, SOCKET_METRICS, TUNNEL_METRICS};
use towline_protocol::refusal::Reason;
use towline_service::scrape::{Kind, Scrape, float};
use towline_session::session::SessionStats;
use towline_session::tunnel_table::TunnelTable;

/// Upper bounds in seconds: from a target on the same machine to the longest default dial.
const DIAL_BOUNDS: [f64; 12] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 3.0, 10.0,
];

/// What every metric of an agent begins with.
pub(crate) const PREFIX: &str = "towline_agent";

/// One label; its value is one of a closed set.
type Label = [(&'static str, &'static str); 1];

/// The metrics that are counted at each event; clones share them.
#[derive(Debug, Clone)]
pub struct AgentMetrics {
    tunnels: Family<Label, Counter>,
    refusals: Family<Label, Counter>,
    dials: Family<Label, Histogram, fn() -> Histogram>,
    session_ends: Family<Label, Counter>,
    session_failures: Family<Label, Counter>,
}

/// What a scrape sees of one server.
#[derive(Debug)]
pub(crate) struct ServerSample {
    /// The server as its flag names it.
    pub(crate) server: String,
    /// Nothing while there is no session.
    pub(crate) session: Option<SessionStats>,
}

/// Names the server of a session.
type Labels = [(&'static str, String); 1];

/// Reads the live tunnels at scrape time.
#[derive(Debug)]
struct TunnelCollector(TunnelTable);

// === impl AgentMetrics ===

impl AgentMetrics {
    /// Registers every metric of the tunnels; the registry must have no prefix of its own.
    pub fn register(registry: &mut Registry, tunnels: TunnelTable) -> Self {
        let metrics = Self {
            tunnels: Family::default(),
            refusals: Family::default(),
            dials: Family::new_with_constructor(|| Histogram::new(DIAL_BOUNDS)),
            session_ends: Family::default(),
            session_failures: Family::default(),
        };
        let prefixed = registry.sub_registry_with_prefix(PREFIX);
        prefixed.register(
            "tunnels",
            "Tunnels ended, by outcome",
            metrics.tunnels.clone(),
        );
        prefixed.register(
            "refusals",
            "Tunnels refused, by reason",
            metrics.refusals.clone(),
        );
        prefixed.register(
            "dial_seconds",
            "Time to look up and connect a target",
            metrics.dials.clone(),
        );
        prefixed.register(
            "session_ends",
            "Sessions ended, by reason",
            metrics.session_ends.clone(),
        );
        prefixed.register(
            "session_failures",
            "Dials of servers that brought no session, by phase",
            metrics.session_failures.clone(),
        );
        prefixed.register_collector(Box::new(TunnelCollector(tunnels)));
        metrics
    }

    /// A tunnel, or the attempt at one, has ended.
    pub(crate) fn tunnel_ended(&self, outcome: &'static str) {
        self.tunnels.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// A tunnel was refused.
    pub(crate) fn refused(&self, reason: Reason) {
        self.refusals
            .get_or_create(&[("reason", reason.label())])
            .inc();
        self.tunnel_ended("refused");
    }

    /// A target was dialed, with this success, in this time.
    pub(crate) fn dialed(&self, outcome: &'static str, took: Duration) {
        self.dials
            .get_or_create(&[("outcome", outcome)])
            .observe(took.as_secs_f64());
    }

    /// A session ended.
    pub(crate) fn session_ended(&self, reason: &'static str) {
        self.session_ends.get_or_create(&[("reason", reason)]).inc();
    }

    /// Connecting to a server failed.
    pub(crate) fn session_failed(&self, phase: &'static str) {
        self.session_failures
            .get_or_create(&[("phase", phase)])
            .inc();
    }
}

// === impl TunnelCollector ===

impl Collector for TunnelCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut scrape = Scrape::new(encoder);
        let stats = self.0.stats();
        for desc in &TUNNEL_METRICS {
            scrape.metric(desc, &stats)?;
        }
        Ok(())
    }
}

/// Writes what is known of each server's session, one metric after the other.
pub(crate) fn encode_servers(
    samples: &[ServerSample],
    encoder: DescriptorEncoder<'_>,
) -> fmt::Result {
    let mut scrape = Scrape::new(encoder);
    let label = |sample: &ServerSample| -> Labels { [("server", sample.server.clone())] };
    let up = samples.iter().map(|sample| {
        let up = if sample.session.is_some() { 1.0 } else { 0.0 };
        (label(sample), up)
    });
    scrape.family::<Labels>(Kind::Gauge, ("sessions", "Sessions up, by server"), up)?;
    let live: Vec<(Labels, SessionStats)> = samples
        .iter()
        .filter_map(|sample| Some((label(sample), sample.session?)))
        .collect();
    let sessions = || live.iter().map(|(labels, stats)| (labels, stats));
    for desc in &SESSION_METRICS {
        scrape.metric_family::<Labels, _>(desc, sessions())?;
    }
    let paths = || sessions().filter_map(|(labels, stats)| Some((labels, stats.transport.path?)));
    for desc in &PATH_METRICS {
        scrape.metric_family::<Labels, _>(desc, paths())?;
    }
    let buffers =
        || sessions().filter_map(|(labels, stats)| Some((labels, stats.transport.socket_buffers?)));
    for desc in &SOCKET_METRICS {
        let sizes = buffers().map(|(labels, buffers)| (labels, float((desc.read)(&buffers))));
        scrape.family::<Labels>(desc.kind, (desc.name, desc.help), sizes)?;
    }
    Ok(())
}
