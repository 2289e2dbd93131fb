//! Keeps a session to each server: connect, serve its tunnels, back off, repeat.

use std::future::pending;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use towline_protocol::code::{SessionCode, StreamCode};
use towline_protocol::control::{AgentKind, Draining, Message, Welcome};
use towline_protocol::failure::StreamError;
use towline_protocol::target::Target;
use towline_service::tasks::Tasks;
use towline_session::control_stream::{ControlStream, ControlStreamError, next_message};
use towline_session::incoming::IncomingTunnel;
use towline_session::session::Session;
use towline_session::tunnel_table::TunnelTable;
use tracing::{Instrument, debug, info, info_span, warn};

use crate::backoff::Backoff;
use crate::server_connector::{DialError, Established, ServerConnector};

/// A session that lived this long was healthy: the next dial starts with the shortest delay.
const HEALTHY: Duration = Duration::from_secs(30);

/// How long tunnels get to end after their session, and a server to take a message or a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves the tunnels that servers ask for; clones share everything.
pub trait StreamHandler: Clone + Send + Sync + 'static {
    /// The kind that the agent announces to its servers.
    const KIND: AgentKind;

    /// Serves one tunnel to its end.
    fn serve(&self, tunnel: IncomingTunnel) -> impl Future<Output = ()> + Send;

    /// The live tunnels, of which [`Self::serve`] registers each.
    fn tunnels(&self) -> &TunnelTable;
}

/// Is told what becomes of the sessions; clones share everything.
pub trait SessionObserver: Clone + Send + Sync + 'static {
    /// A session was established and is served.
    fn connected(&self, server: &Target, session: &Session);
    /// A session ended.
    fn disconnected(&self, server: &Target, session: &Session, why: &str);
    /// Connecting to a server failed.
    fn failed(&self, server: &Target, why: &DialError);
}

/// Keeps sessions up; clones share everything.
#[derive(Debug, Clone)]
pub struct SessionLoop<C, H, O> {
    /// Connects to servers.
    pub connector: C,
    /// Serves the tunnels of all sessions.
    pub handler: H,
    /// Is told what becomes of the sessions.
    pub observer: O,
    /// How long live tunnels may go on after the shutdown began.
    pub drain_timeout: Duration,
    /// Begins the shutdown when it is cancelled.
    pub shutdown: CancellationToken,
}

// === impl SessionLoop ===

impl<C: ServerConnector, H: StreamHandler, O: SessionObserver> SessionLoop<C, H, O> {
    /// Keeps a session to each of these servers until the shutdown, then drains and returns.
    pub async fn run_all(self, servers: Vec<Target>) {
        let loops = Tasks::new();
        for server in servers {
            let span = info_span!("server", %server);
            let own = self.clone();
            let run = async move { own.run(&server).await };
            loops.spawn("session loop", run.instrument(span));
        }
        loops.emptied().await;
    }

    /// Keeps a session to one server until the shutdown, then drains and returns.
    pub async fn run(&self, server: &Target) {
        let mut backoff = Backoff::default();
        let mut random = fastrand::Rng::new();
        loop {
            let connecting = self.connector.connect(server);
            match self.shutdown.run_until_cancelled(connecting).await {
                None => return,
                Some(Ok(established)) => {
                    let began = Instant::now();
                    self.serve_until_closed(server, established).await;
                    if began.elapsed() >= HEALTHY {
                        backoff.reset();
                    }
                }
                Some(Err(error)) => {
                    warn!(%error, "connecting to server failed");
                    self.observer.failed(server, &error);
                }
            }
            let delay = backoff.next_delay(&mut random);
            debug!(?delay, "waiting before the next connection");
            let waited = self.shutdown.run_until_cancelled(sleep(delay)).await;
            if waited.is_none() {
                return;
            }
        }
    }

    /// Serves a session to its end; a shutdown drains it.
    async fn serve_until_closed(&self, server: &Target, established: Established) {
        let Established { session, control } = established;
        let (control, welcome) = control.unzip();
        self.observer.connected(server, &session);
        log_established(&session, welcome.as_ref());
        let tunnels = Tasks::new();
        let why = self.serve_session(&session, control, &tunnels).await;
        self.observer.disconnected(server, &session, &why);
        info!(why, "session ended");
        // Tunnels of an ended session end by themselves.
        if !tunnels.finish_within(CLOSE_TIMEOUT).await {
            let aborted = tunnels.abort_all();
            warn!(aborted, "tunnels outlived their session and were aborted");
        }
    }

    /// Returns why the session ended.
    async fn serve_session(
        &self,
        session: &Session,
        mut control: Option<ControlStream>,
        tunnels: &Tasks,
    ) -> String {
        let mut drain_deadline = None;
        loop {
            tokio::select! {
                accepted = session.accept_tunnel(H::KIND) => match accepted {
                    Ok(tunnel) => {
                        let handler = self.handler.clone();
                        tunnels.spawn("tunnel", async move { handler.serve(tunnel).await });
                    }
                    Err(error) => return error.to_string(),
                },
                message = next_message(&mut control) => match message {
                    Ok(message) => log_message(&message),
                    Err(ControlStreamError::Stream(StreamError::SessionLost)) => {
                        return session.closed().await.to_string();
                    }
                    Err(error) => {
                        session.close(SessionCode::Protocol, &error.to_string());
                        return error.to_string();
                    }
                },
                () = self.shutdown.cancelled(), if drain_deadline.is_none() => {
                    self.announce_drain(&mut control).await;
                    drain_deadline = Some(Instant::now() + self.drain_timeout);
                }
                () = expired(drain_deadline) => {
                    self.reset_tunnels(session, tunnels).await;
                    return "drain deadline".to_owned();
                }
                // A server without a control stream does not know of the drain, so this end closes.
                () = tunnels.emptied(), if drain_deadline.is_some() && control.is_none() => {
                    session.close_and_wait(SessionCode::Closed, "drained", CLOSE_TIMEOUT).await;
                    return "drained".to_owned();
                }
            }
        }
    }

    /// Asks for no new tunnels; the server closes the session when the last one has ended.
    async fn announce_drain(&self, control: &mut Option<ControlStream>) {
        let Some(stream) = control else { return };
        let deadline_ms = u64::try_from(self.drain_timeout.as_millis()).unwrap_or(u64::MAX);
        let message = Message::Draining(Draining { deadline_ms });
        let sent = timeout(CLOSE_TIMEOUT, stream.send(&message)).await;
        if !matches!(sent, Ok(Ok(()))) {
            debug!("sending the drain message failed");
            *control = None;
        }
    }

    /// The drain deadline has passed: resets what is left, then closes.
    async fn reset_tunnels(&self, session: &Session, tunnels: &Tasks) {
        let cut = self.handler.tunnels().abort_all(StreamCode::Draining);
        warn!(
            cut,
            "drain deadline passed, resetting the remaining tunnels"
        );
        if !tunnels.finish_within(CLOSE_TIMEOUT).await {
            debug!(
                left = tunnels.len(),
                "some tunnels did not end after their reset"
            );
        }
        session
            .close_and_wait(SessionCode::Draining, "drain deadline", CLOSE_TIMEOUT)
            .await;
    }
}

fn log_established(session: &Session, welcome: Option<&Welcome>) {
    info!(
        remote = %session.remote_addr(),
        dialect = ?session.dialect(),
        transport = session.transport().label(),
        server_id = welcome.map(|welcome| welcome.server_id.as_str()),
        session = welcome.map(|welcome| welcome.session_id),
        server_version = welcome.map(|welcome| welcome.version.as_str()),
        "session established"
    );
}

/// No message of a server needs an answer: it opens no new tunnels, or is about to close.
fn log_message(message: &Message) {
    match message {
        Message::Draining(Draining { deadline_ms }) => {
            info!(deadline_ms, "server drains and opens no new tunnels");
        }
        Message::Bye(bye) => info!(reason = bye.reason, "server announced its close"),
        Message::Hello(_) | Message::Welcome(_) | Message::Unknown => {}
    }
}

/// Waits forever when there is no deadline.
async fn expired(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}
