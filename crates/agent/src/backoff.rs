//! How long to wait before the next attempt: doubling, jittered, bounded; no clock, no sleep.
//!
//! The whole range is random, so that the agents of a server that restarts do not come back in
//! step, but never below the floor, so that no draw makes a tight loop.

use std::time::Duration;

/// A sequence of delays: the n-th is drawn evenly from `floor ..= min(cap, floor · 2ⁿ)`, n from 1.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    floor: Duration,
    cap: Duration,
    ceiling: Duration,
}

// === impl Backoff ===

impl Backoff {
    /// Shortest delay of the default.
    pub(crate) const FLOOR: Duration = Duration::from_millis(100);
    /// Longest delay of the default.
    pub(crate) const CAP: Duration = Duration::from_secs(10);

    /// Delays between `floor` and `cap`; a floor above the cap is lowered to it.
    #[must_use]
    pub(crate) fn new(floor: Duration, cap: Duration) -> Self {
        let floor = floor.min(cap);
        Self {
            floor,
            cap,
            ceiling: floor,
        }
    }

    /// The delay before the next attempt; each call doubles the range until it meets the cap.
    pub(crate) fn next_delay(&mut self, random: &mut fastrand::Rng) -> Duration {
        self.ceiling = self.ceiling.saturating_mul(2).min(self.cap);
        let micros = |delay: Duration| u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(random.u64(micros(self.floor)..=micros(self.ceiling)))
    }

    /// Starts over. Call it after a session that lasted, not after each that was established.
    pub(crate) fn reset(&mut self) {
        self.ceiling = self.floor;
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(Self::FLOOR, Self::CAP)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The longest of many first, second, … delays.
    fn longest(attempts: usize) -> Vec<u128> {
        let mut random = fastrand::Rng::with_seed(7);
        let mut longest = vec![Duration::ZERO; attempts];
        for _ in 0..2000 {
            let mut backoff = Backoff::default();
            for slot in &mut longest {
                *slot = backoff.next_delay(&mut random).max(*slot);
            }
        }
        longest.iter().map(Duration::as_millis).collect()
    }

    #[test]
    fn doubles_up_to_the_cap() {
        let ceilings = [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000];
        for (seen, ceiling) in longest(ceilings.len()).into_iter().zip(ceilings) {
            assert!(
                seen <= ceiling && seen > ceiling * 9 / 10,
                "{seen} {ceiling}"
            );
        }
    }

    #[test]
    fn reset_starts_over() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut backoff = Backoff::default();
        for _ in 0..10 {
            backoff.next_delay(&mut random);
        }
        backoff.reset();
        assert!(backoff.next_delay(&mut random) <= 2 * Backoff::FLOOR);
    }

    #[test]
    fn delays_are_spread() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut below = 0;
        for _ in 0..1000 {
            let delay = Backoff::default().next_delay(&mut random);
            below += usize::from(delay < Backoff::FLOOR * 3 / 2);
        }
        assert!((400..600).contains(&below), "{below}");
    }

    proptest! {
        #[test]
        fn stays_within_its_bounds(floor in 0..20_000_u64, cap in 0..20_000_u64, seed: u64) {
            let mut random = fastrand::Rng::with_seed(seed);
            let (floor, cap) = (Duration::from_millis(floor), Duration::from_millis(cap));
            let mut backoff = Backoff::new(floor, cap);
            for _ in 0..20 {
                let delay = backoff.next_delay(&mut random);
                prop_assert!(delay >= floor.min(cap) && delay <= cap);
            }
        }

        #[test]
        fn any_bounds_are_valid(floor: Duration, cap: Duration, seed: u64) {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut backoff = Backoff::new(floor, cap);
            for _ in 0..100 {
                prop_assert!(backoff.next_delay(&mut random) <= cap);
            }
        }
    }
}
