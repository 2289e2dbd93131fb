//! One tunnel from request to last byte, in phases: pick a session, open a stream, wait for the
//! agent's answer, answer the client, splice, record.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use clap::builder::BoolishValueParser;
use tokio::time::{Instant, timeout_at};
use towline_protocol::code::StreamCode;
use towline_protocol::control::AgentKind;
use towline_protocol::head::{self, Answer};
use towline_protocol::refusal::{Reason, Refusal};
use towline_tunnel::knobs::wait;
use towline_tunnel::session::{Dialect, OpenError};
use towline_tunnel::splice::{self, Options, Socket};
use towline_tunnel::stream::{ReadHeadError, TunnelStream};
use towline_tunnel::tunnels::{Direction, Tunnels};
use tracing::{debug, info};

use crate::forward::record::Record;
use crate::metrics::Metrics;
use crate::registry::{Member, Registry, SessionId};
use crate::request::{ClientInfo, Request};
use crate::router;

mod record;

/// Sessions that one request may try.
const MAX_ATTEMPTS: usize = 3;

/// How long an agent may be late with the answer whose deadline it was told.
const ANSWER_GRACE: Duration = Duration::from_secs(1);

/// How a frontend tells its client the outcome, in its own protocol.
pub trait Responder: Send {
    /// What the tunnel's bytes are spliced with.
    type Stream: Socket;

    /// Resolves when the client has left before it got its answer. Cancel-safe.
    fn hung_up(&mut self) -> impl Future<Output = ()> + Send;

    /// Says yes; returns the stream and the bytes that the client sent meanwhile.
    fn accept(self) -> impl Future<Output = io::Result<(Self::Stream, Bytes)>> + Send;

    /// Says no, and why.
    fn refuse(self, why: &Refusal) -> impl Future<Output = io::Result<()>> + Send;
}

/// Flags of every tunnel.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Tunnels")]
pub struct ForwardArgs {
    /// How long a client waits for its tunnel, name look-up, dial and retries included; 504 then.
    #[arg(
        long,
        env = "TOWLINE_DIAL_TIMEOUT",
        value_name = "TIME",
        default_value = "10s"
    )]
    #[arg(value_parser = wait)]
    pub dial_timeout: Duration,

    /// Silence in both directions after which a tunnel is reset; without it a tunnel may be silent
    /// for ever, as a kubectl exec is.
    #[arg(long, env = "TOWLINE_IDLE_TIMEOUT", value_name = "TIME")]
    #[arg(value_parser = wait)]
    pub idle_timeout: Option<Duration>,

    /// Do not tell agents the clients' addresses (the Forwarded header).
    #[arg(long, env = "TOWLINE_NO_FORWARDED", value_parser = BoolishValueParser::new())]
    pub no_forwarded: bool,
}

/// Turns requests into tunnels; what every frontend holds.
#[derive(Debug)]
pub struct Forward {
    args: ForwardArgs,
    registry: Registry,
    tunnels: Tunnels,
    metrics: Arc<Metrics>,
}

/// A stream whose agent said yes.
struct Opened {
    member: Arc<Member>,
    stream: TunnelStream,
}

// === impl Forward ===

impl Forward {
    /// Serves requests with the sessions of `registry`.
    pub fn new(
        args: ForwardArgs,
        registry: Registry,
        tunnels: Tunnels,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            args,
            registry,
            tunnels,
            metrics,
        })
    }

    /// One tunnel from request to last byte.
    pub async fn handle<R: Responder>(&self, request: Request, mut responder: R) {
        let mut record = Record::begin(&self.metrics);
        let opened = tokio::select! {
            opened = self.open(&request) => opened,
            // Dropping the attempt resets its stream, and the agent drops its dial.
            () = responder.hung_up() => return record.client_left(&request),
        };
        let Opened { member, stream } = match opened {
            Ok(opened) => opened,
            Err(why) => {
                record.refused(&request, &why);
                return answered(responder.refuse(&why).await);
            }
        };
        record.opened(&member);
        let seat = self.tunnels.take_seat();
        let (client, early) = match responder.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!(%error, "the client left with the answer on its way");
                return record.client_left(&request);
            }
        };
        let options = Options {
            from_socket: Direction::ToTarget,
            idle_timeout: self.args.idle_timeout,
        };
        let summary = splice::splice(client, early, stream, seat, options).await;
        record.ended(&request, &summary);
    }

    /// Refuses a client whose request could not even be read.
    pub async fn refuse_unread<R: Responder>(
        &self,
        client: &ClientInfo,
        responder: R,
        why: &Refusal,
    ) {
        self.metrics.refused(why.reason);
        info!(
            target: "access", listener = %client.listener, client = %client.address,
            outcome = why.reason.label(), status = why.reason.status(), reason = %why,
            "refused"
        );
        answered(responder.refuse(why).await);
    }

    /// Counts a client that left before its request was complete.
    pub fn client_left_early(&self, client: &ClientInfo) {
        self.metrics.left_early();
        debug!(listener = %client.listener, client = %client.address, "left without a request");
    }

    /// Picks sessions until one agent says yes, all within the client's deadline.
    async fn open(&self, request: &Request) -> Result<Opened, Refusal> {
        let deadline = Instant::now() + self.args.dial_timeout;
        let mut tried: Vec<SessionId> = Vec::new();
        let mut last: Option<Refusal> = None;
        while tried.len() < MAX_ATTEMPTS && Instant::now() < deadline {
            let sessions = self.registry.snapshot();
            let Some(member) = router::choose(&sessions, request, &tried) else {
                break;
            };
            drop(sessions);
            tried.push(member.id);
            match self.open_on(&member, request, deadline).await {
                Ok(stream) => return Ok(Opened { member, stream }),
                Err(why) if why.reason.retryable() => {
                    debug!(session = %member.id, reason = %why, "trying another session");
                    self.metrics.retried();
                    last = Some(why);
                }
                Err(why) => return Err(why),
            }
        }
        Err(last.unwrap_or_else(|| self.no_session(request.kind)))
    }

    /// Why no session was picked at all.
    fn no_session(&self, kind: AgentKind) -> Refusal {
        if self.registry.is_closed() {
            return Refusal::new(Reason::NoAgent, "this server is shutting down");
        }
        let here = |member: &Arc<Member>| member.agent.kind == kind && member.takes_tunnels();
        if self.registry.snapshot().iter().any(here) {
            return Refusal::new(Reason::Overload, "the tunnels of all sessions are used up");
        }
        let what = match kind {
            AgentKind::Connect => "no agent is connected",
            AgentKind::Passthrough => "no passthrough agent is connected",
        };
        Refusal::new(Reason::NoAgent, what)
    }

    /// Opens a stream on one session and waits for the agent's answer.
    async fn open_on(
        &self,
        member: &Member,
        request: &Request,
        deadline: Instant,
    ) -> Result<TunnelStream, Refusal> {
        let mut stream = member.session.open().map_err(|error| match error {
            OpenError::Full => Refusal::new(Reason::Overload, error.to_string()),
            OpenError::Lost => Refusal::from(Reason::AgentLost),
        })?;
        if member.session.dialect() == Dialect::Legacy && request.kind == AgentKind::Passthrough {
            // Raw streams of the legacy dialect carry neither head nor answer.
            return Ok(stream);
        }
        let head = self.head(request, deadline);
        let answer = async {
            stream.write_all(&head.encode()).await?;
            stream.read_answer().await
        };
        let began = Instant::now();
        let answer = timeout_at(deadline + ANSWER_GRACE, answer)
            .await
            .map_err(|_elapsed| Refusal::from(Reason::AgentTimeout))?;
        self.metrics.answered(began.elapsed());
        match answer {
            Ok(Answer::Accepted) => Ok(stream),
            Ok(Answer::Refused(why)) => Err(why),
            Err(ReadHeadError::Stream(_) | ReadHeadError::Eof) => Err(Reason::AgentLost.into()),
            Err(ReadHeadError::Head(error)) => {
                stream.reset(StreamCode::Protocol);
                let details = format!("the agent's answer: {error}");
                Err(Refusal::new(Reason::Internal, details))
            }
        }
    }

    fn head(&self, request: &Request, deadline: Instant) -> head::Request {
        let client = request.client.address;
        head::Request {
            deadline: Some(deadline.saturating_duration_since(Instant::now())),
            forwarded: (!self.args.no_forwarded).then(|| client.forwarded()),
            traceparent: request.traceparent.clone(),
            ..head::Request::new(request.target.clone())
        }
    }
}

/// A client that is gone before it was refused has lost nothing.
fn answered(sent: io::Result<()>) {
    if let Err(error) = sent {
        debug!(%error, "the client did not wait for its refusal");
    }
}
