//! Every metric of an agent: its name, its help, its labels.
//!
//! Labels are bounded: outcomes and reasons are closed sets, servers are those of the flags.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeMetric,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use towline_tunnel::refusal::Reason;
use towline_tunnel::session::SessionStats;
use towline_tunnel::tunnels::Tunnels;

/// Upper bounds in seconds: from a target on the same machine to the longest default dial.
const DIAL_BOUNDS: [f64; 12] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 3.0, 10.0,
];

/// One label; its value is one of a closed set.
type Label = [(&'static str, &'static str); 1];

/// The metrics that are counted as things happen; clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
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

/// Reads the live tunnels at scrape time.
#[derive(Debug)]
struct TrafficCollector(Tunnels);

// === impl Metrics ===

impl Metrics {
    /// Registers every metric of the tunnels; the registry must have no prefix of its own.
    pub(crate) fn register(registry: &mut Registry, tunnels: Tunnels) -> Self {
        let metrics = Self {
            tunnels: Family::default(),
            refusals: Family::default(),
            dials: Family::new_with_constructor(|| Histogram::new(DIAL_BOUNDS)),
            session_ends: Family::default(),
            session_failures: Family::default(),
        };
        let prefixed = registry.sub_registry_with_prefix("towline_agent");
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
        registry.register_collector(Box::new(TrafficCollector(tunnels)));
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

    /// A dial of a server came to nothing.
    pub(crate) fn session_failed(&self, phase: &'static str) {
        self.session_failures
            .get_or_create(&[("phase", phase)])
            .inc();
    }
}

// === impl TrafficCollector ===

impl Collector for TrafficCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let traffic = self.0.traffic();
        let gauges = [
            (
                "towline_agent_tunnels_open",
                "Tunnels open now",
                traffic.live,
            ),
            (
                "towline_agent_tunnels_stalled",
                "Tunnels whose target takes nothing",
                traffic.stalled,
            ),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            let kind = gauge.metric_type();
            gauge.encode(encoder.encode_descriptor(name, help, None, kind)?)?;
        }
        let overloads = ConstCounter::new(traffic.overloads);
        overloads.encode(encoder.encode_descriptor(
            "towline_agent_overloads",
            "Stalled tunnels reset because the stall budget was used up",
            None,
            overloads.metric_type(),
        )?)?;
        let mut bytes = encoder.encode_descriptor(
            "towline_agent_bytes",
            "Payload passed on, by direction",
            None,
            MetricType::Counter,
        )?;
        for (direction, count) in [
            ("to_target", traffic.to_target),
            ("to_client", traffic.to_client),
        ] {
            ConstCounter::new(count).encode(bytes.encode_family(&[("direction", direction)])?)?;
        }
        Ok(())
    }
}

/// Writes what is known of each server's session, one metric after the other.
pub(crate) fn encode_servers(
    samples: &[ServerSample],
    mut encoder: DescriptorEncoder<'_>,
) -> fmt::Result {
    let encoder = &mut encoder;
    let up = samples
        .iter()
        .map(|sample| (sample, i64::from(sample.session.is_some())));
    gauge(
        encoder,
        "sessions",
        "Sessions established now, by server",
        up,
    )?;
    let live = || {
        samples
            .iter()
            .filter_map(|sample| Some((sample, sample.session?)))
    };
    let streams = live().map(|(sample, stats)| (sample, wide(stats.open_streams)));
    gauge(
        encoder,
        "session_streams",
        "Tunnel streams open now, by server",
        streams,
    )?;
    let rtt = live().map(|(sample, stats)| (sample, stats.rtt.as_secs_f64()));
    gauge(
        encoder,
        "session_rtt_seconds",
        "Round-trip time to the server",
        rtt,
    )?;
    let window = live().map(|(sample, stats)| (sample, wide(stats.congestion_window)));
    gauge(
        encoder,
        "session_congestion_window_bytes",
        "Congestion window",
        window,
    )?;
    let mtu = live().map(|(sample, stats)| (sample, i64::from(stats.mtu)));
    gauge(
        encoder,
        "session_mtu_bytes",
        "UDP payload that fits the path",
        mtu,
    )?;
    let sent = live().map(|(sample, stats)| (sample, stats.sent_packets));
    counter(
        encoder,
        "session_packets_sent",
        "Packets sent on the current session",
        sent,
    )?;
    let lost = live().map(|(sample, stats)| (sample, stats.lost_packets));
    counter(
        encoder,
        "session_packets_lost",
        "Packets lost on the current session",
        lost,
    )
}

fn gauge<'a, V: EncodeGaugeValue>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl Iterator<Item = (&'a ServerSample, V)>,
) -> fmt::Result {
    let name = format!("towline_agent_{name}");
    let mut metric = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
    for (sample, value) in values {
        let label = [("server", sample.server.as_str())];
        metric.encode_family(&label)?.encode_gauge(&value)?;
    }
    Ok(())
}

fn counter<'a, V: EncodeCounterValue>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl Iterator<Item = (&'a ServerSample, V)>,
) -> fmt::Result {
    let name = format!("towline_agent_{name}");
    let mut metric = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
    let none: Option<&Exemplar<Label, f64>> = None;
    for (sample, value) in values {
        let label = [("server", sample.server.as_str())];
        metric.encode_family(&label)?.encode_counter(&value, none)?;
    }
    Ok(())
}

fn wide(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}
