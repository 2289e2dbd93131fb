//! Keeps a session to each of a set of servers: resolve, dial, greet, serve streams, back off,
//! repeat. Both agents are this loop with another way to serve a stream.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::lookup_host;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, info, info_span, warn};

use crate::backoff::Backoff;
use towline_protocol::code::{SessionCode, StreamCode};
use towline_protocol::control::{Draining, Hello, Message};
use towline_protocol::target::{Host, Target};
use towline_tunnel::control_stream::{ControlStream, ControlStreamError, next_message};
use towline_tunnel::endpoint::{BindError, DialConfig, Dialer};
use towline_tunnel::session::{Dialect, Session, SessionError};
use towline_tunnel::stream::{StreamError, TunnelStream};
use towline_tunnel::tunnels::Tunnels;

/// A session that lived this long was healthy: the next dial starts with the shortest delay.
const HEALTHY: Duration = Duration::from_secs(30);

/// How long tunnels get to notice that their session is gone, or the peer that it was closed.
const FAREWELL: Duration = Duration::from_secs(1);

/// How an agent serves the streams that a server opens.
pub trait Serve: Clone + Send + Sync + 'static {
    /// Serves one stream to its end.
    fn serve(&self, stream: TunnelStream, dialect: Dialect) -> impl Future<Output = ()> + Send;

    /// The live tunnels that [`Self::serve`] takes its seats from.
    fn tunnels(&self) -> &Tunnels;
}

/// Who is told what becomes of the sessions.
pub trait Observe: Clone + Send + Sync + 'static {
    /// A session is up and serves.
    fn connected(&self, server: &Target, session: &Session);
    /// A session ended.
    fn disconnected(&self, server: &Target, session: &Session, why: &str);
    /// A dial failed.
    fn failed(&self, server: &Target, why: &DialError);
}

/// To which servers, as whom, and how patiently.
#[derive(Debug, Clone)]
pub struct Keep {
    /// A session is kept to each.
    pub servers: Vec<Target>,
    /// The name that the servers' certificates must carry; else each server's own.
    pub server_name: Option<String>,
    /// How to dial them.
    pub dial: DialConfig,
    /// How the agent introduces itself.
    pub hello: Hello,
    /// How long live tunnels may go on after the shutdown began.
    pub drain: Duration,
}

/// Why a dial came to nothing.
#[derive(Debug, Error)]
pub enum DialError {
    /// The server's name does not resolve, or not in time.
    #[error("cannot resolve {0}: {1}")]
    Resolve(Target, String),
    /// No UDP socket.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// No session with any address; this is what the last one said.
    #[error("{0}: {1}")]
    Session(SocketAddr, SessionError),
    /// The server did not welcome the agent.
    #[error("{0}: {1}")]
    Greeting(SocketAddr, ControlStreamError),
}

/// A session that was greeted.
struct Greeted {
    session: Session,
    /// Nothing on a legacy session.
    control: Option<ControlStream>,
}

// === impl Keep ===

impl Keep {
    /// Keeps the sessions until `shutdown`, then drains and returns.
    pub async fn run(self, serve: impl Serve, observe: impl Observe, shutdown: CancellationToken) {
        let keep = Arc::new(self);
        let mut servers = JoinSet::new();
        for server in keep.servers.clone() {
            let span = info_span!("server", %server);
            let keeper = Keeper {
                keep: Arc::clone(&keep),
                server,
                serve: serve.clone(),
                observe: observe.clone(),
                shutdown: shutdown.clone(),
            };
            servers.spawn(keeper.run().instrument(span));
        }
        while let Some(ended) = servers.join_next().await {
            report_panic(ended);
        }
    }
}

/// Keeps the session to one server.
struct Keeper<S, O> {
    keep: Arc<Keep>,
    server: Target,
    serve: S,
    observe: O,
    shutdown: CancellationToken,
}

// === impl Keeper ===

impl<S: Serve, O: Observe> Keeper<S, O> {
    async fn run(self) {
        let mut backoff = Backoff::default();
        let mut random = fastrand::Rng::new();
        loop {
            let dialed = tokio::select! {
                () = self.shutdown.cancelled() => return,
                dialed = self.dial() => dialed,
            };
            match dialed {
                Ok(greeted) => {
                    let began = Instant::now();
                    self.keep_until_end(greeted).await;
                    if began.elapsed() >= HEALTHY {
                        backoff.reset();
                    }
                }
                Err(error) => {
                    warn!(%error, "no session");
                    self.observe.failed(&self.server, &error);
                }
            }
            if self.shutdown.is_cancelled() {
                return;
            }
            let delay = backoff.next_delay(&mut random);
            debug!(?delay, "dialing again");
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = sleep(delay) => {}
            }
        }
    }

    /// Tries every address of the server's name, which is resolved anew each time.
    async fn dial(&self) -> Result<Greeted, DialError> {
        let mut last = DialError::Resolve(self.server.clone(), "no address".to_owned());
        for address in self.resolve().await? {
            match self.dial_address(address).await {
                Ok(greeted) => return Ok(greeted),
                Err(error) => {
                    debug!(%error, "address failed");
                    last = error;
                }
            }
        }
        Err(last)
    }

    async fn resolve(&self) -> Result<Vec<SocketAddr>, DialError> {
        let failed = |why: String| DialError::Resolve(self.server.clone(), why);
        let port = self.server.port;
        match &self.server.host {
            Host::Ip(ip) => Ok(vec![SocketAddr::new(*ip, port)]),
            Host::Name(name) => timeout(
                self.keep.dial.session.quic_handshake_timeout,
                lookup_host((&**name, port)),
            )
            .await
            .map_err(|_elapsed| failed("no answer in time".to_owned()))?
            .map(Iterator::collect)
            .map_err(|error| failed(error.to_string())),
        }
    }

    async fn dial_address(&self, address: SocketAddr) -> Result<Greeted, DialError> {
        let Keep {
            dial,
            hello,
            server_name,
            ..
        } = &*self.keep;
        let own_name = certificate_name(&self.server.host);
        let name = server_name.as_deref().unwrap_or(&own_name);
        let limit = dial.session.quic_handshake_timeout;
        let session = Dialer::bind(address, dial)?
            .dial(address, name, limit)
            .await
            .map_err(|error| DialError::Session(address, error))?;
        let control = match session.dialect() {
            Dialect::Legacy => None,
            Dialect::Towline => {
                let greeted = ControlStream::greet(&session, hello.clone(), limit).await;
                Some(
                    greeted
                        .map_err(|error| DialError::Greeting(address, error))?
                        .0,
                )
            }
        };
        Ok(Greeted { session, control })
    }

    /// Serves a session to its end; a shutdown drains it.
    async fn keep_until_end(&self, Greeted { session, control }: Greeted) {
        self.observe.connected(&self.server, &session);
        info!(
            remote = %session.remote_address(), dialect = ?session.dialect(), "session established"
        );
        let mut tunnels = JoinSet::new();
        let why = self.serve_session(&session, control, &mut tunnels).await;
        self.observe.disconnected(&self.server, &session, &why);
        info!(why, "session ended");
        // Tunnels of a lost session end by themselves; whatever does not is cut by the drop.
        let leaving = async { while tunnels.join_next().await.map(report_panic).is_some() {} };
        if timeout(FAREWELL, leaving).await.is_err() {
            warn!("tunnels outlived their session and were cut");
        }
    }

    /// Returns why the session ended.
    async fn serve_session(
        &self,
        session: &Session,
        mut control: Option<ControlStream>,
        tunnels: &mut JoinSet<()>,
    ) -> String {
        let mut drain_deadline = None;
        loop {
            tokio::select! {
                accepted = session.accept() => match accepted {
                    Ok(stream) => {
                        let serve = self.serve.clone();
                        let dialect = session.dialect();
                        tunnels.spawn(async move { serve.serve(stream, dialect).await });
                    }
                    Err(error) => return error.to_string(),
                },
                Some(ended) = tunnels.join_next() => report_panic(ended),
                message = next_message(&mut control) => match message {
                    Ok(message) => note(&message),
                    // The session's own end says why.
                    Err(ControlStreamError::Stream(StreamError::SessionLost)) => control = None,
                    Err(error) => {
                        session.close(SessionCode::Protocol, &error.to_string());
                        return error.to_string();
                    }
                },
                () = self.shutdown.cancelled(), if drain_deadline.is_none() => {
                    self.announce_drain(&mut control).await;
                    drain_deadline = Some(Box::pin(sleep(self.keep.drain)));
                }
                () = expired(&mut drain_deadline) => {
                    self.cut(session, tunnels).await;
                    return "drain deadline".to_owned();
                }
            }
            if drain_deadline.is_some() && control.is_none() && tunnels.is_empty() {
                // A legacy server is told nothing and closes nothing: leave when nobody is left.
                session
                    .close_and_wait(SessionCode::Closed, "drained", FAREWELL)
                    .await;
                return "drained".to_owned();
            }
        }
    }

    /// Asks for no new streams; the server closes the session when the last tunnel has ended.
    async fn announce_drain(&self, control: &mut Option<ControlStream>) {
        let Some(stream) = control else { return };
        let deadline_ms = u64::try_from(self.keep.drain.as_millis()).unwrap_or(u64::MAX);
        let message = Message::Draining(Draining { deadline_ms });
        if timeout(FAREWELL, stream.send(&message))
            .await
            .map_or(true, |sent| sent.is_err())
        {
            debug!("the server was not told that this agent drains");
            *control = None;
        }
    }

    /// The drain deadline has passed: resets what is left, then closes.
    async fn cut(&self, session: &Session, tunnels: &mut JoinSet<()>) {
        let cut = self.serve.tunnels().abort_all(StreamCode::Draining);
        warn!(cut, "drain deadline passed, resetting what is left");
        let leaving = async { while tunnels.join_next().await.map(report_panic).is_some() {} };
        if timeout(FAREWELL, leaving).await.is_err() {
            debug!("some tunnels did not end in time");
        }
        session
            .close_and_wait(SessionCode::Draining, "drain deadline", FAREWELL)
            .await;
    }
}

/// The name or address that a server's certificate must carry.
fn certificate_name(host: &Host) -> String {
    match host {
        Host::Ip(ip) => ip.to_string(),
        Host::Name(name) => name.trim_end_matches('.').to_owned(),
    }
}

/// What a server says needs no answer: it opens no new streams, or its session is about to end.
fn note(message: &Message) {
    match message {
        Message::Draining(Draining { deadline_ms }) => {
            info!(deadline_ms, "the server drains: it opens no new streams");
        }
        Message::Bye(bye) => info!(reason = bye.reason, "the server says bye"),
        Message::Hello(_) | Message::Welcome(_) | Message::Unknown => {}
    }
}

/// Waits for ever when there is no deadline.
async fn expired(deadline: &mut Option<std::pin::Pin<Box<tokio::time::Sleep>>>) {
    match deadline {
        Some(deadline) => deadline.await,
        None => std::future::pending().await,
    }
}

fn report_panic(ended: Result<(), JoinError>) {
    if let Err(failure) = ended
        && failure.is_panic()
    {
        error!(%failure, "a tunnel panicked");
    }
}
