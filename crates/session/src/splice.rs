//! Copies bytes between a socket and a tunnel stream until both halves have ended.
//!
//! One task does both directions and holds no buffer while nothing moves: the socket is read into a
//! buffer of the thread; a large read splits its part off, a small one is copied out; bytes from the
//! stream are written from the packets that carried them. A half that ends is ended on the
//! other side; the other half goes on.

mod close_reason;
mod half;
mod idle;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::io::poll_read_buf;
use towline_protocol::code::StreamCode;
use towline_protocol::failure::StreamError;

use crate::busy_poller::InteractiveDetector;
use crate::local_stream::{LocalEnd, LocalStream};
use crate::stream::TunnelStream;
use crate::tunnel_table::{Direction, TunnelGuard};

use half::{Half, Inbound, Outbound};
use idle::Idle;

pub use close_reason::CloseReason;

/// Bytes read from a socket at a time; one buffer a thread, shared by its tunnels.
const READ_BUFFER: usize = 64 * 1024;

/// Reads of at least this size are split off the buffer instead of copied: a copy of every byte costs
/// more than the few kilobytes that stay unused.
const ZERO_COPY_MIN: usize = READ_BUFFER / 2;

/// Chunks taken from a stream at a time; each is at most a packet, so about 46 KiB a write.
const SLOTS: usize = 32;

/// Rounds (a read, or a write) that one direction may go before other tasks of the thread run.
const ROUNDS: u32 = 32;

/// How often the ends of a tunnel that are not read are checked for a failure.
const LIVENESS_INTERVAL: Duration = Duration::from_secs(5);

thread_local! {
    static BUFFER: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// How a tunnel is spliced.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Where the bytes go that are read from the socket.
    pub from_socket: Direction,
    /// Silence in both directions after which the tunnel is reset; `None` sets no limit.
    pub idle_timeout: Option<Duration>,
}

/// Splices until both halves have ended or one is reset; `early` was read from the socket before.
///
/// A failure on one side becomes a reset on the other, also when the returned future is dropped.
pub async fn splice<S: LocalStream>(
    socket: S,
    early: Bytes,
    stream: TunnelStream,
    guard: &mut TunnelGuard,
    options: Options,
) -> CloseReason {
    guard.set_open();
    let mut splice = Splice {
        local: LocalEnd::new(socket),
        stream,
        guard,
        from_socket: options.from_socket,
        idle: options.idle_timeout.map(Idle::new),
        liveness: None,
        inbound: Inbound {
            pending: early,
            ..Inbound::default()
        },
        outbound: Outbound::default(),
        interactive: InteractiveDetector::default(),
    };
    let end = poll_fn(|cx| splice.poll(cx)).await;
    // The local end is through: its descriptor does not wait for the far end's acknowledgement.
    drop(splice.local);
    if matches!(end, CloseReason::Finished) {
        delivered(&splice.stream, splice.guard).await;
    }
    splice.stream.reset_on_drop(end.stream_code());
    end
}

struct Splice<'g, S: LocalStream> {
    local: LocalEnd<S>,
    stream: TunnelStream,
    guard: &'g mut TunnelGuard,
    from_socket: Direction,
    idle: Option<Idle>,
    liveness: Option<Pin<Box<Sleep>>>,
    inbound: Inbound,
    outbound: Outbound,
    interactive: InteractiveDetector,
}

// === impl Splice ===

impl<S: LocalStream> Splice<'_, S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        if let Some(code) = self.guard.poll_abort(cx) {
            return Poll::Ready(CloseReason::Aborted(code));
        }
        let inbound = self.poll_inbound(cx);
        if let Poll::Ready(Err(end)) = inbound {
            return Poll::Ready(end);
        }
        let outbound = self.poll_outbound(cx);
        if let Poll::Ready(Err(end)) = outbound {
            return Poll::Ready(end);
        }
        if inbound.is_ready() && outbound.is_ready() {
            return Poll::Ready(match self.inbound.stopped {
                None => CloseReason::Finished,
                Some(code) => CloseReason::FarReset(code),
            });
        }
        let half = inbound.is_ready() || outbound.is_ready();
        let stalled = !self.inbound.pending.is_empty() || !self.outbound.pending.is_empty();
        if (half || stalled)
            && let Poll::Ready(end) = self.poll_liveness(cx)
        {
            return Poll::Ready(end);
        }
        let bytes = self.guard.stats();
        let moved = bytes.to_target + bytes.to_client;
        match &mut self.idle {
            Some(idle) => idle
                .poll(cx, moved)
                .map(|()| CloseReason::Aborted(StreamCode::Idle)),
            None => Poll::Pending,
        }
    }

    /// Socket → stream, until the socket has no more, the stream takes no more, or its rounds are used up.
    fn poll_inbound(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CloseReason>> {
        for _ in 0..ROUNDS {
            if !self.inbound.pending.is_empty() {
                match ready!(self.stream.poll_send(cx, &mut self.inbound.pending)) {
                    Ok(sent) => {
                        self.count_inbound(sent);
                    }
                    Err(error) => return Poll::Ready(self.inbound_failed(error)),
                }
                continue;
            }
            match self.inbound.state {
                Half::Open => {
                    ready!(self.poll_read_socket(cx)).map_err(CloseReason::SocketReset)?
                }
                Half::Ending => {
                    self.stream.finish();
                    self.inbound.state = Half::Closed;
                }
                Half::Closed => return Poll::Ready(Ok(())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// One read from the socket; what it brought is pending then.
    fn poll_read_socket(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        BUFFER.with_borrow_mut(|buffer| {
            buffer.reserve(READ_BUFFER);
            let read = ready!(poll_read_buf(Pin::new(&mut self.local.stream), cx, buffer))?;
            if read == 0 {
                self.inbound.state = Half::Ending;
            } else if read >= ZERO_COPY_MIN {
                self.inbound.pending = buffer.split().freeze();
            } else {
                self.inbound.pending = Bytes::copy_from_slice(buffer);
                buffer.clear();
                self.note_read(true);
            }
            Poll::Ready(Ok(()))
        })
    }

    /// A far end that only stops taking bytes may have an answer in flight: deliver that first.
    fn inbound_failed(&mut self, error: StreamError) -> Result<(), CloseReason> {
        match error {
            StreamError::Stopped(code) => {
                self.inbound.stopped = Some(code);
                self.inbound.pending = Bytes::new();
                self.inbound.state = Half::Closed;
                Ok(())
            }
            other => Err(other.into()),
        }
    }

    /// Stream → socket, until the stream has no more, the socket takes no more, or its rounds are used up.
    fn poll_outbound(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CloseReason>> {
        for _ in 0..ROUNDS {
            if !self.outbound.pending.is_empty() {
                let mut pending = std::mem::take(&mut self.outbound.pending);
                let written = self.poll_write_socket(cx, &mut pending);
                pending.retain(|chunk| !chunk.is_empty());
                if written.is_pending() {
                    self.outbound.pending = pending;
                }
                ready!(written).map_err(CloseReason::SocketReset)?;
            }
            match self.outbound.state {
                Half::Open => {
                    let mut slots = [const { Bytes::new() }; SLOTS];
                    match self.stream.poll_chunks(cx, &mut slots) {
                        Poll::Ready(Ok(Some(taken))) => {
                            self.note_read(false);
                            ready!(self.write_through(cx, &mut slots[..taken]))?;
                        }
                        Poll::Ready(Ok(None)) => self.outbound.state = Half::Ending,
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                        Poll::Pending => {
                            ready!(self.poll_flush_socket(cx)).map_err(CloseReason::SocketReset)?;
                            return Poll::Pending;
                        }
                    }
                }
                Half::Ending => {
                    ready!(Pin::new(&mut self.local.stream).poll_shutdown(cx))
                        .map_err(CloseReason::SocketReset)?;
                    self.outbound.state = Half::Closed;
                    self.local.ended();
                }
                Half::Closed => return Poll::Ready(Ok(())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes fresh chunks; only what the socket does not take moves to the heap.
    fn write_through(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &mut [Bytes],
    ) -> Poll<Result<(), CloseReason>> {
        let written = self.poll_write_socket(cx, chunks);
        if written.is_pending() {
            let rest = chunks.iter_mut().filter(|chunk| !chunk.is_empty());
            self.outbound.pending = rest.map(std::mem::take).collect();
        }
        written.map_err(CloseReason::SocketReset)
    }

    /// Writes all of `chunks`, emptying them as they go; notes when the socket takes nothing.
    fn poll_write_socket(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &mut [Bytes],
    ) -> Poll<io::Result<()>> {
        let mut first = 0;
        while first < chunks.len() {
            let mut slices = [IoSlice::new(&[]); SLOTS];
            let rest = chunks[first..].iter().take(SLOTS);
            let used = rest.len();
            for (slice, chunk) in slices.iter_mut().zip(rest) {
                *slice = IoSlice::new(chunk);
            }
            let written =
                match Pin::new(&mut self.local.stream).poll_write_vectored(cx, &slices[..used]) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(written) => written?,
                    Poll::Pending => {
                        self.guard.stall();
                        return Poll::Pending;
                    }
                };
            self.outbound.unflushed = true;
            self.guard
                .count(self.from_socket.opposite(), count(written));
            first += advance(&mut chunks[first..], written);
        }
        self.guard.unstall();
        Poll::Ready(Ok(()))
    }

    fn poll_flush_socket(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.outbound.unflushed {
            ready!(Pin::new(&mut self.local.stream).poll_flush(cx))?;
            self.outbound.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// An end is not read while the other takes nothing, nor after its end of file, so no read reports
    /// that it was reset: check from time to time.
    fn poll_liveness(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let timer = self
            .liveness
            .get_or_insert_with(|| Box::pin(sleep(LIVENESS_INTERVAL)));
        while timer.as_mut().poll(cx).is_ready() {
            if let Some(error) = self.local.stream.failure() {
                return Poll::Ready(CloseReason::SocketReset(error));
            }
            let far = match self.outbound.state {
                // All that it can still report is that it takes no more.
                Half::Closed => match self.stream.poll_send(cx, &mut Bytes::new()) {
                    Poll::Ready(sent) => sent.err(),
                    Poll::Pending => None,
                },
                _ if self.outbound.pending.is_empty() => None,
                _ => self.stream.received_reset(),
            };
            if let Some(error) = far {
                return Poll::Ready(error.into());
            }
            timer.as_mut().reset(Instant::now() + LIVENESS_INTERVAL);
        }
        Poll::Pending
    }

    fn note_read(&mut self, from_socket: bool) {
        if self.interactive.note_read(from_socket) {
            self.guard.note_message();
        }
    }

    fn count_inbound(&mut self, sent: usize) {
        self.guard.count(self.from_socket, count(sent));
    }
}

/// Until the far end has all that was sent: a session that drains is closed with its last tunnel,
/// and QUIC drops what is still on its way then.
async fn delivered(stream: &TunnelStream, guard: &TunnelGuard) {
    let mut delivered = stream.stopped();
    poll_fn(|cx| match guard.poll_abort(cx) {
        Some(_) => Poll::Ready(()),
        None => delivered.as_mut().poll(cx),
    })
    .await;
}

/// Takes `written` bytes off the front of `chunks`; returns how many chunks are empty now.
fn advance(chunks: &mut [Bytes], mut written: usize) -> usize {
    for (index, chunk) in chunks.iter_mut().enumerate() {
        if written < chunk.len() {
            chunk.advance(written);
            return index;
        }
        written -= chunk.len();
        *chunk = Bytes::new();
    }
    chunks.len()
}

fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).expect("a usize fits into 64 bits")
}

#[cfg(test)]
mod tests;
