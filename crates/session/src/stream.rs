//! `TunnelStream`: one tunnel on a session. Its end is always explicit.
//!
//! A transport may finish a stream that is dropped (quinn does), so an early return would look like
//! a clean end of file. This one resets unless it was finished: a cut transfer must never look
//! whole.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use towline_protocol::code::StreamCode;
use towline_protocol::failure::StreamError;
use towline_protocol::head::{self, HeadError};

use crate::transport::{BoxFuture, RawStream};

/// One bidirectional stream of a session.
pub struct TunnelStream {
    raw: RawStream,
    /// Bytes that came behind a head and are not read yet.
    early: Bytes,
    /// This end's half is finished: data and end of file are on their way.
    finished: bool,
    /// The peer's half has ended, in whichever way.
    ended: bool,
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
    pub(crate) fn new(raw: RawStream, open: OpenStreams) -> Self {
        open.add();
        Self {
            raw,
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
    pub async fn read_request(&mut self) -> Result<head::RequestHead, ReadHeadError> {
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
        let mut head = BytesMut::new();
        loop {
            let chunk = self.next_chunk().await?.ok_or(ReadHeadError::Eof)?;
            head.extend_from_slice(&chunk);
            if let Some((parsed, used)) = parse(&head)? {
                // A copy of what is left, so that no tunnel keeps its head's buffer for life.
                self.early = Bytes::copy_from_slice(&head[used..]);
                return Ok(parsed);
            }
        }
    }

    /// The next bytes in order, a packet's at most; nothing at the end of the peer's half.
    /// Cancel-safe.
    pub(crate) async fn next_chunk(&mut self) -> Result<Option<Bytes>, StreamError> {
        let mut slot = [Bytes::new()];
        let taken = poll_fn(|cx| self.poll_chunks(cx, &mut slot)).await?;
        let [chunk] = slot;
        Ok(taken.map(|_| chunk))
    }

    /// Sends all of `bytes`. Not cancel-safe.
    ///
    /// # Errors
    /// When the peer stopped the stream or the session is gone.
    pub async fn write_all(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        let mut bytes = Bytes::copy_from_slice(bytes);
        while !bytes.is_empty() {
            poll_fn(|cx| self.poll_send(cx, &mut bytes)).await?;
        }
        Ok(())
    }

    /// Ends this half: the peer reads everything sent so far and then end of file.
    pub fn finish(&mut self) {
        // A half that is closed already has nothing to finish.
        self.finished |= self.raw.finish();
    }

    /// Waits until the peer has stopped this stream, has acknowledged all of a finished half, or
    /// the session has ended.
    pub fn stopped(&self) -> BoxFuture<'static, ()> {
        self.raw.stopped()
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
        self.raw.poll_send(cx, bytes)
    }

    /// Why the peer's half was cut, without reading what came before. No task is woken when it is
    /// cut later.
    pub(crate) fn received_reset(&mut self) -> Option<StreamError> {
        let reset = self.raw.received_reset();
        self.ended |= matches!(reset, Some(StreamError::Reset(_)));
        reset
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
        let read = ready!(self.raw.poll_chunks(cx, slots));
        self.ended |= !matches!(read, Ok(Some(_)));
        Poll::Ready(read)
    }
}

impl Drop for TunnelStream {
    fn drop(&mut self) {
        self.open.remove();
        if !self.finished {
            self.raw.reset(self.on_drop);
        }
        if !self.ended {
            self.raw.stop(self.on_drop);
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
        if this.early.is_empty() {
            let mut slot = [Bytes::new()];
            if ready!(this.poll_chunks(cx, &mut slot))?.is_none() {
                return Poll::Ready(Ok(()));
            }
            [this.early] = slot;
        }
        let taken = this.early.len().min(buf.remaining());
        buf.put_slice(&this.early[..taken]);
        this.early.advance(taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut bytes = Bytes::copy_from_slice(buf);
        self.get_mut()
            .poll_send(cx, &mut bytes)
            .map_err(io::Error::from)
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
            .field("raw", &self.raw)
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
