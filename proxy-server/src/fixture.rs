//! What the tests of this crate share: sessions whose agents follow a script, clients in memory,
//! the events of the log, and the page of metrics.

mod client;
mod log;
mod script;

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry as MetricsRegistry;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use towline_protocol::ask::Ask;
use towline_protocol::control::AgentKind;
use towline_protocol::ids::Epoch;
use towline_service::shutdown::DrainWatch;
use towline_service::tasks::Tasks;
use towline_session::args::TableConfig;
use towline_session::dialect::Dialect;
use towline_session::memory::{Limits, pair};
use towline_session::session::Session;
use towline_session::tunnel_table::TunnelTable;

use crate::forward::{Forward, ForwardConfig};
use crate::frontend::{Connection, Frontend, ServeContext};
use crate::listener::ClientStream;
use crate::metrics::ServerMetrics;
use crate::open::Opener;
use crate::registry::{AgentInfo, Registration, Registry};
use crate::request::{ClientAddress, ClientInfo, Request};

pub(crate) use client::{Behavior, Client, Told};
pub(crate) use log::{Event, take_events};
pub(crate) use script::{Plan, Step};

/// The dial timeout of the fixture.
pub(crate) const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the fixture waits for a head.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(3);

/// A registry with its agents, and what serves clients with it.
pub(crate) struct Fixture {
    pub(crate) registry: Registry,
    pub(crate) tunnels: TunnelTable,
    pub(crate) metrics: Arc<ServerMetrics>,
    pub(crate) forward: Arc<Forward>,
    pub(crate) opener: Opener,
    /// What the agents do, and what they were asked.
    pub(crate) plan: Plan,
    /// The tasks of clients.
    pub(crate) clients: Tasks,
    agents: Tasks,
    page: MetricsRegistry,
}

// === impl Fixture ===

impl Fixture {
    /// Without an agent, and with the default settings.
    pub(crate) fn new() -> Self {
        Self::with(&config())
    }

    /// Without an agent.
    pub(crate) fn with(config: &ForwardConfig) -> Self {
        Self::limited(config, Semaphore::MAX_PERMITS)
    }

    /// Without an agent, and with so many tunnels at most.
    pub(crate) fn limited(config: &ForwardConfig, max_tunnels: usize) -> Self {
        log::start();
        let mut page = MetricsRegistry::default();
        let metrics = ServerMetrics::register(&mut page);
        let registry = Registry::default();
        let tunnels = TunnelTable::new(&TableConfig::default());
        Self {
            forward: Forward::new(
                config,
                registry.clone(),
                tunnels.clone(),
                Arc::new(Semaphore::new(max_tunnels)),
                Arc::clone(&metrics),
            ),
            opener: Opener::new(
                config.dial_timeout,
                config.forwarded,
                registry.clone(),
                Arc::clone(&metrics),
            ),
            registry,
            tunnels,
            metrics,
            plan: Plan::default(),
            clients: Tasks::new(),
            agents: Tasks::new(),
            page,
        }
    }

    /// Registers a session with an agent that follows the plan.
    pub(crate) fn agent(&self, kind: AgentKind) -> Registration {
        self.agent_with(kind, Dialect::Towline, Limits::default())
    }

    pub(crate) fn agent_with(
        &self,
        kind: AgentKind,
        dialect: Dialect,
        limits: Limits,
    ) -> Registration {
        let (near, far) = pair(dialect, limits);
        let info = agent_info("agent", "agent.memory", 1);
        let info = AgentInfo { kind, ..info };
        let registration = self.registry.register(info, far, 100).unwrap();
        let id = registration.entry().id;
        let run = script::run(near, id, self.plan.clone(), self.agents.clone());
        self.agents.spawn("agent", run);
        registration
    }

    /// Registers `count` sessions of connect agents.
    pub(crate) fn connect_agents(&self, count: usize) -> Vec<Registration> {
        (0..count).map(|_| self.agent(AgentKind::Connect)).collect()
    }

    /// A client that asks for a tunnel to `host.test:80`, served as a task.
    pub(crate) fn client(&self, behavior: Behavior) -> Client {
        let (client, responder) = client::connect(behavior);
        let forward = Arc::clone(&self.forward);
        self.clients.spawn("client", async move {
            forward.handle(request(), responder).await;
        });
        client
    }

    /// Serves one end of a socket pair with `frontend` as a task; returns the client's end.
    pub(crate) fn serve(&self, frontend: Arc<dyn Frontend>) -> UnixStream {
        let (near, far) = UnixStream::pair().unwrap();
        let context = ServeContext {
            forward: Arc::clone(&self.forward),
            tasks: self.clients.clone(),
            drain: DrainWatch::never(),
            head_timeout: HEAD_TIMEOUT,
        };
        let connection = Connection {
            stream: ClientStream::Unix(far),
            client: client_info(),
            tls: None,
        };
        self.clients.spawn("client", async move {
            frontend.serve(connection, &context).await;
        });
        near
    }

    /// Waits until no client is served.
    pub(crate) async fn clients_gone(&self) {
        within(self.clients.emptied()).await;
    }

    /// What the metric `name`, with its labels, says now; 0 when it is not on the page.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let mut page = String::new();
        text::encode(&mut page, &self.page).unwrap();
        let line = format!("towline_server_{name} ");
        let value = page.lines().find_map(|text| text.strip_prefix(&line));
        value.map_or(0, |value| value.parse().unwrap())
    }

    /// Asserts that no tunnel, stream or task is left of the clients.
    pub(crate) fn assert_empty(&self) {
        let stats = self.tunnels.stats();
        assert_eq!((stats.live, stats.open, self.clients.len()), (0, 0, 0));
        for entry in self.registry.snapshot().iter() {
            assert_eq!(entry.session.open_streams(), 0);
        }
    }
}

pub(crate) fn config() -> ForwardConfig {
    ForwardConfig {
        dial_timeout: DIAL_TIMEOUT,
        ..ForwardConfig::default()
    }
}

/// What a connect agent says of itself.
pub(crate) fn agent_info(id: &str, identity: &str, epoch: u64) -> AgentInfo {
    AgentInfo {
        id: id.parse().unwrap(),
        identity: identity.into(),
        kind: AgentKind::Connect,
        epoch: Some(Epoch(epoch)),
    }
}

/// Both ends of a session, the agent's first.
pub(crate) fn session() -> (Session, Session) {
    pair(Dialect::Towline, Limits::default())
}

pub(crate) fn client_info() -> ClientInfo {
    ClientInfo {
        listener: "connect=tcp://127.0.0.1:8443".into(),
        address: ClientAddress::Ip(([192, 0, 2, 7], 4711).into()),
        identity: None,
    }
}

pub(crate) fn target() -> Ask {
    Ask::Connect("host.test:80".parse().unwrap())
}

pub(crate) fn request() -> Request {
    Request {
        ask: target(),
        client: client_info(),
        traceparent: None,
    }
}

/// Bounds a wait in a test by an hour, which a paused clock skips.
pub(crate) async fn within<T>(wait: impl Future<Output = T>) -> T {
    let hour = Duration::from_secs(3600);
    timeout(hour, wait).await.expect("the wait ends")
}
