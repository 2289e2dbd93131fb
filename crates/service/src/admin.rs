//! The admin listener: `/livez`, `/readyz`, `/metrics` and pages of the program over HTTP/1.
//!
//! It has a thread and a runtime of its own: a scrape takes no time from a tunnel, and a busy
//! shard does not fail its liveness probe. `/livez` reports only that the process runs.

mod routes;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{self, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tracing::{debug, error, warn};

pub use self::routes::{Page, Routes};
use crate::background_runtime::BackgroundRuntime;
use crate::readiness::Readiness;

/// Pause after an accept error, which most often means that file descriptors are used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A request head beyond this is answered with 431.
const HEAD_SIZE: usize = 16 * 1024;

const LIMITS: Limits = Limits {
    connections: 64,
    head: Duration::from_secs(5),
    whole: Duration::from_secs(15),
};

/// An admin listener that is bound and does not serve yet.
#[derive(Debug)]
pub struct Admin {
    listener: net::TcpListener,
    local_addr: SocketAddr,
}

/// The thread that serves the admin pages; it stops when this is dropped.
#[derive(Debug)]
#[must_use = "dropping it stops the admin pages"]
pub struct AdminThread {
    _thread: BackgroundRuntime,
}

/// The admin listener could not be bound.
#[derive(Debug, Error)]
#[error("cannot listen on the admin address {addr}")]
pub struct AdminBindError {
    addr: SocketAddr,
    source: io::Error,
}

/// Bounds on what clients may use of the admin thread.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Most open connections. One more closes the oldest, so idle ones cannot block a probe.
    connections: usize,
    /// Time from the accept to the end of the request head.
    head: Duration,
    /// Time from the accept to the end of the answer; a connection serves one request.
    whole: Duration,
}

/// The open connections, oldest first.
#[derive(Debug, Default)]
struct Connections {
    tasks: JoinSet<()>,
    oldest_first: VecDeque<AbortHandle>,
}

// === impl Admin ===

impl Admin {
    /// Binds the listener. An address other than loopback is logged as a warning: the admin pages
    /// have no authentication.
    ///
    /// # Errors
    /// When the address is in use or does not belong to this machine.
    pub fn bind(addr: SocketAddr) -> Result<Self, AdminBindError> {
        let bind = || {
            let listener = net::TcpListener::bind(addr)?;
            listener.set_nonblocking(true)?;
            let local_addr = listener.local_addr()?;
            Ok(Self {
                listener,
                local_addr,
            })
        };
        let admin = bind().map_err(|source| AdminBindError { addr, source })?;
        if !addr.ip().to_canonical().is_loopback() {
            warn!(%addr, "admin pages are reachable from other machines, without authentication");
        }
        Ok(admin)
    }

    /// The bound address; for port 0, with the port that the system chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves the standard pages on a thread of its own until the returned owner is dropped.
    ///
    /// # Errors
    /// When the system refuses the thread or its poller.
    pub fn serve(self, readiness: Readiness, registry: Arc<Registry>) -> io::Result<AdminThread> {
        self.serve_routes(Routes::standard(readiness, registry))
    }

    /// Serves these pages on a thread of its own until the returned owner is dropped.
    ///
    /// # Errors
    /// When the system refuses the thread or its poller.
    pub fn serve_routes(self, routes: Routes) -> io::Result<AdminThread> {
        self.serve_within(LIMITS, routes)
    }

    fn serve_within(self, limits: Limits, routes: Routes) -> io::Result<AdminThread> {
        let listener = self.listener;
        let thread = BackgroundRuntime::start("admin", move || {
            let listener = TcpListener::from_std(listener)?;
            Ok(serve_all(listener, limits, Arc::new(routes)))
        })?;
        Ok(AdminThread { _thread: thread })
    }
}

// === impl Connections ===

impl Connections {
    /// Serves one more connection; closes the oldest when there are `limits.connections`.
    fn add(&mut self, socket: TcpStream, limits: Limits, routes: Arc<Routes>) {
        self.oldest_first.retain(|task| !task.is_finished());
        if self.oldest_first.len() >= limits.connections
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            oldest.abort();
        }
        let task = self.tasks.spawn(serve_one(socket, limits, routes));
        self.oldest_first.push_back(task);
    }
}

/// Accepts connections and serves each in a task; never returns.
async fn serve_all(listener: TcpListener, limits: Limits, routes: Arc<Routes>) {
    let mut connections = Connections::default();
    let mut failing = false;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    failing = false;
                    connections.add(socket, limits, Arc::clone(&routes));
                }
                Err(error) => {
                    // Logged once until an accept succeeds: the errors between have the same cause.
                    if !failing {
                        warn!(%error, "accepting an admin connection failed");
                    }
                    failing = true;
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(ended) = connections.tasks.join_next() => report(ended),
        }
    }
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        error!(%error, "admin request panicked");
    }
}

/// Answers one request, or closes the connection at one of the limits.
async fn serve_one(socket: TcpStream, limits: Limits, routes: Arc<Routes>) {
    let service = service_fn(|request: Request<_>| {
        let response = routes.respond(request.method(), request.uri().path());
        async { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(HEAD_SIZE)
        .keep_alive(false)
        .half_close(true)
        .serve_connection(TokioIo::new(socket), service);
    match tokio::time::timeout(limits.whole, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "admin connection failed"),
        Err(_) => debug!("admin connection timed out"),
    }
}

#[cfg(test)]
mod tests;
