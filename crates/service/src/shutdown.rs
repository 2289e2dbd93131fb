//! Shutdown: the first SIGTERM or SIGINT requests it, the second ends the process at once.

mod drain;

use std::io;
use std::process;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use self::drain::{Drain, DrainWatch};
use crate::background_runtime::BackgroundRuntime;
use crate::telemetry;

/// The exit status of a process that a second signal ended, as if by an uncaught SIGINT.
pub const ABORTED: i32 = 130;

/// The request to shut down, from a signal or from the program; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    requested: CancellationToken,
    signals: Arc<Mutex<Option<BackgroundRuntime>>>,
}

/// The two signals that ask a daemon to stop.
#[derive(Debug)]
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

// === impl Shutdown ===

impl Shutdown {
    /// A shutdown that only [`Shutdown::trigger`] requests, until [`Shutdown::on_signals`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Handles SIGTERM and SIGINT from now on, until the last clone is dropped: the first signal
    /// requests the shutdown, the second flushes the log and exits with [`ABORTED`]. More calls
    /// change nothing.
    ///
    /// Signals are handled on their own thread, so that a stuck shard can be aborted too.
    ///
    /// # Errors
    /// When the thread or the signal handlers cannot be set up.
    pub fn on_signals(&self) -> io::Result<()> {
        let mut signals = self.signals.lock().unwrap_or_else(PoisonError::into_inner);
        if signals.is_none() {
            let requested = self.requested.clone();
            let setup = || Ok(handle(Signals::install()?, requested));
            *signals = Some(BackgroundRuntime::start("signals", setup)?);
        }
        Ok(())
    }

    /// Requests the shutdown; more calls change nothing.
    pub fn trigger(&self) {
        self.requested.cancel();
    }

    /// Returns once the shutdown is requested. Cancel-safe.
    pub async fn requested(&self) {
        self.requested.cancelled().await;
    }

    /// A token that is cancelled when the shutdown is requested. Cancelling this token requests the
    /// shutdown; to stop one part alone, cancel a child token.
    pub fn token(&self) -> CancellationToken {
        self.requested.clone()
    }
}

// === impl Signals ===

impl Signals {
    /// Replaces the default action, which would end the process.
    fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Requests the shutdown at the first signal and exits at the second.
async fn handle(mut signals: Signals, requested: CancellationToken) {
    let first = signals.next().await;
    info!("received {first}, shutting down; a second signal aborts");
    requested.cancel();
    let second = signals.next().await;
    warn!("received {second} while shutting down, aborting");
    telemetry::flush();
    process::exit(ABORTED);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_trigger_reaches_every_clone_and_every_token() {
        let shutdown = Shutdown::new();
        let (clone, token) = (shutdown.clone(), shutdown.token());
        assert!(!token.is_cancelled());
        shutdown.trigger();
        shutdown.trigger();
        clone.requested().await;
        assert!(token.is_cancelled());
    }
}
