//! How a tunnel ended, and what it had moved by then.

use std::io;

use thiserror::Error;

use crate::stream::StreamError;
use towline_protocol::code::StreamCode;

/// What a tunnel moved, and how it ended.
#[derive(Debug)]
pub struct Summary {
    /// Bytes from the client to the target.
    pub to_target: u64,
    /// Bytes from the target to the client.
    pub to_client: u64,
    /// How it ended.
    pub end: End,
}

/// How a tunnel ended.
#[derive(Debug, Error)]
pub enum End {
    /// Both halves finished.
    #[error("finished")]
    Finished,
    /// The far end reset or stopped the stream.
    #[error("reset by the far end as {0}")]
    FarReset(StreamCode),
    /// The local socket was reset.
    #[error("reset by the local end")]
    SocketReset(#[source] io::Error),
    /// The session died.
    #[error("the session was lost")]
    SessionLost,
    /// This process ended it: idle, overload, draining.
    #[error("ended as {0}")]
    Aborted(StreamCode),
}

// === impl End ===

impl End {
    /// A short name for metrics and the access log.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::FarReset(_) => "far_reset",
            Self::SocketReset(_) => "socket_reset",
            Self::SessionLost => "session_lost",
            Self::Aborted(code) => code.label(),
        }
    }

    /// What the far end is told.
    pub(super) fn stream_code(&self) -> StreamCode {
        match self {
            Self::Finished | Self::SessionLost => StreamCode::Cancelled,
            Self::SocketReset(_) => StreamCode::TargetReset,
            Self::FarReset(code) | Self::Aborted(code) => *code,
        }
    }
}

impl From<StreamError> for End {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Reset(code) | StreamError::Stopped(code) => Self::FarReset(code),
            StreamError::SessionLost => Self::SessionLost,
            StreamError::Closed => Self::Aborted(StreamCode::Internal),
        }
    }
}
