//! How much was on its way of late: a window that is not used proves nothing of the path.

use std::time::{Duration, Instant};

/// After so long without use, a window is not relied on; single spells of use count for twice that.
const UNUSED_FOR: Duration = Duration::from_secs(10);

/// The largest flights of this spell and of the one before, in bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Usage {
    flights: [u64; 2],
    spell: Option<Instant>,
    latest: Option<Instant>,
}

// === impl Usage ===

impl Usage {
    /// So many bytes were on their way before an acknowledgement.
    pub(super) fn on_flight(&mut self, now: Instant, bytes: u64) {
        self.forget(now);
        self.flights[0] = self.flights[0].max(bytes);
        self.latest = Some(now);
    }

    /// What becomes of a window that was hardly used for a while; none if it was, or is small.
    ///
    /// A quarter is enough use: requests of different sizes follow each other.
    pub(super) fn shrinks_to(&mut self, now: Instant, window: u64, initial: u64) -> Option<u64> {
        self.latest?;
        self.forget(now);
        let most = self.flights[0].max(self.flights[1]);
        let kept = initial.max(2 * most);
        (most < window / 4 && kept < window).then_some(kept)
    }

    fn forget(&mut self, now: Instant) {
        let spell = *self.spell.get_or_insert(now);
        let silent = |latest| now.saturating_duration_since(latest) > UNUSED_FOR;
        if self.latest.is_some_and(silent) {
            self.flights = [0, 0];
            self.spell = Some(now);
        } else if now.saturating_duration_since(spell) > UNUSED_FOR {
            self.flights = [0, self.flights[0]];
            self.spell = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_holds_as_long_as_a_quarter_is_used() {
        let start = Instant::now();
        let mut usage = Usage::default();
        assert_eq!(usage.shrinks_to(start, 1000, 10), None);
        for second in 0..60 {
            let now = start + Duration::from_secs(second);
            usage.on_flight(now, if second % 10 == 0 { 250 } else { 1 });
            assert_eq!(usage.shrinks_to(now, 1000, 10), None, "{second} s");
        }
    }

    #[test]
    fn what_is_kept_is_twice_what_was_used_and_the_initial_window() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut usage = Usage::default();
        usage.on_flight(start, 1000);
        assert_eq!(usage.shrinks_to(at(10), 1000, 10), None);
        assert_eq!(usage.clone().shrinks_to(at(11), 1000, 10), Some(10));
        for second in 1..=22 {
            usage.on_flight(at(second), 100);
        }
        assert_eq!(usage.clone().shrinks_to(at(22), 1000, 10), Some(200));
        assert_eq!(usage.clone().shrinks_to(at(22), 1000, 300), Some(300));
        assert_eq!(usage.shrinks_to(at(22), 300, 300), None);
    }
}
