//! Why a session or a stream failed, in words that hold for every transport.

use std::io;

use thiserror::Error;

use crate::code::{SessionCode, StreamCode};

/// Why a session was not established, or ended.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SessionError {
    /// The handshake did not finish in time: the peer is down, or the path drops its packets.
    #[error("no answer within the handshake timeout")]
    HandshakeTimeout,
    /// The connection could not be attempted, or the peer's certificate or protocol is unusable.
    #[error("{0}")]
    Unusable(String),
    /// The peer was silent for the idle timeout.
    #[error("the peer was silent for the idle timeout")]
    Silent,
    /// The peer closed the session and said why.
    #[error("closed by the peer as {code}{}{reason}", if reason.is_empty() { "" } else { ": " })]
    Closed {
        /// The code that the peer gave.
        code: SessionCode,
        /// The peer's words, for people.
        reason: String,
    },
    /// This end closed the session.
    #[error("closed by this end")]
    Ended,
    /// TLS or the transport failed: certificates, versions, a broken peer.
    #[error("{0}")]
    Transport(String),
}

/// Why a session opened no stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OpenError {
    /// All streams that the peer granted, or that this end allows, are in use.
    #[error("session tunnel limit reached")]
    Full,
    /// The session has ended.
    #[error("the session is gone")]
    Lost,
}

/// Why a stream cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum StreamError {
    /// The peer reset its half.
    #[error("reset by the peer as {0}")]
    Reset(StreamCode),
    /// The peer takes no more bytes.
    #[error("stopped by the peer as {0}")]
    Stopped(StreamCode),
    /// The session has ended.
    #[error("the session is gone")]
    SessionLost,
    /// This end has closed the half already.
    #[error("closed by this end")]
    Closed,
}

// === impl SessionError ===

impl SessionError {
    /// The value of a metric label.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Closed { code, .. } => code.label(),
            Self::Silent => "silent",
            Self::Ended => "ended_here",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::Unusable(_) => "unusable",
            Self::Transport(_) => "transport",
        }
    }
}

// === impl StreamError ===

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        let kind = match error {
            StreamError::Reset(_) | StreamError::SessionLost => io::ErrorKind::ConnectionReset,
            StreamError::Stopped(_) | StreamError::Closed => io::ErrorKind::BrokenPipe,
        };
        Self::new(kind, error)
    }
}
