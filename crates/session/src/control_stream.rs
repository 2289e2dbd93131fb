//! The control stream of a session: hello and welcome, then the messages of both ends.

use std::time::Duration;

use thiserror::Error;
use tokio::task::consume_budget;
use tokio::time::timeout;
use towline_protocol::control::{self, ControlError, Decoder, Hello, Message, Welcome};
use towline_protocol::failure::{OpenError, SessionError, StreamError};

use crate::session::Session;
use crate::stream::TunnelStream;

/// One end of the control stream.
#[derive(Debug)]
pub struct ControlStream {
    stream: TunnelStream,
    decoder: Decoder,
}

/// Why there is no control stream.
#[derive(Debug, Error)]
pub enum ControlStreamError {
    /// The exchange of hello and welcome took too long.
    #[error("no hello or welcome within the handshake timeout")]
    Timeout,
    /// The peer sent what is no message.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The peer's first message is another one than the protocol asks for.
    #[error("the first message must be {0}")]
    Unexpected(&'static str),
    /// The peer ended the control stream, which lives as long as its session.
    #[error("the peer ended the control stream")]
    Eof,
    /// The stream could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The stream failed.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The session ended.
    #[error(transparent)]
    Session(#[from] SessionError),
}

// === impl ControlStream ===

impl ControlStream {
    /// The agent's part: sends hello and waits for the welcome, all within `limit`.
    ///
    /// # Errors
    /// When the server refuses, is slow, or answers with another message.
    pub async fn handshake(
        session: &Session,
        hello: Hello,
        limit: Duration,
    ) -> Result<(Self, Welcome), ControlStreamError> {
        within(limit, session, async {
            let mut control = Self::new(session.open_control()?);
            control.send(&Message::Hello(hello)).await?;
            match control.next().await? {
                Message::Welcome(welcome) => Ok((control, welcome)),
                _ => Err(ControlStreamError::Unexpected("welcome")),
            }
        })
        .await
    }

    /// The server's part: waits for the hello, within `limit`; the caller answers it.
    ///
    /// # Errors
    /// When the agent is slow or sends another message.
    pub async fn await_hello(
        session: &Session,
        limit: Duration,
    ) -> Result<(Self, Hello), ControlStreamError> {
        within(limit, session, async {
            let mut control = Self::new(session.accept_control().await?);
            match control.next().await? {
                Message::Hello(hello) => Ok((control, hello)),
                _ => Err(ControlStreamError::Unexpected("hello")),
            }
        })
        .await
    }

    fn new(stream: TunnelStream) -> Self {
        Self {
            stream,
            decoder: Decoder::default(),
        }
    }

    /// Sends one message. Not cancel-safe.
    ///
    /// # Errors
    /// When the peer takes no messages any more.
    pub async fn send(&mut self, message: &Message) -> Result<(), ControlStreamError> {
        Ok(self.stream.write_all(&control::encode(message)).await?)
    }

    /// The next message. Cancel-safe.
    ///
    /// # Errors
    /// When the bytes are no message, or the stream has ended.
    pub async fn next(&mut self) -> Result<Message, ControlStreamError> {
        loop {
            // A peer that sends without pause must not block the other tasks of the thread.
            consume_budget().await;
            if let Some(message) = self.decoder.next()? {
                return Ok(message);
            }
            let bytes = self
                .stream
                .next_chunk()
                .await?
                .ok_or(ControlStreamError::Eof)?;
            self.decoder.push(&bytes);
        }
    }
}

/// The next message; waits forever when there is no control stream. Cancel-safe.
///
/// # Errors
/// As [`ControlStream::next`].
pub async fn next_message(
    control: &mut Option<ControlStream>,
) -> Result<Message, ControlStreamError> {
    match control {
        Some(control) => control.next().await,
        None => std::future::pending().await,
    }
}

/// Bounds a handshake; tells why the session was closed rather than that a stream failed.
async fn within<T>(
    limit: Duration,
    session: &Session,
    handshake: impl Future<Output = Result<T, ControlStreamError>>,
) -> Result<T, ControlStreamError> {
    match timeout(limit, handshake).await {
        Err(_elapsed) => Err(ControlStreamError::Timeout),
        Ok(Err(ControlStreamError::Stream(StreamError::SessionLost))) => {
            Err(session.closed().await.into())
        }
        Ok(established) => established,
    }
}
