//! Wires the modules: `bind` opens every socket or fails, `run` serves until the shutdown.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;
use prometheus_client::registry::Registry as Metered;
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use towline_protocol::code::{SessionCode, StreamCode};
use towline_service::admin::{self, Admin, AdminThread};
use towline_service::build_info;
use towline_service::readiness::{Latch, Readiness};
use towline_service::shutdown::Shutdown;
use towline_service::tasks::Tasks;
use towline_service::telemetry::TelemetryGuard;
use towline_tunnel::knobs::wait;
use towline_tunnel::tunnels::Tunnels;
use tracing::{info, warn};

use crate::agents::{self, Agents};
use crate::cli::ServeArgs;
use crate::clients::listen::{Listen, ListenError};
use crate::clients::{Clients, Door};
use crate::forward::Forward;
use crate::listener::tls::{TlsConfig, TlsConfigError};
use crate::listener::{Address, BindError};
use crate::metrics::Metrics;
use crate::metrics::live::Live;
use crate::registry::Registry;

/// Where the admin pages are when no flag says so; konnectivity's server uses the same port.
pub const ADMIN_DEFAULT: &str = "127.0.0.1:8095";

/// How long tunnels get to end after they were reset, and agents to hear of the close.
const FAREWELL: Duration = Duration::from_secs(2);

/// Flags of the daemon.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Daemon")]
pub struct ServerArgs {
    /// TCP address of /livez, /readyz and /metrics; nobody is asked who they are there.
    #[arg(long, env = "TOWLINE_ADMIN_LISTEN", value_name = "IP:PORT", default_value = ADMIN_DEFAULT)]
    pub admin_listen: SocketAddr,

    /// How long live tunnels may go on after the shutdown began; they are reset then.
    #[arg(
        long,
        env = "TOWLINE_DRAIN_TIMEOUT",
        value_name = "TIME",
        default_value = "30s"
    )]
    #[arg(value_parser = wait)]
    pub drain_timeout: Duration,

    /// Check flags and files, say what is wrong, and exit without listening anywhere.
    #[arg(long, env = "TOWLINE_CHECK_CONFIG", value_parser = BoolishValueParser::new())]
    pub check_config: bool,
}

/// Why the server cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// Flags of the sessions that do not go together.
    #[error("{0}")]
    Session(String),
    /// The clients' certificates.
    #[error(transparent)]
    Tls(#[from] TlsConfigError),
    /// The listeners do not go together.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A listener cannot be opened.
    #[error("{flag}")]
    Bind {
        /// The flag that asks for it.
        flag: &'static str,
        /// What is wrong with it.
        source: BindError,
    },
    /// The agents' side.
    #[error(transparent)]
    Agents(#[from] agents::OpenError),
    /// The admin listener.
    #[error("--admin-listen")]
    Admin(#[from] admin::AdminBindError),
    /// The admin thread.
    #[error("cannot start the admin thread")]
    AdminThread(#[source] io::Error),
}

/// A server whose sockets are open; nothing is served yet.
#[derive(Debug)]
pub struct Bound {
    doors: Vec<Door>,
    agents: Arc<Agents>,
    admin: AdminThread,
    admin_address: SocketAddr,
    ready: Latch,
    clients: Arc<Clients>,
    agent_tasks: Tasks,
    tunnels: Tunnels,
    registry: Registry,
    drain_timeout: Duration,
    busy_poll: Duration,
}

/// Checks flags and files without opening any socket.
///
/// # Errors
/// The first thing that would keep the server from starting.
pub fn check(args: &ServeArgs) -> Result<(), StartError> {
    args.session.check().map_err(StartError::Session)?;
    let tls = TlsConfig::load(&args.tls)?;
    args.listen
        .listeners(tls.as_ref())?
        .iter()
        .try_for_each(|listen| named(listen, listen.check()))?;
    Ok(args.agents.check()?)
}

/// Opens every socket. Needs a runtime.
///
/// # Errors
/// Which flag is at fault, and why.
pub fn bind(args: &ServeArgs, log: Option<&TelemetryGuard>) -> Result<Bound, StartError> {
    args.session.check().map_err(StartError::Session)?;
    let tls = TlsConfig::load(&args.tls)?;
    let listeners = args.listen.listeners(tls.as_ref())?;
    let mut metered = Metered::default();
    build_info::register(&mut metered, "proxy-server");
    if let Some(log) = log {
        log.register(&mut metered);
    }
    let metrics = Metrics::register(&mut metered);
    let registry = Registry::default();
    let agents = Arc::new(Agents::open(
        &args.agents,
        (&args.session, &args.socket),
        args.server.drain_timeout,
        registry.clone(),
        Arc::clone(&metrics),
    )?);
    let doors = listeners
        .iter()
        .map(|listen| named(listen, Door::open(listen)))
        .collect::<Result<Vec<_>, _>>()?;
    let tunnels = Tunnels::new(
        args.session.stream_window.as_u64(),
        args.session.stall_budget.as_u64(),
    );
    let clients = Arc::new(Clients {
        forward: Forward::new(
            args.forward.clone(),
            registry.clone(),
            tunnels.clone(),
            Arc::clone(&metrics),
        ),
        frontend: args.frontend.clone(),
        permits: Arc::new(Semaphore::new(args.listen.permits())),
        tasks: Tasks::new(),
        metrics,
    });
    let agent_tasks = Tasks::new();
    metered
        .sub_registry_with_prefix("towline_server")
        .register_collector(Box::new(Live {
            registry: registry.clone(),
            tunnels: tunnels.clone(),
            agents: agent_tasks.clone(),
            clients: clients.tasks.clone(),
            buffers: agents.listener().buffers(),
        }));
    let readiness = Readiness::new();
    let ready = readiness.latch("server", "starting");
    let admin = Admin::bind(args.server.admin_listen)?;
    let admin_address = admin.local_addr();
    let admin = admin
        .serve(readiness, Arc::new(metered))
        .map_err(StartError::AdminThread)?;
    let drain_timeout = args.server.drain_timeout;
    Ok(Bound {
        doors,
        agents,
        admin,
        admin_address,
        ready,
        clients,
        agent_tasks,
        tunnels,
        registry,
        drain_timeout,
        busy_poll: args.session.busy_poll,
    })
}

/// Names the flag of a listener that cannot be opened.
fn named<T>(listen: &Listen, opened: Result<T, BindError>) -> Result<T, StartError> {
    opened.map_err(|source| StartError::Bind {
        flag: listen.flag,
        source,
    })
}

// === impl Bound ===

impl Bound {
    /// The clients' listeners, in the order of the flags, with their real addresses.
    pub fn client_addresses(&self) -> Vec<Address> {
        self.doors
            .iter()
            .map(|door| door.listener().local_address())
            .collect()
    }

    /// The address that agents dial.
    pub fn agents_address(&self) -> SocketAddr {
        self.agents.listener().local_addr()
    }

    /// The address of the admin pages.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// The sessions of this server.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The live tunnels of this server.
    pub fn tunnels(&self) -> &Tunnels {
        &self.tunnels
    }

    /// The tasks that serve clients.
    pub fn client_tasks(&self) -> &Tasks {
        &self.clients.tasks
    }

    /// Serves until the shutdown is requested, then drains and returns.
    pub async fn run(self, shutdown: Shutdown) {
        let Self {
            doors,
            agents,
            admin,
            ready,
            clients,
            agent_tasks,
            tunnels,
            registry,
            ..
        } = self;
        let accepting = Tasks::new();
        let stop_accepting = CancellationToken::new();
        info!(frontend = "agents", address = %agents.listener().local_addr(), "listening");
        let admit = Arc::clone(&agents).run(agent_tasks.clone());
        accepting.spawn("agents", admit);
        for door in doors {
            let address = door.listener().local_address();
            info!(listener = %door.name(), frontend = door.frontend().name(), address = address.bare(), "listening");
            accepting.spawn(
                "door",
                door.run(Arc::clone(&clients), stop_accepting.child_token()),
            );
        }
        let awake = Tasks::new();
        if !self.busy_poll.is_zero() {
            let tunnels = tunnels.clone();
            awake.spawn("busy poll", async move {
                match tunnels.poll_busily(self.busy_poll).await {}
            });
        }
        info!(address = %self.admin_address, "admin listening");
        ready.ready();

        shutdown.requested().await;

        // 1. Not ready: load balancers send clients elsewhere.
        ready.not_ready("shutting down");
        // 2. No new clients: the listeners close.
        stop_accepting.cancel();
        // 3. Agents are told to connect elsewhere; each session closes with its last tunnel.
        registry.close();
        // 4. Live tunnels may finish.
        let live = tunnels.traffic().live;
        info!(tunnels = live, deadline = ?self.drain_timeout, "draining");
        if !clients.tasks.finish_within(self.drain_timeout).await {
            // 5. What is left is reset, and says so.
            let cut = tunnels.abort_all(StreamCode::Draining);
            warn!(cut, "drain deadline passed, tunnels were reset");
            if !clients.tasks.finish_within(FAREWELL).await {
                clients.tasks.abort_all();
            }
        }
        // 6. Sessions that are still open close, and agents hear of it.
        let farewell = "the server has shut down";
        for member in registry.snapshot().iter() {
            member.session.close(SessionCode::Closed, farewell);
        }
        agents.listener().close(SessionCode::Closed, farewell);
        agents.listener().wait_idle(FAREWELL).await;
        if !agent_tasks.finish_within(FAREWELL).await {
            agent_tasks.abort_all();
        }
        accepting.finish_within(FAREWELL).await;
        awake.abort_all();
        // 7. The admin pages go last, so that the drain could be watched.
        drop(admin);
        info!("shut down");
    }
}
