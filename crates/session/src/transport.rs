//! What carries a session: QUIC, or anything else that has streams.
//!
//! A transport authenticates both peers, carries many bidirectional streams with flow control of
//! their own, and ends each half of a stream as finished or as reset. Streams of QUIC are inline,
//! because every byte passes through them; those of other transports are boxed.

mod quic;

use std::fmt::Debug;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use towline_protocol::code::{SessionCode, StreamCode};
use towline_protocol::failure::{OpenError, SessionError, StreamError};
use towline_quic::endpoint::SocketBuffers;
use towline_quic::stats::PathStats;
use towline_quic::stream::QuicStream;

/// A future on the heap.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The connection below a session.
pub trait Transport: Debug + Send + Sync + 'static {
    /// Which transport this is.
    fn kind(&self) -> TransportKind;

    /// The peer's address now.
    fn remote_addr(&self) -> SocketAddr;

    /// Opens a stream without waiting.
    ///
    /// # Errors
    /// When the peer's grant is used up, or the connection has ended.
    fn try_open(&self) -> Result<RawStream, OpenError>;

    /// The next stream that the peer opens. Cancel-safe.
    fn accept(&self) -> BoxFuture<'_, Result<RawStream, SessionError>>;

    /// Waits for the end of the connection and returns its cause. Cancel-safe.
    fn closed(&self) -> BoxFuture<'_, SessionError>;

    /// Why the connection has ended; nothing while it lives.
    fn close_reason(&self) -> Option<SessionError>;

    /// Ends the connection at once; every stream on it ends with a reset.
    fn close(&self, code: SessionCode, reason: &str);

    /// Waits until the peer has acknowledged the close, where this end alone can tell.
    fn close_acknowledged(&self) -> BoxFuture<'_, ()>;

    /// What the transport measures.
    fn stats(&self) -> TransportStats;
}

/// The name of a transport, for logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TransportKind {
    /// QUIC over UDP.
    Quic,
    /// Within one process, for tests.
    Memory,
}

/// What a transport measures; figures that it does not have are absent.
#[derive(Debug, Clone, Copy, Default)]
pub struct TransportStats {
    /// The path to the peer and the traffic on it.
    pub path: Option<PathStats>,
    /// The buffers of the session's own UDP socket.
    pub socket_buffers: Option<SocketBuffers>,
}

/// A stream of any transport.
#[derive(Debug)]
pub enum RawStream {
    /// A stream of QUIC, inline.
    Quic(QuicStream),
    /// A stream of any other transport.
    Other(Box<dyn StreamIo>),
}

/// One bidirectional stream of a transport other than QUIC; the methods are those of
/// [`QuicStream`].
pub trait StreamIo: Debug + Send + Sync {
    /// Takes bytes off the front of `bytes`, as many as the peer has room for; returns how many.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &mut Bytes,
    ) -> Poll<Result<usize, StreamError>>;

    /// Takes up to `slots.len()` chunks that have arrived; nothing at the end of the peer's half.
    fn poll_chunks(
        &mut self,
        cx: &mut Context<'_>,
        slots: &mut [Bytes],
    ) -> Poll<Result<Option<usize>, StreamError>>;

    /// Ends this half; says whether it was still open.
    fn finish(&mut self) -> bool;

    /// Ends this half at once: what has not been delivered is lost.
    fn reset(&mut self, code: StreamCode);

    /// Takes no more of the peer's half.
    fn stop(&mut self, code: StreamCode);

    /// Why the peer's half was cut, without reading what came before.
    fn received_reset(&mut self) -> Option<StreamError>;

    /// Waits until the peer has stopped this stream, has acknowledged all of a finished half, or
    /// the session has ended.
    fn stopped(&self) -> BoxFuture<'static, ()>;
}

// === impl TransportKind ===

impl TransportKind {
    /// The word for it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Memory => "memory",
        }
    }
}

// === impl RawStream ===

/// Calls the same method on whichever stream it is.
macro_rules! either {
    ($raw:expr, $stream:ident => $call:expr) => {
        match $raw {
            RawStream::Quic($stream) => $call,
            RawStream::Other($stream) => $call,
        }
    };
}

impl RawStream {
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &mut Bytes,
    ) -> Poll<Result<usize, StreamError>> {
        either!(self, stream => stream.poll_send(cx, bytes))
    }

    pub(crate) fn poll_chunks(
        &mut self,
        cx: &mut Context<'_>,
        slots: &mut [Bytes],
    ) -> Poll<Result<Option<usize>, StreamError>> {
        either!(self, stream => stream.poll_chunks(cx, slots))
    }

    pub(crate) fn finish(&mut self) -> bool {
        either!(self, stream => stream.finish())
    }

    pub(crate) fn reset(&mut self, code: StreamCode) {
        either!(self, stream => stream.reset(code));
    }

    pub(crate) fn stop(&mut self, code: StreamCode) {
        either!(self, stream => stream.stop(code));
    }

    pub(crate) fn received_reset(&mut self) -> Option<StreamError> {
        either!(self, stream => stream.received_reset())
    }

    pub(crate) fn stopped(&self) -> BoxFuture<'static, ()> {
        match self {
            Self::Quic(stream) => Box::pin(stream.stopped()),
            Self::Other(stream) => stream.stopped(),
        }
    }
}
