//! How a tunnel ended.

use std::io;

use thiserror::Error;
use towline_protocol::code::StreamCode;
use towline_protocol::failure::StreamError;

/// How a tunnel ended.
#[derive(Debug, Error)]
pub enum CloseReason {
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

// === impl CloseReason ===

impl CloseReason {
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

impl From<StreamError> for CloseReason {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Reset(code) | StreamError::Stopped(code) => Self::FarReset(code),
            StreamError::SessionLost => Self::SessionLost,
            StreamError::Closed => Self::Aborted(StreamCode::Internal),
        }
    }
}
