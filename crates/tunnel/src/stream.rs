//! `TunnelStream`: one tunnel on a session. Its end is always explicit.
//!
//! quinn finishes a stream that is dropped, so an early return would look like a clean end of
//! file. This one resets unless it was finished: nobody may mistake a cut transfer for a whole one.

use std::fmt;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use quinn::{ReadError, RecvStream, SendStream, WriteError};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use towline_protocol::code::StreamCode;
use towline_protocol::head::{self, HeadError, MAX_HEAD};

/// One bidirectional stream of a session.
pub struct TunnelStream {
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
    /// Bytes that came behind a head and are not read yet.
    pub(crate) early: Bytes,
    /// This end's half is finished: data and end of file are on their way.
    finished: bool,
    /// The peer's half has ended, in whichever way.
    pub(crate) ended: bool,
    on_drop: StreamCode,
    open: OpenStreams,
}

/// How many tunnel streams a session has open; each [`TunnelStream`] holds one count.
#[derive(Debug, Clone, Default)]
pub(crate) struct OpenStreams(Arc<Count>);

#[derive(Debug, Default)]
struct Count {
    open: AtomicUsize,
    /// Notified when the last open stream ends.
    none: Notify,
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
    /// The session is gone.
    #[error("the session is gone")]
    SessionLost,
    /// This end has closed the half already.
    #[error("closed by this end")]
    Closed,
}

/// Why no head could be read.
#[derive(Debug, Error)]
pub enum ReadHeadError {
    /// The bytes are no head.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// The stream failed before the head was complete.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The stream ended before the head was complete.
    #[error("ended before the head was complete")]
    Eof,
}

// === impl TunnelStream ===

impl TunnelStream {
    pub(crate) fn new(send: SendStream, recv: RecvStream, open: OpenStreams) -> Self {
        open.add();
        Self {
            send,
            recv,
            early: Bytes::new(),
            finished: false,
            ended: false,
            on_drop: StreamCode::Cancelled,
            open,
        }
    }

    /// Reads the request head; what came behind it stays for later reads. Not cancel-safe.
    ///
    /// # Errors
    /// When the bytes are no CONNECT head, or the stream ends before it is complete.
    pub async fn read_request(&mut self) -> Result<head::Request, ReadHeadError> {
        self.read_head(head::parse_request).await
    }

    /// Reads the answer head; what came behind it stays for later reads. Not cancel-safe.
    ///
    /// # Errors
    /// When the bytes are no HTTP answer, or the stream ends before it is complete.
    pub async fn read_answer(&mut self) -> Result<head::Answer, ReadHeadError> {
        self.read_head(head::parse_answer).await
    }

    /// Reads one head in however many pieces it comes.
    async fn read_head<T>(
        &mut self,
        parse: impl Fn(&[u8]) -> Result<Option<(T, usize)>, HeadError>,
    ) -> Result<T, ReadHeadError> {
        let mut head = BytesMut::from(&*std::mem::take(&mut self.early));
        loop {
            if let Some((parsed, used)) = parse(&head)? {
                // A copy of what is left, so that no tunnel keeps its head's buffer for life.
                self.early = Bytes::copy_from_slice(&head[used..]);
                return Ok(parsed);
            }
            let bytes = self.read_some(MAX_HEAD).await?;
            head.extend_from_slice(&bytes.ok_or(ReadHeadError::Eof)?);
        }
    }

    /// The next bytes in order, at most `limit`; nothing at the end of the peer's half. Cancel-safe.
    pub(crate) async fn read_some(&mut self, limit: usize) -> Result<Option<Bytes>, StreamError> {
        Ok(self
            .recv
            .read_chunk(limit, true)
            .await?
            .map(|chunk| chunk.bytes))
    }

    /// Sends all of `bytes`. Not cancel-safe.
    ///
    /// # Errors
    /// When the peer stopped the stream or the session is gone.
    pub async fn write_all(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        Ok(self.send.write_all(bytes).await?)
    }

    /// Ends this half: the peer reads everything sent so far and then end of file.
    pub fn finish(&mut self) {
        // A half that is closed already has nothing to finish.
        self.finished |= self.send.finish().is_ok();
    }

    /// Waits until the peer has left: it stopped this stream, or the session is gone.
    pub async fn cancelled(&self) {
        // Acknowledgement of a finished half resolves it as well, and then nobody waits here.
        self.send.stopped().await.ok();
    }

    /// Waits until the peer has acknowledged this finished half, or it no longer matters: the
    /// peer stopped it, or the session is gone.
    pub(crate) fn delivered(&self) -> impl Future<Output = ()> + Send + use<> {
        let stopped = self.send.stopped();
        async move {
            stopped.await.ok();
        }
    }

    /// Ends what is still open of both halves with `code`.
    pub fn reset(mut self, code: StreamCode) {
        self.on_drop = code;
    }

    /// Sets the code with which a drop resets what is still open.
    pub(crate) fn reset_on_drop(&mut self, code: StreamCode) {
        self.on_drop = code;
    }

    /// Hands `bytes` over without copying, as much as the peer has room for; returns how much.
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &mut Bytes,
    ) -> Poll<Result<usize, StreamError>> {
        // As with the chunks that are read: quinn's future may live for one poll only.
        let write = pin!(self.send.write_chunks(std::slice::from_mut(bytes)));
        write
            .poll(cx)
            .map_ok(|written| written.bytes)
            .map_err(StreamError::from)
    }

    /// Whether the peer's half was cut, told without reading what came before. Nobody is woken
    /// when it is cut later.
    pub(crate) fn cut(&mut self) -> Option<StreamError> {
        let mut context = Context::from_waker(Waker::noop());
        match pin!(self.recv.received_reset()).poll(&mut context) {
            Poll::Ready(Ok(Some(code))) => {
                self.ended = true;
                Some(StreamError::Reset(StreamCode::from_wire(code.into_inner())))
            }
            Poll::Ready(Err(_lost)) => Some(StreamError::SessionLost),
            Poll::Ready(Ok(None)) | Poll::Pending => None,
        }
    }

    /// Takes up to `slots.len()` chunks that have arrived; nothing at the end of the peer's half.
    pub(crate) fn poll_chunks(
        &mut self,
        cx: &mut Context<'_>,
        slots: &mut [Bytes],
    ) -> Poll<Result<Option<usize>, StreamError>> {
        if !self.early.is_empty() {
            slots[0] = std::mem::take(&mut self.early);
            return Poll::Ready(Ok(Some(1)));
        }
        // quinn's future is cancel-safe and keeps its waker with the stream: it may live for one
        // poll only, so that an idle tunnel holds none of the slots.
        let read = pin!(self.recv.read_chunks(slots));
        let read = ready!(read.poll(cx)).map_err(StreamError::from);
        self.ended |= !matches!(read, Ok(Some(_)));
        Poll::Ready(read)
    }
}

impl Drop for TunnelStream {
    fn drop(&mut self) {
        self.open.remove();
        let code = u32::from(self.on_drop).into();
        if !self.finished {
            // Fails only when the half is closed already, which is what is asked for.
            self.send.reset(code).ok();
        }
        if !self.ended {
            self.recv.stop(code).ok();
        }
    }
}

impl AsyncRead for TunnelStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.early.is_empty() {
            let taken = this.early.len().min(buf.remaining());
            buf.put_slice(&this.early[..taken]);
            this.early.advance(taken);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = ready!(this.recv.poll_read_buf(cx, buf)).map_err(StreamError::from);
        this.ended |= read.is_err() || buf.filled().len() == before;
        Poll::Ready(read.map_err(io::Error::from))
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().send)
            .poll_write(cx, buf)
            .map_err(|error| StreamError::from(error).into())
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().finish();
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for TunnelStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelStream")
            .field("id", &self.send.id())
            .field("finished", &self.finished)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

// === impl OpenStreams ===

impl OpenStreams {
    /// Counts one stream; the caller pairs it with [`Self::remove`].
    fn add(&self) {
        self.0.open.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one stream off the count.
    fn remove(&self) {
        if self.0.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.none.notify_waiters();
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.0.open.load(Ordering::Relaxed)
    }

    pub(crate) async fn none(&self) {
        loop {
            let none = self.0.none.notified();
            if self.count() == 0 {
                return;
            }
            none.await;
        }
    }
}

// === impl StreamError ===

impl From<ReadError> for StreamError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Reset(code) => Self::Reset(StreamCode::from_wire(code.into_inner())),
            ReadError::ConnectionLost(_) => Self::SessionLost,
            ReadError::ClosedStream
            | ReadError::IllegalOrderedRead
            | ReadError::ZeroRttRejected => Self::Closed,
        }
    }
}

impl From<WriteError> for StreamError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stopped(code) => Self::Stopped(StreamCode::from_wire(code.into_inner())),
            WriteError::ConnectionLost(_) => Self::SessionLost,
            WriteError::ClosedStream | WriteError::ZeroRttRejected => Self::Closed,
        }
    }
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        let kind = match error {
            StreamError::Reset(_) | StreamError::SessionLost => io::ErrorKind::ConnectionReset,
            StreamError::Stopped(_) | StreamError::Closed => io::ErrorKind::BrokenPipe,
        };
        Self::new(kind, error)
    }
}
