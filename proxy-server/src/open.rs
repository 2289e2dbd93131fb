//! Opens a tunnel for a request: asks one session after another until an agent accepts.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use towline_protocol::ask::Ask;
use towline_protocol::refusal::{Reason, Refusal};
use towline_session::dialect::OpenContext;
use towline_session::stream::TunnelStream;
use tracing::debug;

use crate::metrics::ServerMetrics;
use crate::registry::{Registry, SessionEntry, SessionId};
use crate::request::Request;
use crate::route;

/// Sessions that one request may try.
const MAX_ATTEMPTS: usize = 3;

/// A session that has not answered after this part of the client's deadline (one half) may be dead
/// or stuck: another one is asked beside it. The first keeps the whole deadline, and the first
/// that accepts serves.
const SECOND_ASK: u32 = 2;

/// A tunnel that an agent has accepted.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) entry: Arc<SessionEntry>,
    pub(crate) stream: TunnelStream,
}

/// Opens tunnels on the sessions of a registry.
#[derive(Debug)]
pub(crate) struct Opener {
    registry: Registry,
    metrics: Arc<ServerMetrics>,
    dial_timeout: Duration,
    forwarded: bool,
}

/// One session that was asked and has not answered.
struct Attempt<'a> {
    /// Whether it is the session that was asked first.
    is_first: bool,
    answer: Pin<Box<dyn Future<Output = Result<Opened, Refusal>> + Send + 'a>>,
}

// === impl Opener ===

impl Opener {
    /// `forwarded` says whether agents are told the clients' addresses.
    pub(crate) fn new(
        dial_timeout: Duration,
        forwarded: bool,
        registry: Registry,
        metrics: Arc<ServerMetrics>,
    ) -> Self {
        Self {
            registry,
            metrics,
            dial_timeout,
            forwarded,
        }
    }

    /// Asks sessions until an agent accepts, all within the client's deadline. Dropping the future
    /// ends every attempt.
    pub(crate) async fn open(&self, request: &Request) -> Result<Opened, Refusal> {
        let began = Instant::now();
        let deadline = began + self.dial_timeout;
        let context = self.context(request);
        let mut tried: Vec<SessionId> = Vec::with_capacity(1);
        let mut last: Option<Refusal> = None;
        let Some(first) = self.choose(&request.ask, &tried) else {
            return Err(self.no_session(&request.ask));
        };
        tried.push(first.id);
        let ask = |entry, is_first| Attempt {
            is_first,
            answer: Box::pin(self.attempt(entry, &request.ask, &context, deadline)),
        };
        let mut attempts = vec![ask(first, true)];
        let mut second_ask = Some(began + self.dial_timeout / SECOND_ASK);
        loop {
            let answered = tokio::select! {
                answered = next_answer(&mut attempts) => Some(answered),
                () = sleep_until(second_ask.unwrap_or(deadline)), if second_ask.is_some() => None,
            };
            match answered {
                Some((_, Ok(opened))) => return Ok(opened),
                Some((is_first, Err(refusal))) => {
                    if is_first && !refusal.reason.retryable() {
                        return Err(refusal);
                    }
                    last = Some(more_telling(last, refusal));
                }
                None => second_ask = None,
            }
            // No further session is asked about a target that an agent has refused, but the first
            // one keeps its time.
            let refused = last.as_ref().is_some_and(|last| !last.reason.retryable());
            let may_ask = !refused && tried.len() < MAX_ATTEMPTS && Instant::now() < deadline;
            let next = may_ask.then(|| self.choose(&request.ask, &tried)).flatten();
            if let Some(entry) = next {
                debug!(session = %entry.id, refusal = last.as_ref().map(ToString::to_string),
                    "asking another session");
                self.metrics.retried();
                tried.push(entry.id);
                attempts.push(ask(entry, false));
            } else if attempts.is_empty() {
                break;
            }
        }
        Err(last.unwrap_or_else(|| Reason::AgentTimeout.into()))
    }

    fn choose(&self, ask: &Ask, tried: &[SessionId]) -> Option<Arc<SessionEntry>> {
        route::choose(&self.registry.snapshot(), ask, tried)
    }

    /// Asks one session.
    async fn attempt(
        &self,
        entry: Arc<SessionEntry>,
        ask: &Ask,
        context: &OpenContext,
        deadline: Instant,
    ) -> Result<Opened, Refusal> {
        let began = Instant::now();
        let opened = entry.session.open_tunnel(ask, context, deadline).await;
        let answered = entry.session.awaits_answer(ask)
            && opened.as_ref().err().is_none_or(|refusal| {
                !matches!(
                    refusal.reason,
                    Reason::AgentTimeout | Reason::AgentLost | Reason::Overload
                )
            });
        if answered {
            self.metrics.answered(began.elapsed());
        }
        opened.map(|stream| Opened { entry, stream })
    }

    fn context(&self, request: &Request) -> OpenContext {
        OpenContext {
            forwarded: self.forwarded.then(|| request.client.address.forwarded()),
            traceparent: request.traceparent.clone(),
        }
    }

    /// Why no session was chosen at all.
    fn no_session(&self, ask: &Ask) -> Refusal {
        if self.registry.is_closed() {
            return Refusal::new(Reason::NoAgent, "this server is shutting down");
        }
        let here = |entry: &Arc<SessionEntry>| entry.serves(ask) && entry.takes_tunnels();
        if self.registry.snapshot().iter().any(here) {
            return Refusal::new(Reason::Overload, "the tunnels of all sessions are used up");
        }
        let what = match ask {
            Ask::Connect(_) => "no agent is connected",
            Ask::Upstream => "no passthrough agent is connected",
        };
        Refusal::new(Reason::NoAgent, what)
    }
}

/// The next answer, and whether it is of the session that was asked first; its attempt leaves the
/// list. Cancel-safe.
async fn next_answer(attempts: &mut Vec<Attempt<'_>>) -> (bool, Result<Opened, Refusal>) {
    poll_fn(|cx| {
        for index in 0..attempts.len() {
            if let Poll::Ready(answer) = attempts[index].answer.as_mut().poll(cx) {
                return Poll::Ready((attempts.swap_remove(index).is_first, answer));
            }
        }
        Poll::Pending
    })
    .await
}

/// Of two refusals the one that says more to the client: what an agent says of the target, then
/// what it says of itself, then that there was no answer at all.
fn more_telling(before: Option<Refusal>, now: Refusal) -> Refusal {
    let unanswered = matches!(now.reason, Reason::AgentTimeout | Reason::AgentLost);
    let says_less =
        |before: &Refusal| unanswered || (now.reason.retryable() && !before.reason.retryable());
    before.filter(says_less).unwrap_or(now)
}

#[cfg(test)]
mod tests;
