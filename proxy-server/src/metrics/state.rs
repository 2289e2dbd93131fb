//! What is read at scrape time: sessions, tunnels, bytes, socket buffers.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use towline_metrics::{PATH_METRICS, SESSION_METRICS, SOCKET_METRICS, TUNNEL_METRICS};
use towline_quic::endpoint::SocketBuffers;
use towline_service::scrape::Scrape;
use towline_service::tasks::Tasks;
use towline_session::tunnel_table::TunnelTable;

use crate::registry::{Registry, SessionEntry};

/// Reads the state of a shard.
#[derive(Debug)]
pub(crate) struct StateCollector {
    /// The sessions.
    pub(crate) registry: Registry,
    /// The tunnels.
    pub(crate) tunnels: TunnelTable,
    /// Tasks of agents.
    pub(crate) agents: Tasks,
    /// Tasks of client connections.
    pub(crate) clients: Tasks,
    /// What the kernel gave to the UDP socket.
    pub(crate) buffers: SocketBuffers,
}

// === impl StateCollector ===

impl Collector for StateCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut scrape = Scrape::new(encoder);
        let sessions = self.registry.snapshot();
        scrape.gauge("sessions", "Agent sessions up", sessions.len())?;
        let tunnels = self.tunnels.stats();
        for desc in &TUNNEL_METRICS {
            scrape.metric(desc, &tunnels)?;
        }
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
        for desc in &SOCKET_METRICS {
            scrape.metric(desc, &self.buffers)?;
        }
        let stats: Vec<_> = sessions
            .iter()
            .map(|entry| (labels(entry), entry.session.stats()))
            .collect();
        for desc in &SESSION_METRICS {
            scrape.metric_family::<Labels, _>(desc, stats.iter().map(|(l, s)| (l, s)))?;
        }
        let paths = || {
            stats
                .iter()
                .filter_map(|(labels, stats)| Some((labels, stats.transport.path?)))
        };
        for desc in &PATH_METRICS {
            scrape.metric_family::<Labels, _>(desc, paths())?;
        }
        Ok(())
    }
}

type Labels = [(&'static str, String); 2];

fn labels(entry: &SessionEntry) -> Labels {
    [
        ("agent", entry.agent.id.to_string()),
        ("session", entry.id.to_string()),
    ]
}
