//! Which servers this agent has a session to, for its metrics and its readiness.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use towline_protocol::target::Target;
use towline_service::readiness::Latch;
use towline_session::session::Session;

use crate::metrics::{AgentMetrics, ServerSample, encode_servers};
use crate::server_connector::DialError;
use crate::session_loop::SessionObserver;

/// The sessions of an agent; clones share them. Ready while there is at least one.
#[derive(Debug, Clone)]
pub(crate) struct Sessions(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    servers: Mutex<Vec<Server>>,
    latch: Latch,
    metrics: AgentMetrics,
}

#[derive(Debug)]
struct Server {
    target: Target,
    state: State,
}

#[derive(Debug)]
enum State {
    Up(Session),
    /// Why there is no session.
    Down(String),
}

// === impl Sessions ===

impl Sessions {
    /// No session to any of these servers yet.
    pub(crate) fn new(targets: &[Target], latch: Latch, metrics: AgentMetrics) -> Self {
        let unknown = |target: &Target| Server {
            target: target.clone(),
            state: State::Down("not reached yet".to_owned()),
        };
        let servers = Mutex::new(targets.iter().map(unknown).collect());
        let sessions = Self(Arc::new(Inner {
            servers,
            latch,
            metrics,
        }));
        sessions.update_latch(&sessions.servers());
        sessions
    }

    fn set(&self, target: &Target, state: State) {
        let mut servers = self.servers();
        if let Some(server) = servers.iter_mut().find(|server| server.target == *target) {
            server.state = state;
        }
        self.update_latch(&servers);
    }

    /// Called under the lock, so that the latch is as the last change left it.
    fn update_latch(&self, servers: &[Server]) {
        let mut missing = Vec::new();
        for server in servers {
            match &server.state {
                State::Up(_) => return self.0.latch.ready(),
                State::Down(why) => missing.push(format!("{} ({why})", server.target)),
            }
        }
        self.0
            .latch
            .not_ready(format!("no session to {}", missing.join(", ")));
    }

    fn servers(&self) -> MutexGuard<'_, Vec<Server>> {
        // Each change is one assignment, so a panic elsewhere leaves nothing half done.
        self.0
            .servers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl SessionObserver for Sessions {
    fn connected(&self, server: &Target, session: &Session) {
        self.set(server, State::Up(session.clone()));
    }

    fn disconnected(&self, server: &Target, session: &Session, why: &str) {
        let end = session
            .close_reason()
            .map_or("control_stream", |end| end.label());
        self.0.metrics.session_ended(end);
        self.set(server, State::Down(why.to_owned()));
    }

    fn failed(&self, server: &Target, why: &DialError) {
        self.0.metrics.session_failed(why.phase());
        self.set(server, State::Down(why.to_string()));
    }
}

impl Collector for Sessions {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let sample = |server: &Server| ServerSample {
            server: server.target.to_string(),
            session: match &server.state {
                State::Up(session) => Some(session.stats()),
                State::Down(_) => None,
            },
        };
        let samples: Vec<_> = self.servers().iter().map(sample).collect();
        encode_servers(&samples, encoder)
    }
}
