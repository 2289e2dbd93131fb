//! The process: limits, admin pages, readiness and the order of the shutdown, around one shard.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry as MetricsRegistry;
use thiserror::Error;
use towline_service::admin::{Admin, AdminBindError, AdminThread};
use towline_service::build_info;
use towline_service::readiness::{Latch, Readiness};
use towline_service::shutdown::Shutdown;
use towline_service::telemetry::TelemetryGuard;
use tracing::info;

use crate::config::ServerConfig;
use crate::limits::Limits;
use crate::metrics::{self, ServerMetrics};
use crate::shard::{Shard, ShardError};

/// Why the server cannot start, after its configuration was found good.
#[derive(Debug, Error)]
pub enum ServerBindError {
    /// A socket of the shard.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// The admin listener.
    #[error("--admin-listen")]
    Admin(#[from] AdminBindError),
    /// The admin thread.
    #[error("cannot start the admin thread")]
    AdminThread(#[source] io::Error),
}

/// A server whose sockets are open; only the admin pages are served yet.
#[derive(Debug)]
pub struct Bound {
    shard: Shard,
    admin: AdminThread,
    admin_addr: SocketAddr,
    ready: Latch,
    drain_timeout: Duration,
}

/// Opens every socket. Needs a runtime.
///
/// # Errors
/// Which flag is at fault, and why.
pub fn bind(config: &ServerConfig, log: Option<&TelemetryGuard>) -> Result<Bound, ServerBindError> {
    let mut registry = MetricsRegistry::default();
    build_info::register(&mut registry, "proxy-server");
    if let Some(log) = log {
        log.register(&mut registry);
    }
    let metrics = ServerMetrics::register(&mut registry);
    let limits = Limits::new(config.max_connections);
    let shard = Shard::bind(&config.shard, &limits, metrics)?;
    registry
        .sub_registry_with_prefix(metrics::PREFIX)
        .register_collector(Box::new(shard.collector()));
    let readiness = Readiness::new();
    let ready = readiness.latch("server", "starting");
    let admin = Admin::bind(config.admin_listen)?;
    let admin_addr = admin.local_addr();
    let admin = admin
        .serve(readiness, Arc::new(registry))
        .map_err(ServerBindError::AdminThread)?;
    Ok(Bound {
        shard,
        admin,
        admin_addr,
        ready,
        drain_timeout: config.drain_timeout,
    })
}

// === impl Bound ===

impl Bound {
    /// What serves clients and agents.
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// The address of the admin pages.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// Serves until the shutdown is requested, then drains and returns.
    pub async fn run(self, shutdown: Shutdown) {
        let shard = self.shard.start();
        info!(address = %self.admin_addr, "admin listening");
        self.ready.ready();

        shutdown.requested().await;

        // 1. Not ready: load balancers send clients elsewhere.
        self.ready.not_ready("shutting down");
        // 2. to 6. Listeners, agents, tunnels, sessions.
        shard.shut_down(self.drain_timeout).await;
        // 7. The admin pages go last, so that the drain could be watched.
        drop(self.admin);
        info!("shut down");
    }
}
