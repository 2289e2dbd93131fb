//! The admin listener: `/livez`, `/readyz` and `/metrics` over HTTP/1.
//!
//! It has a thread and a runtime of its own, so that a scrape takes no time from a tunnel and a
//! busy shard does not look dead. `/livez` says only that the process runs.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{self, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tracing::{debug, error, warn};

use crate::background_runtime::BackgroundRuntime;
use crate::readiness::Readiness;

/// Type of the `OpenMetrics` text format, as its specification writes it.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// How long to wait after the system refuses to accept, most likely for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A request head beyond this is answered with 431.
const HEAD_SIZE: usize = 16 * 1024;

const LIMITS: Limits = Limits {
    connections: 64,
    head: Duration::from_secs(5),
    whole: Duration::from_secs(15),
};

/// An admin listener that is bound and does not answer yet.
#[derive(Debug)]
pub struct Admin {
    listener: net::TcpListener,
    local_addr: SocketAddr,
}

/// The thread that answers; it stops when this is dropped.
#[derive(Debug)]
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

/// What strangers may take of the admin thread.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// One more pushes the oldest out: idle connections cannot keep a probe waiting.
    connections: usize,
    /// From the accept to the end of the request head.
    head: Duration,
    /// From the accept to the end of the answer; a connection serves one request.
    whole: Duration,
}

/// What the answers are made from.
#[derive(Debug)]
struct Sources {
    readiness: Readiness,
    registry: Arc<Registry>,
}

/// The open connections, oldest first.
#[derive(Debug, Default)]
struct Connections {
    tasks: JoinSet<()>,
    oldest_first: VecDeque<AbortHandle>,
}

// === impl Admin ===

impl Admin {
    /// Binds the listener. An address beyond loopback is a warning: the admin pages are for the
    /// operator's network, and nobody is asked who they are.
    ///
    /// # Errors
    /// When the address is taken or not this machine's.
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
            warn!(%addr, "the admin address is open to other machines");
        }
        Ok(admin)
    }

    /// The address with the port that was chosen for port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Answers from a thread of its own until the returned owner is dropped.
    ///
    /// # Errors
    /// When the system refuses the thread or its poller.
    pub fn serve(self, readiness: Readiness, registry: Arc<Registry>) -> io::Result<AdminThread> {
        let sources = Sources {
            readiness,
            registry,
        };
        self.serve_within(LIMITS, sources)
    }

    fn serve_within(self, limits: Limits, sources: Sources) -> io::Result<AdminThread> {
        let listener = self.listener;
        let thread = BackgroundRuntime::start("admin", move || {
            let listener = TcpListener::from_std(listener)?;
            Ok(answer(listener, limits, Arc::new(sources)))
        })?;
        Ok(AdminThread { _thread: thread })
    }
}

// === impl Connections ===

impl Connections {
    /// Serves one more connection, at the cost of the oldest when there are `limits.connections`.
    fn add(&mut self, socket: TcpStream, limits: Limits, sources: Arc<Sources>) {
        self.oldest_first.retain(|task| !task.is_finished());
        if self.oldest_first.len() >= limits.connections
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            oldest.abort();
        }
        let task = self.tasks.spawn(serve_one(socket, limits, sources));
        self.oldest_first.push_back(task);
    }
}

/// What the admin thread does.
async fn answer(listener: TcpListener, limits: Limits, sources: Arc<Sources>) {
    let mut connections = Connections::default();
    let mut refused = false;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    refused = false;
                    connections.add(socket, limits, Arc::clone(&sources));
                }
                Err(error) => {
                    // Once per outage: every further refusal has the same reason.
                    if !refused {
                        warn!(%error, "the admin listener cannot accept");
                    }
                    refused = true;
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
        error!(%error, "an admin request panicked");
    }
}

/// Answers one request, or ends the connection at one of the limits.
async fn serve_one(socket: TcpStream, limits: Limits, sources: Arc<Sources>) {
    let service = service_fn(|request: Request<_>| {
        let response = respond(request.method(), request.uri().path(), &sources);
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
        Ok(Err(error)) => debug!(%error, "an admin connection failed"),
        Err(_) => debug!("an admin connection took too long"),
    }
}

fn respond(method: &Method, path: &str, sources: &Sources) -> Response<Full<Bytes>> {
    if !matches!(path, "/livez" | "/readyz" | "/metrics") {
        return page(StatusCode::NOT_FOUND, "not found\n");
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut response = page(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
        let allowed = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, allowed);
        return response;
    }
    match path {
        "/livez" => page(StatusCode::OK, "live\n"),
        "/readyz" => match sources.readiness.state() {
            Ok(()) => page(StatusCode::OK, "ready\n"),
            Err(reasons) => page(StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n"),
        },
        _ => metrics(&sources.registry),
    }
}

fn metrics(registry: &Registry) -> Response<Full<Bytes>> {
    let mut samples = String::new();
    if let Err(error) = text::encode(&mut samples, registry) {
        error!(%error, "a metric cannot be written");
        return page(
            StatusCode::INTERNAL_SERVER_ERROR,
            "a metric cannot be written\n",
        );
    }
    let mut response = page(StatusCode::OK, samples);
    let openmetrics = HeaderValue::from_static(OPENMETRICS);
    response.headers_mut().insert(CONTENT_TYPE, openmetrics);
    response
}

fn page(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static(PLAIN);
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

#[cfg(test)]
mod tests;
