//! An agent as a program: from checked flags to the last session.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::session_loop::{Keep, Serve};
use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use towline_protocol::control::AgentKind;
use towline_service::admin::{self, Admin};
use towline_service::readiness::Readiness;
use towline_service::runtime::{RunError, StartError};
use towline_service::shutdown::Shutdown;
use towline_service::tasks::Tasks;
use towline_service::{build_info, telemetry};
use towline_tunnel::tunnels::Tunnels;
use tracing::info;

use crate::args::{AgentArgs, AgentConfig};
use crate::metrics::{Metrics, PREFIX};
use crate::outlet::Outlet;
use crate::sessions::Sessions;

/// An agent whose addresses are bound; nothing runs yet.
#[derive(Debug)]
pub struct Bound<S> {
    admin: Admin,
    readiness: Readiness,
    registry: Registry,
    sessions: Sessions,
    keep: Keep,
    serve: S,
}

/// The admin listener could not be bound.
#[derive(Debug, Error)]
#[error("--admin-listen")]
pub struct BindError(#[from] admin::AdminBindError);

/// Runs the program `name` from its flags to its end. The bind step makes its way of serving.
///
/// # Errors
/// What kept it from starting, in words that name the flag.
pub async fn run<S: Serve>(
    name: &'static str,
    kind: AgentKind,
    args: &AgentArgs,
    serve: impl FnOnce(Outlet) -> S,
) -> Result<(), RunError> {
    let config = AgentConfig::load(args, kind).map_err(StartError::new)?;
    if args.check_config {
        return Ok(());
    }
    let telemetry = telemetry::init(&args.telemetry).map_err(StartError::new)?;
    let mut registry = Registry::default();
    build_info::register(&mut registry, name);
    telemetry.register(&mut registry);
    let bound = Bound::bind(name, config, registry, serve).map_err(StartError::new)?;
    let shutdown = Shutdown::new();
    shutdown.on_signals().map_err(StartError::new)?;
    bound.run(&shutdown).await?;
    info!("stopped");
    Ok(())
}

// === impl Bound ===

impl<S: Serve> Bound<S> {
    /// Binds the admin address and prepares everything else.
    ///
    /// # Errors
    /// When the address is taken or not this machine's.
    pub fn bind(
        name: &'static str,
        config: AgentConfig,
        mut registry: Registry,
        serve: impl FnOnce(Outlet) -> S,
    ) -> Result<Self, BindError> {
        let AgentConfig {
            keep,
            admin_listen,
            tunnels: args,
        } = config;
        let admin = Admin::bind(admin_listen)?;
        let readiness = Readiness::new();
        let knobs = &keep.dial.session;
        let tunnels = Tunnels::new(knobs.stream_window.as_u64(), knobs.stall_budget.as_u64());
        let metrics = Metrics::register(&mut registry, tunnels.clone());
        let latch = readiness.latch("sessions", "starting");
        let sessions = Sessions::new(&keep.servers, latch, metrics.clone());
        registry
            .sub_registry_with_prefix(PREFIX)
            .register_collector(Box::new(sessions.clone()));
        let serve = serve(Outlet::new(name, args, tunnels, metrics));
        Ok(Self {
            admin,
            readiness,
            registry,
            sessions,
            keep,
            serve,
        })
    }

    /// Where the admin pages are.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin.local_addr()
    }

    /// Whether the agent has a session, for whoever runs it in process.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// The live tunnels, for whoever runs it in process.
    pub fn tunnels(&self) -> Tunnels {
        self.serve.tunnels().clone()
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
            keep,
            serve,
        } = self;
        info!(
            version = build_info::long_version(),
            agent_id = keep.hello.agent_id,
            admin = %admin.local_addr(),
            servers = keep.servers.len(),
            "started"
        );
        // The admin pages are there from the first moment to the last.
        let _pages = admin.serve(readiness.clone(), Arc::new(registry))?;
        let awake = Tasks::new();
        let (tunnels, limit) = (serve.tunnels().clone(), keep.dial.session.busy_poll);
        if !limit.is_zero() {
            awake.spawn("busy poll", async move {
                match tunnels.poll_busily(limit).await {}
            });
        }
        let ended = tokio::select! {
            // Tells the servers, lets tunnels finish until the deadline, resets what is left,
            // closes the sessions.
            () = keep.run(serve, sessions, shutdown.token()) => Ok(()),
            never = stay_unready(&readiness, shutdown.token()) => match never {},
        };
        awake.abort_all();
        ended
    }
}

/// From the request to stop on, whatever becomes of the sessions, the agent is not ready.
async fn stay_unready(
    readiness: &Readiness,
    shutdown: CancellationToken,
) -> std::convert::Infallible {
    shutdown.cancelled().await;
    let _latch = readiness.latch("shutdown", "draining");
    std::future::pending().await
}
