//! Readiness of the process: it is ready when every part that holds a latch is ready.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The latches of one process; clones share them. Without a latch the process is ready.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    waiting: Arc<Mutex<Waiting>>,
}

/// The readiness of one part of the program; a dropped latch no longer counts.
#[derive(Debug)]
#[must_use = "a dropped latch no longer counts"]
pub struct Latch {
    id: u64,
    name: &'static str,
    waiting: Arc<Mutex<Waiting>>,
}

/// The latches that are not ready, in the order in which they were made.
#[derive(Debug, Default)]
struct Waiting {
    latches: u64,
    reasons: BTreeMap<u64, (&'static str, String)>,
}

// === impl Readiness ===

impl Readiness {
    /// A process without latches, which is ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a latch that is not ready, for this reason, until [`Latch::ready`] is called.
    ///
    /// Latches may share a name (of two listeners, for example); each counts.
    pub fn latch(&self, name: &'static str, reason: impl Into<String>) -> Latch {
        let id = {
            let mut waiting = lock(&self.waiting);
            waiting.latches += 1;
            waiting.latches
        };
        let latch = Latch {
            id,
            name,
            waiting: Arc::clone(&self.waiting),
        };
        latch.not_ready(reason);
        latch
    }

    /// Whether every latch is ready.
    ///
    /// # Errors
    /// One `name: reason` line for each latch that is not, oldest first.
    pub fn state(&self) -> Result<(), Vec<String>> {
        let waiting = lock(&self.waiting);
        if waiting.reasons.is_empty() {
            return Ok(());
        }
        let lines = waiting.reasons.values();
        Err(lines
            .map(|(name, reason)| format!("{name}: {reason}"))
            .collect())
    }
}

// === impl Latch ===

impl Latch {
    /// Marks this part as ready.
    pub fn ready(&self) {
        lock(&self.waiting).reasons.remove(&self.id);
    }

    /// Marks this part as not ready; the reason replaces an earlier one.
    pub fn not_ready(&self, reason: impl Into<String>) {
        let reason = reason.into();
        let mut waiting = lock(&self.waiting);
        waiting.reasons.insert(self.id, (self.name, reason));
    }
}

impl Drop for Latch {
    fn drop(&mut self) {
        self.ready();
    }
}

/// Every change under this lock is a single insert or remove, so a panic leaves it consistent.
fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(expected: &[&str]) -> Result<(), Vec<String>> {
        Err(expected.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn is_ready_without_latches_and_not_before_the_last_latch() {
        let readiness = Readiness::new();
        assert_eq!(readiness.state(), Ok(()));
        let listener = readiness.latch("listener", "not bound");
        let session = readiness.latch("session", "no server reached");
        let both = lines(&["listener: not bound", "session: no server reached"]);
        assert_eq!(readiness.state(), both);
        listener.ready();
        assert_eq!(readiness.state(), lines(&["session: no server reached"]));
        session.ready();
        assert_eq!(readiness.state(), Ok(()));
    }

    #[test]
    fn a_latch_can_fall_back_and_its_latest_reason_counts() {
        let readiness = Readiness::new();
        let session = readiness.latch("session", "starting");
        session.ready();
        session.not_ready("lost");
        session.not_ready("draining");
        assert_eq!(readiness.state(), lines(&["session: draining"]));
    }

    #[test]
    fn a_dropped_latch_takes_only_its_own_reason_along() {
        let readiness = Readiness::new();
        let first = readiness.latch("session", "first");
        let _second = readiness.clone().latch("session", "second");
        drop(first);
        assert_eq!(readiness.state(), lines(&["session: second"]));
    }
}
