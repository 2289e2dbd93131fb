//! One direction of a stream: a bounded queue of chunks and how it ended.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use towline_protocol::code::StreamCode;
use towline_protocol::failure::StreamError;

/// The state of one direction; both ends share it under a lock.
#[derive(Debug)]
pub(super) struct Half {
    chunks: VecDeque<Bytes>,
    free: usize,
    /// The sender has finished: what is queued is followed by the end of file.
    finished: bool,
    reset: Option<StreamCode>,
    stopped: Option<StreamCode>,
    lost: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// The task that waits for a stop, or for the reader to have all of a finished half.
    ended: Option<Waker>,
}

// === impl Half ===

impl Half {
    pub(super) fn new(buffer: usize) -> Self {
        Self {
            chunks: VecDeque::new(),
            free: buffer,
            finished: false,
            reset: None,
            stopped: None,
            lost: false,
            reader: None,
            writer: None,
            ended: None,
        }
    }

    pub(super) fn poll_send(
        &mut self,
        cx: &Context<'_>,
        bytes: &mut Bytes,
    ) -> Poll<Result<usize, StreamError>> {
        if self.lost {
            return Poll::Ready(Err(StreamError::SessionLost));
        }
        if let Some(code) = self.stopped {
            return Poll::Ready(Err(StreamError::Stopped(code)));
        }
        if self.finished || self.reset.is_some() {
            return Poll::Ready(Err(StreamError::Closed));
        }
        let taken = bytes.len().min(self.free);
        if taken == 0 && !bytes.is_empty() {
            self.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if taken > 0 {
            self.free -= taken;
            self.chunks.push_back(bytes.split_to(taken));
            wake(&mut self.reader);
        }
        Poll::Ready(Ok(taken))
    }

    pub(super) fn poll_chunks(
        &mut self,
        cx: &Context<'_>,
        slots: &mut [Bytes],
    ) -> Poll<Result<Option<usize>, StreamError>> {
        if self.lost {
            return Poll::Ready(Err(StreamError::SessionLost));
        }
        if let Some(code) = self.reset {
            return Poll::Ready(Err(StreamError::Reset(code)));
        }
        if self.stopped.is_some() {
            return Poll::Ready(Err(StreamError::Closed));
        }
        let mut taken = 0;
        while taken < slots.len()
            && let Some(chunk) = self.chunks.pop_front()
        {
            self.free += chunk.remaining();
            slots[taken] = chunk;
            taken += 1;
        }
        if taken > 0 {
            wake(&mut self.writer);
            return Poll::Ready(Ok(Some(taken)));
        }
        if self.finished {
            self.wake_ended();
            return Poll::Ready(Ok(None));
        }
        self.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Says whether the half was still open.
    pub(super) fn finish(&mut self) -> bool {
        // A half that the peer has stopped counts as open, as in QUIC.
        let open = !self.lost && !self.finished && self.reset.is_none();
        if open {
            self.finished = true;
            wake(&mut self.reader);
        }
        open
    }

    pub(super) fn reset(&mut self, code: StreamCode) {
        if self.reset.is_none() && !self.is_delivered() {
            self.reset = Some(code);
            self.chunks.clear();
            wake(&mut self.reader);
            self.wake_ended();
        }
    }

    pub(super) fn stop(&mut self, code: StreamCode) {
        if self.stopped.is_none() && !self.is_delivered() {
            self.stopped = Some(code);
            self.chunks.clear();
            wake(&mut self.writer);
            self.wake_ended();
        }
    }

    pub(super) fn lose(&mut self) {
        self.lost = true;
        self.chunks.clear();
        wake(&mut self.reader);
        wake(&mut self.writer);
        self.wake_ended();
    }

    pub(super) fn received_reset(&self) -> Option<StreamError> {
        match self.reset {
            _ if self.lost => Some(StreamError::SessionLost),
            code => code.map(StreamError::Reset),
        }
    }

    /// Ready once the reader has stopped the half or has read all of it, or the session is lost.
    pub(super) fn poll_ended(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.lost || self.stopped.is_some() || self.reset.is_some() || self.is_delivered() {
            return Poll::Ready(());
        }
        self.ended = Some(cx.waker().clone());
        Poll::Pending
    }

    fn is_delivered(&self) -> bool {
        self.finished && self.chunks.is_empty()
    }

    fn wake_ended(&mut self) {
        wake(&mut self.ended);
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}
