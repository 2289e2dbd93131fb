//! An agent as a program: from checked flags to the last session.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use towline_service::admin::{self, Admin};
use towline_service::readiness::Readiness;
use towline_service::runtime::{RunError, StartError};
use towline_service::shutdown::Shutdown;
use towline_service::tasks::Tasks;
use towline_service::{build_info, telemetry};
use towline_session::tunnel_table::TunnelTable;
use tracing::info;

use crate::args::AgentArgs;
use crate::config::AgentConfig;
use crate::connector::Connector;
use crate::metrics::{AgentMetrics, PREFIX};
use crate::serve::TunnelHandler;
use crate::server_connector::QuicConnector;
use crate::session_loop::{SessionLoop, StreamHandler};
use crate::sessions::Sessions;

/// An agent whose addresses are bound; nothing runs yet.
#[derive(Debug)]
pub struct Bound<C> {
    admin: Admin,
    readiness: Readiness,
    registry: Registry,
    sessions: Sessions,
    config: AgentConfig,
    handler: TunnelHandler<C>,
}

/// The admin listener could not be bound.
#[derive(Debug, Error)]
#[error("--admin-listen")]
pub struct AgentBindError(#[from] admin::AdminBindError);

/// Runs the program `name` from its flags to its end.
///
/// # Errors
/// Why it could not start; the text names the flag.
pub async fn run<C: Connector>(
    name: &'static str,
    args: &AgentArgs,
    connector: C,
) -> Result<(), RunError> {
    let config = AgentConfig::load(args, C::KIND).map_err(StartError::new)?;
    if args.check_config {
        return Ok(());
    }
    let telemetry = telemetry::init(&args.telemetry).map_err(StartError::new)?;
    let mut registry = Registry::default();
    build_info::register(&mut registry, name);
    telemetry.register(&mut registry);
    let bound = Bound::bind(name, config, registry, connector).map_err(StartError::new)?;
    let shutdown = Shutdown::new();
    shutdown.on_signals().map_err(StartError::new)?;
    bound.run(&shutdown).await?;
    info!("stopped");
    Ok(())
}

// === impl Bound ===

impl<C: Connector> Bound<C> {
    /// Binds the admin address and prepares everything else.
    ///
    /// # Errors
    /// When the address is taken or not this machine's.
    pub fn bind(
        name: &'static str,
        config: AgentConfig,
        mut registry: Registry,
        connector: C,
    ) -> Result<Self, AgentBindError> {
        let admin = Admin::bind(config.admin_listen)?;
        let readiness = Readiness::new();
        let table = TunnelTable::new(&config.table);
        let metrics = AgentMetrics::register(&mut registry, table.clone());
        let latch = readiness.latch("sessions", "starting");
        let sessions = Sessions::new(&config.servers, latch, metrics.clone());
        registry
            .sub_registry_with_prefix(PREFIX)
            .register_collector(Box::new(sessions.clone()));
        let handler = TunnelHandler::new(name, config.tunnels, table, metrics, connector);
        Ok(Self {
            admin,
            readiness,
            registry,
            sessions,
            config,
            handler,
        })
    }

    /// The address of the admin pages.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin.local_addr()
    }

    /// Whether the agent has a session, for tests and for programs that embed an agent.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// The live tunnels, for tests and for programs that embed an agent.
    pub fn tunnels(&self) -> TunnelTable {
        self.handler.tunnels().clone()
    }

    /// Keeps the sessions until the shutdown is requested, then ends them in order.
    ///
    /// # Errors
    /// When the system refuses the thread of the admin pages.
    pub async fn run(self, shutdown: &Shutdown) -> io::Result<()> {
        let Self {
            admin,
            readiness,
            registry,
            sessions,
            config,
            handler,
        } = self;
        info!(
            version = build_info::long_version(),
            agent_id = %config.connector.hello.agent_id,
            admin = %admin.local_addr(),
            servers = config.servers.len(),
            "started"
        );
        // The admin pages are served from the first moment to the last.
        let _pages = admin.serve(readiness.clone(), Arc::new(registry))?;
        let background = Tasks::new();
        let table = handler.tunnels().clone();
        background.spawn("busy poll", async move { table.poll_busily().await });
        background.spawn("readiness", stay_unready(readiness, shutdown.token()));
        let session_loop = SessionLoop {
            connector: QuicConnector::new(config.connector),
            handler,
            observer: sessions,
            drain_timeout: config.drain_timeout,
            shutdown: shutdown.token(),
        };
        // Tells the servers, lets tunnels finish until the deadline, resets what is left, closes the
        // sessions.
        session_loop.run_all(config.servers).await;
        background.abort_all();
        Ok(())
    }
}

/// From the request to stop on, whatever becomes of the sessions, the agent is not ready.
async fn stay_unready(readiness: Readiness, shutdown: CancellationToken) {
    shutdown.cancelled().await;
    let _latch = readiness.latch("shutdown", "draining");
    pending().await
}
