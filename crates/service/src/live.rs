//! Values that change while the process runs: one immutable snapshot, replaced as a whole.
//!
//! A request calls [`Live::load`] once and works with that snapshot to its end. A [`Watcher`] owns
//! the replacement: it reads the files that a [`Source`] names, parses and checks all of them, and
//! only then replaces the snapshot. When anything fails, the last good snapshot stays.

mod files;
mod watcher;

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

pub use self::files::{MAX_FILE, Source, SourceError, SourceFile};
pub use self::watcher::{MIN_INTERVAL, ReloadHandle, ReloadReport, Watcher};

/// The current snapshot of a `T`; clones share it.
pub struct Live<T> {
    // One read lock, which is held for the clone of an `Arc`: some 20 ns, as much as an atomic
    // pointer needs, and the same channel tells subscribers of a swap.
    current: Arc<watch::Sender<Arc<T>>>,
}

/// The swaps of a [`Live`], for a part that has to act on each, as a QUIC endpoint does.
pub struct Updates<T> {
    receiver: watch::Receiver<Arc<T>>,
}

// === impl Live ===

impl<T> Live<T> {
    /// A snapshot without a watcher: it never changes.
    pub fn fixed(value: T) -> Self {
        Self {
            current: Arc::new(watch::Sender::new(Arc::new(value))),
        }
    }

    /// The current snapshot. It stays as it is, and in memory, while the caller holds it.
    pub fn load(&self) -> Arc<T> {
        Arc::clone(&self.current.borrow())
    }

    /// The swaps from now on; the current snapshot is not among them.
    pub fn subscribe(&self) -> Updates<T> {
        Updates {
            receiver: self.current.subscribe(),
        }
    }

    /// Replaces the snapshot for all later calls of `load`, and tells the subscribers.
    fn swap(&self, value: T) {
        // The last holder of the earlier snapshot drops it, here outside of the lock.
        drop(self.current.send_replace(Arc::new(value)));
    }
}

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        Self {
            current: Arc::clone(&self.current),
        }
    }
}

impl<T> fmt::Debug for Live<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the value, which may hold keys.
        formatter.debug_struct("Live").finish_non_exhaustive()
    }
}

// === impl Updates ===

impl<T> Updates<T> {
    /// Waits for a swap that this subscriber has not seen, and returns the snapshot; swaps that
    /// follow each other quickly are one. `None` once no clone of the [`Live`] is left.
    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<Arc<T>> {
        self.receiver.changed().await.ok()?;
        Some(Arc::clone(&self.receiver.borrow_and_update()))
    }
}

impl<T> fmt::Debug for Updates<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Updates").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
