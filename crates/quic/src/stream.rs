//! One bidirectional QUIC stream, as the transport of a tunnel sees it.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use quinn::{ReadError, RecvStream, SendStream, WriteError};
use towline_protocol::code::StreamCode;
use towline_protocol::failure::StreamError;

/// A QUIC stream. A half that is neither finished nor reset when the stream is dropped looks
/// finished to the peer, as quinn has it: its owner resets it first.
#[derive(Debug)]
pub struct QuicStream {
    send: SendStream,
    recv: RecvStream,
}

// === impl QuicStream ===

impl QuicStream {
    pub(crate) fn new((send, recv): (SendStream, RecvStream)) -> Self {
        Self { send, recv }
    }

    /// Hands `bytes` over without copying, as much as the peer has room for; returns how much.
    pub fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &mut Bytes,
    ) -> Poll<Result<usize, StreamError>> {
        // The future keeps its waker with the stream, so it may live for one poll only.
        let write = pin!(self.send.write_chunks(std::slice::from_mut(bytes)));
        write
            .poll(cx)
            .map_ok(|written| written.bytes)
            .map_err(write_error)
    }

    /// Takes up to `slots.len()` chunks that have arrived; nothing at the end of the peer's half.
    pub fn poll_chunks(
        &mut self,
        cx: &mut Context<'_>,
        slots: &mut [Bytes],
    ) -> Poll<Result<Option<usize>, StreamError>> {
        // Lives for one poll only, so that an idle tunnel holds none of the slots.
        pin!(self.recv.read_chunks(slots))
            .poll(cx)
            .map_err(read_error)
    }

    /// Ends this half: the peer reads everything sent so far and then end of file. Says whether
    /// the half was still open.
    pub fn finish(&mut self) -> bool {
        self.send.finish().is_ok()
    }

    /// Ends this half at once (`RESET_STREAM`): what has not been delivered is lost.
    pub fn reset(&mut self, code: StreamCode) {
        // Fails only when the half is closed already, which is what is asked for.
        self.send.reset(u32::from(code).into()).ok();
    }

    /// Takes no more of the peer's half (`STOP_SENDING`).
    pub fn stop(&mut self, code: StreamCode) {
        self.recv.stop(u32::from(code).into()).ok();
    }

    /// Why the peer's half was cut, without reading what came before. No task is woken when it is
    /// cut later.
    pub fn received_reset(&mut self) -> Option<StreamError> {
        let mut context = Context::from_waker(Waker::noop());
        match pin!(self.recv.received_reset()).poll(&mut context) {
            Poll::Ready(Ok(Some(code))) => Some(StreamError::Reset(stream_code(code))),
            Poll::Ready(Err(_lost)) => Some(StreamError::SessionLost),
            Poll::Ready(Ok(None)) | Poll::Pending => None,
        }
    }

    /// Waits until the peer has stopped this stream, has acknowledged all of a finished half, or
    /// the session has ended.
    pub fn stopped(&self) -> impl Future<Output = ()> + Send + Sync + use<> {
        let stopped = self.send.stopped();
        async move {
            stopped.await.ok();
        }
    }
}

fn read_error(error: ReadError) -> StreamError {
    match error {
        ReadError::Reset(code) => StreamError::Reset(stream_code(code)),
        ReadError::ConnectionLost(_) => StreamError::SessionLost,
        ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => {
            StreamError::Closed
        }
    }
}

fn write_error(error: WriteError) -> StreamError {
    match error {
        WriteError::Stopped(code) => StreamError::Stopped(stream_code(code)),
        WriteError::ConnectionLost(_) => StreamError::SessionLost,
        WriteError::ClosedStream | WriteError::ZeroRttRejected => StreamError::Closed,
    }
}

fn stream_code(code: quinn::VarInt) -> StreamCode {
    StreamCode::from_wire(code.into_inner())
}
