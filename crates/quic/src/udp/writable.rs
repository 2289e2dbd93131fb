//! Waiting until a UDP socket is writable.

use std::fmt;
use std::io;
use std::net;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use quinn::UdpPoller;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Sleep, sleep};

use crate::udp::{UdpSocket, watch};

/// How long to wait before the next attempt where the system cannot be asked.
const RETRY: Duration = Duration::from_millis(1);

/// Waits until the socket is writable; every connection has one of its own.
pub(super) struct WriteReadiness {
    pub(super) socket: Arc<UdpSocket>,
    pub(super) wait: Option<Wait>,
}

/// How writability is awaited.
pub(super) enum Wait {
    /// By a second descriptor of the socket.
    Ready(AsyncFd<net::UdpSocket>),
    /// By trying again, in a process that is out of descriptors.
    Retry(Pin<Box<Sleep>>),
}

// === impl WriteReadiness ===

impl WriteReadiness {
    pub(super) fn new(socket: Arc<UdpSocket>) -> Self {
        Self { socket, wait: None }
    }
}

impl UdpPoller for WriteReadiness {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Called before every send: while the last one left the buffer writable, try.
        if !this.socket.full.load(Ordering::Relaxed) {
            this.wait = None;
            return Poll::Ready(Ok(()));
        }
        let wait = this.wait.get_or_insert_with(|| Wait::start(&this.socket));
        let writable = ready!(match wait {
            Wait::Ready(writable) => writable.poll_write_ready(cx).map_ok(drop),
            Wait::Retry(timer) => timer.as_mut().poll(cx).map(Ok),
        });
        this.wait = None;
        this.socket.full.store(false, Ordering::Relaxed);
        Poll::Ready(writable)
    }
}

impl fmt::Debug for WriteReadiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteReadiness")
            .field("waiting", &self.wait.is_some())
            .finish_non_exhaustive()
    }
}

// === impl Wait ===

impl Wait {
    fn start(socket: &UdpSocket) -> Self {
        let clone = socket.io.get_ref().try_clone();
        match clone.and_then(|clone| watch(clone, Interest::WRITABLE)) {
            Ok(writable) => Self::Ready(writable),
            // An error would cost the session.
            Err(_out_of_descriptors) => Self::retry(),
        }
    }

    pub(super) fn retry() -> Self {
        Self::Retry(Box::pin(sleep(RETRY)))
    }
}
