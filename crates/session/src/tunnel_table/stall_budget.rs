//! What bounds the memory that stalled readers pin: each counts as one stream window, and all
//! together may pin a budget.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::tunnel_table::abort::Abort;

/// The tunnels whose local reader takes nothing now.
#[derive(Default)]
pub(super) struct StallBudget {
    /// Bytes that one stalled tunnel pins.
    window: u64,
    /// Bytes that all of them may pin.
    budget: u64,
    next: u64,
    /// In the order in which they stalled: the key counts up.
    stalled: BTreeMap<u64, Arc<Abort>>,
}

// === impl StallBudget ===

impl StallBudget {
    pub(super) fn new(window: u64, budget: u64) -> Self {
        Self {
            window,
            budget,
            ..Self::default()
        }
    }

    /// How many tunnels are stalled.
    pub(super) fn len(&self) -> usize {
        self.stalled.len()
    }

    /// Adds a tunnel; returns its key and, when the budget is exceeded, the tunnel that has been
    /// stalled longest, which no longer counts.
    pub(super) fn stall(&mut self, tunnel: &Arc<Abort>) -> (u64, Option<Arc<Abort>>) {
        self.next += 1;
        self.stalled.insert(self.next, Arc::clone(tunnel));
        let pinned = u64::try_from(self.stalled.len())
            .unwrap_or(u64::MAX)
            .saturating_mul(self.window);
        let victim = (pinned > self.budget)
            .then(|| self.stalled.pop_first())
            .flatten();
        (self.next, victim.map(|(_, tunnel)| tunnel))
    }

    /// Removes a tunnel whose reader takes bytes again, or that has ended.
    pub(super) fn unstall(&mut self, key: u64) {
        self.stalled.remove(&key);
    }
}
