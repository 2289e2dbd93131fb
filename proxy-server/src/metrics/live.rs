//! What is read off at scrape time: sessions, tunnels, bytes, socket buffers.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use towline_service::scrape::{Kind, Scrape};
use towline_service::tasks::Tasks;
use towline_tunnel::session::{SessionStats, SocketBuffers};
use towline_tunnel::tunnels::{Traffic, Tunnels};

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

// === impl Live ===

impl Collector for Live {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut scrape = Scrape::new(encoder);
        let sessions = self.registry.snapshot();
        let traffic = self.tunnels.traffic();
        scrape.gauge("sessions", "Agent sessions up", sessions.len())?;
        for figure in Traffic::FIGURES {
            let named = (figure.name, figure.help);
            scrape.count(Kind::of(figure.grows), named, (figure.read)(&traffic))?;
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
        for figure in SessionStats::FIGURES {
            let kind = Kind::of(figure.grows);
            let values = sessions
                .iter()
                .map(|(labels, stats)| (labels, (figure.read)(stats)));
            scrape.family::<Labels>(kind, (figure.name, figure.help), values)?;
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
