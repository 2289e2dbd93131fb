//! A tunnel that a server asks an agent for, until it is answered.

use std::time::Duration;

use thiserror::Error;
use tokio::time::timeout;
use towline_protocol::ask::Ask;
use towline_protocol::code::StreamCode;
use towline_protocol::failure::StreamError;
use towline_protocol::head::{Answer, RequestHead};
use towline_protocol::refusal::{Reason, Refusal};

use crate::dialect::Framing;
use crate::stream::{ReadHeadError, TunnelStream};

/// How long a server may take to accept an answer, which fits any flow-control window: only a
/// server that stopped reading the session takes longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A tunnel that has been asked for. Dropping it resets its stream.
#[derive(Debug)]
pub struct IncomingTunnel {
    stream: TunnelStream,
    framing: Framing,
}

/// The server did not take an answer: it stopped the stream, is gone, or reads nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the server did not take the answer")]
pub struct NotAnswered;

// === impl IncomingTunnel ===

impl IncomingTunnel {
    pub(crate) fn new(stream: TunnelStream, framing: Framing) -> Self {
        Self { stream, framing }
    }

    /// Reads what is asked for. Where no head is spoken it is the upstream. Not cancel-safe.
    ///
    /// # Errors
    /// When the bytes are no head, or the stream ends before it is complete.
    pub async fn read_request(&mut self) -> Result<RequestHead, ReadHeadError> {
        match self.framing {
            Framing::Heads => self.stream.read_request().await,
            Framing::Raw => Ok(RequestHead::new(Ask::Upstream)),
        }
    }

    /// Waits until the server no longer wants the tunnel: it stopped the stream, or the session
    /// has ended.
    pub fn cancelled(&self) -> impl Future<Output = ()> + Send + use<> {
        self.stream.stopped()
    }

    /// Answers that payload follows; returns the stream for the payload.
    ///
    /// # Errors
    /// When the server does not take the answer.
    pub async fn accept(mut self) -> Result<TunnelStream, NotAnswered> {
        if self.framing == Framing::Heads {
            answer(&mut self.stream, Answer::ACCEPTED).await?;
        }
        Ok(self.stream)
    }

    /// Answers why there is no tunnel, in the name of the program `proxy`; a reset stands for it
    /// where no answer is spoken.
    ///
    /// # Errors
    /// When the server does not take the answer.
    pub async fn refuse(mut self, refusal: &Refusal, proxy: &str) -> Result<(), NotAnswered> {
        match self.framing {
            Framing::Heads => {
                answer(&mut self.stream, &Answer::refused(refusal, proxy)).await?;
                self.stream.finish();
            }
            Framing::Raw => self.stream.reset(refusal_code(refusal)),
        }
        Ok(())
    }

    /// Resets the stream: the server has left, or this end has to.
    pub fn reset(self, code: StreamCode) {
        self.stream.reset(code);
    }
}

async fn answer(stream: &mut TunnelStream, head: &[u8]) -> Result<(), NotAnswered> {
    let sent: Result<Result<(), StreamError>, _> =
        timeout(ANSWER_TIMEOUT, stream.write_all(head)).await;
    match sent {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(NotAnswered),
    }
}

/// The reset that stands for a refusal where no answer is spoken.
fn refusal_code(refusal: &Refusal) -> StreamCode {
    match refusal.reason {
        Reason::Overload => StreamCode::Overload,
        Reason::Internal => StreamCode::Internal,
        _ => StreamCode::TargetReset,
    }
}
