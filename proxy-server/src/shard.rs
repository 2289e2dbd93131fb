//! One shard: a thread's listeners, sessions, tunnels and tasks, and the order in which they end.
//!
//! What belongs to the whole process (signals, admin pages, the log) is in [`crate::server`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio_util::sync::CancellationToken;
use towline_protocol::code::{SessionCode, StreamCode};
use towline_quic::endpoint::EndpointError;
use towline_service::shutdown::Drain;
use towline_service::tasks::Tasks;
use towline_session::tunnel_table::TunnelTable;
use tracing::{info, warn};

use crate::accept::{BoundListener, accept_loop};
use crate::admit::Admission;
use crate::admit::quic::QuicAgents;
use crate::config::ShardConfig;
use crate::forward::Forward;
use crate::frontend::ServeContext;
use crate::limits::Limits;
use crate::listen::ListenError;
use crate::listener::Address;
use crate::metrics::ServerMetrics;
use crate::metrics::state::StateCollector;
use crate::registry::Registry;

/// How long tunnels get to end after they were reset, and agents to acknowledge the close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What agents and logs read when the shard has shut down.
const CLOSE_REASON: &str = "the server has shut down";

/// Why a shard cannot start.
#[derive(Debug, Error)]
pub enum ShardError {
    /// A client listener cannot be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The agents' socket cannot be opened.
    #[error("--listen-quic")]
    Quic(#[from] EndpointError),
}

/// A shard whose sockets are open; nothing is served yet.
#[derive(Debug)]
pub struct Shard {
    listeners: Vec<BoundListener>,
    agents: Arc<QuicAgents>,
    context: Arc<ServeContext>,
    agent_tasks: Tasks,
    tunnels: TunnelTable,
    registry: Registry,
    metrics: Arc<ServerMetrics>,
    drain: Drain,
}

/// A shard that serves.
#[derive(Debug)]
pub(crate) struct RunningShard {
    shard: Shard,
    accepting: Tasks,
    busy_poll: Tasks,
    stop_accepting: CancellationToken,
}

// === impl Shard ===

impl Shard {
    /// Opens every socket. Needs a runtime.
    ///
    /// # Errors
    /// Which flag is at fault, and why.
    pub(crate) fn bind(
        config: &ShardConfig,
        limits: &Limits,
        metrics: Arc<ServerMetrics>,
    ) -> Result<Self, ShardError> {
        let registry = Registry::default();
        let admission =
            Admission::new(config.admit.clone(), registry.clone(), Arc::clone(&metrics));
        let agents = Arc::new(QuicAgents::bind(&config.listen_quic, Arc::new(admission))?);
        let bind = |listener| {
            BoundListener::bind(
                listener,
                Arc::clone(&limits.connections),
                Arc::clone(&metrics),
            )
        };
        let listeners = config
            .listeners
            .iter()
            .map(bind)
            .collect::<Result<Vec<_>, _>>()?;
        let tunnels = TunnelTable::new(&config.table);
        let drain = Drain::new();
        let context = Arc::new(ServeContext {
            forward: Forward::new(
                &config.forward,
                registry.clone(),
                tunnels.clone(),
                Arc::clone(&limits.tunnels),
                Arc::clone(&metrics),
            ),
            tasks: Tasks::new(),
            drain: drain.watch(),
            head_timeout: config.head_timeout,
        });
        Ok(Self {
            listeners,
            agents,
            context,
            agent_tasks: Tasks::new(),
            tunnels,
            registry,
            metrics,
            drain,
        })
    }

    /// Reads the shard's state at scrape time.
    pub(crate) fn collector(&self) -> StateCollector {
        StateCollector {
            registry: self.registry.clone(),
            tunnels: self.tunnels.clone(),
            agents: self.agent_tasks.clone(),
            clients: self.context.tasks.clone(),
            buffers: self.agents.buffers(),
        }
    }

    /// The clients' listeners, in the order of the flags, with their real addresses.
    pub fn client_addresses(&self) -> Vec<Address> {
        self.listeners
            .iter()
            .map(|bound| bound.listener().local_address())
            .collect()
    }

    /// The address that agents dial.
    pub fn agents_addr(&self) -> SocketAddr {
        self.agents.local_addr()
    }

    /// The sessions of this shard.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The live tunnels of this shard.
    pub fn tunnels(&self) -> &TunnelTable {
        &self.tunnels
    }

    /// The tasks that serve clients.
    pub fn client_tasks(&self) -> &Tasks {
        &self.context.tasks
    }

    /// Starts to serve.
    pub(crate) fn start(mut self) -> RunningShard {
        let accepting = Tasks::new();
        let stop_accepting = CancellationToken::new();
        info!(frontend = "agents", address = %self.agents.local_addr(), "listening");
        let (agents, metrics) = (Arc::clone(&self.agents), Arc::clone(&self.metrics));
        let agent_tasks = self.agent_tasks.clone();
        accepting.spawn("agents", async move {
            // Runs on through the drain, and refuses with words, until the socket is closed.
            let never = CancellationToken::new();
            let serve = |incoming| agents.spawn(incoming, &agent_tasks);
            accept_loop(&*agents, "agents", &metrics, &never, serve).await;
        });
        for listener in self.listeners.drain(..) {
            let address = listener.listener().local_address();
            info!(listener = %listener.name(), frontend = listener.frontend().name(),
                address = address.bare(), "listening");
            let run = listener.run(Arc::clone(&self.context), stop_accepting.child_token());
            accepting.spawn("listener", run);
        }
        let busy_poll = Tasks::new();
        let tunnels = self.tunnels.clone();
        busy_poll.spawn("busy poll", async move { tunnels.poll_busily().await });
        RunningShard {
            shard: self,
            accepting,
            busy_poll,
            stop_accepting,
        }
    }
}

// === impl RunningShard ===

impl RunningShard {
    /// Ends what the shard serves: steps 2 to 6 of the shutdown.
    pub(crate) async fn shut_down(self, drain_timeout: Duration) {
        let Shard {
            agents,
            context,
            agent_tasks,
            tunnels,
            registry,
            drain,
            ..
        } = self.shard;
        // 2. No new clients: the listeners close.
        self.stop_accepting.cancel();
        // 3. Agents are told to connect elsewhere; each session closes with its last tunnel.
        registry.close();
        // 4. Live tunnels may finish.
        let stats = tunnels.stats();
        info!(
            tunnels = stats.open,
            pending = stats.live - stats.open,
            deadline = ?drain_timeout,
            "draining"
        );
        if !drain
            .finish_within(drain_timeout, context.tasks.emptied())
            .await
        {
            // 5. What is left is reset or refused, and recorded.
            let cut = tunnels.stats().open;
            let refused = tunnels.abort_all(StreamCode::Draining) - cut;
            warn!(cut, refused, "drain deadline passed, tunnels were reset");
            if !context.tasks.finish_within(CLOSE_TIMEOUT).await {
                context.tasks.abort_all();
            }
        }
        // 6. Sessions that are still open close, and agents hear of it.
        for entry in registry.snapshot().iter() {
            entry.session.close(SessionCode::Closed, CLOSE_REASON);
        }
        agents.close(CLOSE_REASON, CLOSE_TIMEOUT).await;
        if !agent_tasks.finish_within(CLOSE_TIMEOUT).await {
            agent_tasks.abort_all();
        }
        self.accepting.finish_within(CLOSE_TIMEOUT).await;
        self.busy_poll.abort_all();
    }
}
