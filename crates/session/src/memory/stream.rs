//! One end of a stream within the process.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use towline_protocol::code::StreamCode;
use towline_protocol::failure::StreamError;

use crate::memory::half::Half;
use crate::transport::{BoxFuture, StreamIo};

/// One end of a stream.
#[derive(Debug)]
pub(super) struct MemoryStream {
    outgoing: Arc<Mutex<Half>>,
    incoming: Arc<Mutex<Half>>,
}

/// A stream that a close ends, while one of its ends lives.
#[derive(Debug)]
pub(super) struct Weak([std::sync::Weak<Mutex<Half>>; 2]);

/// Both ends of a stream that buffers so many bytes each way.
pub(super) fn pair(buffer: usize) -> (MemoryStream, MemoryStream) {
    let half = || Arc::new(Mutex::new(Half::new(buffer)));
    let (one, other) = (half(), half());
    let first = MemoryStream {
        outgoing: Arc::clone(&one),
        incoming: Arc::clone(&other),
    };
    let second = MemoryStream {
        outgoing: other,
        incoming: one,
    };
    (first, second)
}

// === impl MemoryStream ===

impl MemoryStream {
    pub(super) fn downgrade(&self) -> Weak {
        Weak([
            Arc::downgrade(&self.outgoing),
            Arc::downgrade(&self.incoming),
        ])
    }
}

impl StreamIo for MemoryStream {
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &mut Bytes,
    ) -> Poll<Result<usize, StreamError>> {
        lock(&self.outgoing).poll_send(cx, bytes)
    }

    fn poll_chunks(
        &mut self,
        cx: &mut Context<'_>,
        slots: &mut [Bytes],
    ) -> Poll<Result<Option<usize>, StreamError>> {
        lock(&self.incoming).poll_chunks(cx, slots)
    }

    fn finish(&mut self) -> bool {
        lock(&self.outgoing).finish()
    }

    fn reset(&mut self, code: StreamCode) {
        lock(&self.outgoing).reset(code);
    }

    fn stop(&mut self, code: StreamCode) {
        lock(&self.incoming).stop(code);
    }

    fn received_reset(&mut self) -> Option<StreamError> {
        lock(&self.incoming).received_reset()
    }

    fn stopped(&self) -> BoxFuture<'static, ()> {
        let outgoing = Arc::clone(&self.outgoing);
        Box::pin(poll_fn(move |cx| lock(&outgoing).poll_ended(cx)))
    }
}

// === impl Weak ===

impl Weak {
    pub(super) fn is_live(&self) -> bool {
        self.0.iter().any(|half| half.strong_count() > 0)
    }

    /// The session has ended, and the stream with it.
    pub(super) fn lose(&self) {
        for half in self.0.iter().filter_map(std::sync::Weak::upgrade) {
            lock(&half).lose();
        }
    }
}

/// Every change under this lock is complete when it is released.
fn lock(half: &Mutex<Half>) -> MutexGuard<'_, Half> {
    half.lock().unwrap_or_else(PoisonError::into_inner)
}
