//! When to stop: the first SIGTERM or SIGINT asks for it, a second one ends the process at once.

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

/// The one request to stop, from whomever it comes; clones share it.
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
    /// A shutdown that only [`Shutdown::trigger`] requests.
    pub fn new() -> Self {
        Self::default()
    }

    /// Listens for SIGTERM and SIGINT from now on, until the last clone is dropped; the first
    /// triggers, a second flushes the log and exits with [`ABORTED`]. More calls change nothing.
    ///
    /// The signals have a thread of their own, so that a shard that is stuck can be aborted too.
    ///
    /// # Errors
    /// When the thread or the signal handlers cannot be set up.
    pub fn on_signals(&self) -> io::Result<()> {
        let mut signals = self.signals.lock().unwrap_or_else(PoisonError::into_inner);
        if signals.is_none() {
            let requested = self.requested.clone();
            let setup = || Ok(obey(Signals::install()?, requested));
            *signals = Some(BackgroundRuntime::start("signals", setup)?);
        }
        Ok(())
    }

    /// Requests the shutdown; more calls change nothing.
    pub fn trigger(&self) {
        self.requested.cancel();
    }

    /// Returns once the shutdown is requested.
    pub async fn requested(&self) {
        self.requested.cancelled().await;
    }

    /// Is cancelled when the shutdown is requested. A child token is the way to stop one part:
    /// cancelling this very token requests the shutdown.
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

/// What the signal thread does.
async fn obey(mut signals: Signals, requested: CancellationToken) {
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
