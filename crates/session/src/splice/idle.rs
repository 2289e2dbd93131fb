//! How long a tunnel may be silent.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// The idle limit of one tunnel.
pub(super) struct Idle {
    limit: Duration,
    moved: u64,
    timer: Pin<Box<Sleep>>,
}

// === impl Idle ===

impl Idle {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            moved: 0,
            timer: Box::pin(sleep(limit)),
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>, moved: u64) -> Poll<()> {
        if moved != self.moved {
            self.moved = moved;
            self.timer.as_mut().reset(Instant::now() + self.limit);
        }
        self.timer.as_mut().poll(cx)
    }
}
