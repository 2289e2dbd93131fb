//! What is read off at scrape time: sessions, tunnels, bytes, socket buffers.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use towline_service::tasks::Tasks;
use towline_tunnel::endpoint::SocketBuffers;
use towline_tunnel::session::SessionStats;
use towline_tunnel::tunnels::Tunnels;

use crate::registry::{Member, Registry};

/// Reads the live parts of a server.
#[derive(Debug)]
pub struct Live {
    /// Whose sessions are read.
    pub registry: Registry,
    /// Whose tunnels are read.
    pub tunnels: Tunnels,
    /// Tasks of agents.
    pub agents: Tasks,
    /// Tasks of client connections.
    pub clients: Tasks,
    /// What the kernel gave to the UDP socket.
    pub buffers: SocketBuffers,
}

/// Writes families of one shape.
struct Scrape<'a>(DescriptorEncoder<'a>);

/// One value per session: name, help, and how it is read.
type PerSession = (&'static str, &'static str, fn(&SessionStats) -> f64);

/// Gauges of each session.
const SESSION_GAUGES: [PerSession; 4] = [
    (
        "session_rtt_seconds",
        "Smoothed round-trip time to the agent",
        |stats| stats.rtt.as_secs_f64(),
    ),
    (
        "session_congestion_window_bytes",
        "Congestion window towards the agent",
        |stats| float(stats.congestion_window),
    ),
    (
        "session_mtu_bytes",
        "UDP payload that fits the path",
        |stats| f64::from(stats.mtu),
    ),
    (
        "session_streams",
        "Tunnel streams open on the session",
        |stats| float(u64::try_from(stats.open_streams).unwrap_or(u64::MAX)),
    ),
];

/// Counters of each session.
const SESSION_COUNTERS: [PerSession; 4] = [
    (
        "session_sent_packets",
        "Packets sent to the agent",
        |stats| float(stats.sent_packets),
    ),
    (
        "session_lost_packets",
        "Packets sent to the agent that got lost",
        |stats| float(stats.lost_packets),
    ),
    (
        "session_sent_bytes",
        "UDP payload sent to the agent",
        |stats| float(stats.sent_bytes),
    ),
    (
        "session_received_bytes",
        "UDP payload received from the agent",
        |stats| float(stats.received_bytes),
    ),
];

// === impl Live ===

impl Collector for Live {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut scrape = Scrape(encoder);
        let sessions = self.registry.snapshot();
        let traffic = self.tunnels.traffic();
        scrape.gauge("sessions", "Agent sessions up", sessions.len())?;
        scrape.gauge("tunnels_open", "Tunnels open", traffic.live)?;
        scrape.gauge(
            "tunnels_stalled",
            "Tunnels whose client takes nothing",
            traffic.stalled,
        )?;
        scrape.counter(
            "overloads",
            "Tunnels reset for the stall budget",
            traffic.overloads,
        )?;
        scrape.counter(
            "to_target_bytes",
            "Bytes from clients to targets",
            traffic.to_target,
        )?;
        scrape.counter(
            "to_client_bytes",
            "Bytes from targets to clients",
            traffic.to_client,
        )?;
        scrape.gauge(
            "client_tasks",
            "Client connections being served",
            self.clients.len(),
        )?;
        scrape.gauge(
            "agent_tasks",
            "Agent connections being served",
            self.agents.len(),
        )?;
        let panics = self.clients.panics() + self.agents.panics();
        scrape.counter("panics", "Tasks that ended in a panic: a bug", panics)?;
        let (receive, send) = (self.buffers.receive, self.buffers.send);
        scrape.gauge(
            "udp_receive_buffer_bytes",
            "UDP receive buffer that we got",
            receive,
        )?;
        scrape.gauge("udp_send_buffer_bytes", "UDP send buffer that we got", send)?;
        let sessions: Vec<_> = sessions
            .iter()
            .map(|member| (labels(member), member.session.stats()))
            .collect();
        for family in SESSION_GAUGES {
            scrape.per_session(family, &sessions, MetricType::Gauge)?;
        }
        for family in SESSION_COUNTERS {
            scrape.per_session(family, &sessions, MetricType::Counter)?;
        }
        Ok(())
    }
}

// === impl Scrape ===

impl Scrape<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: usize) -> fmt::Result {
        let value = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        let encoder = self
            .0
            .encode_descriptor(name, help, None, value.metric_type())?;
        value.encode(encoder)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let value = ConstCounter::new(value);
        let encoder = self
            .0
            .encode_descriptor(name, help, None, value.metric_type())?;
        value.encode(encoder)
    }

    fn per_session(
        &mut self,
        (name, help, read): PerSession,
        sessions: &[(Labels, SessionStats)],
        kind: MetricType,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, stats) in sessions {
            let encoder = family.encode_family(labels)?;
            match kind {
                MetricType::Counter => ConstCounter::new(read(stats)).encode(encoder)?,
                _ => ConstGauge::new(read(stats)).encode(encoder)?,
            }
        }
        Ok(())
    }
}

type Labels = [(&'static str, String); 2];

fn labels(member: &Member) -> Labels {
    [
        ("agent", member.agent.id.to_string()),
        ("session", member.id.to_string()),
    ]
}

/// Prometheus counts in floats: exact up to 2⁵³.
#[expect(
    clippy::cast_precision_loss,
    reason = "a loss beyond 2^53 is what the format has"
)]
fn float(count: u64) -> f64 {
    count as f64
}
