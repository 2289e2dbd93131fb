//! How a tunnel is told to end.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use towline_protocol::code::StreamCode;

/// The way in which a tunnel is told to end.
#[derive(Default)]
pub(super) struct Abort {
    /// Zero until the tunnel is told to end; then a [`StreamCode`] on the wire plus one.
    code: AtomicU32,
    waker: Mutex<Option<Waker>>,
}

// === impl Abort ===

impl Abort {
    /// Tells the tunnel to end with `code`.
    pub(super) fn set(&self, code: StreamCode) {
        self.code
            .store(u32::from(code).saturating_add(1), Ordering::Release);
        if let Some(waker) = self.waker().take() {
            waker.wake();
        }
    }

    /// The code once the tunnel was told to end; else the task is woken when it is told.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Option<StreamCode> {
        let mut waker = self.waker();
        if let Some(wire) = self.code.load(Ordering::Acquire).checked_sub(1) {
            return Some(StreamCode::from_wire(wire.into()));
        }
        match &*waker {
            Some(known) if known.will_wake(cx.waker()) => {}
            _ => *waker = Some(cx.waker().clone()),
        }
        None
    }

    fn waker(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
