//! Validation of the window: how much of it was in flight recently (compare RFC 7661).

use std::time::{Duration, Instant};

/// Length of the intervals over which the maximum in flight is taken. After as long a silence,
/// none of it counts.
const USAGE_INTERVAL: Duration = Duration::from_secs(10);

/// Part of the window that has to be used to keep it, as a divisor.
const USED_DIVISOR: u64 = 4;

/// The reduced window, as a multiple of the maximum in flight.
const KEPT_FACTOR: u64 = 2;

/// Maximum in flight of the present interval and of the one before, in bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Usage {
    max_in_flight: [u64; 2],
    interval_start: Option<Instant>,
    latest: Option<Instant>,
}

// === impl Usage ===

impl Usage {
    /// Takes the bytes that were in flight before an acknowledgement.
    pub(super) fn on_in_flight(&mut self, now: Instant, bytes: u64) {
        self.rotate(now);
        self.max_in_flight[0] = self.max_in_flight[0].max(bytes);
        self.latest = Some(now);
    }

    /// The window to reduce `window` to, not below `initial`; none if enough of it was used or it
    /// is small already. All in bytes.
    ///
    /// The use of a quarter is enough, because requests of different sizes follow each other.
    pub(super) fn reduced_window(
        &mut self,
        now: Instant,
        window: u64,
        initial: u64,
    ) -> Option<u64> {
        self.latest?;
        self.rotate(now);
        let in_flight = self.max_in_flight[0].max(self.max_in_flight[1]);
        let reduced = initial.max(KEPT_FACTOR * in_flight);
        (in_flight < window / USED_DIVISOR && reduced < window).then_some(reduced)
    }

    fn rotate(&mut self, now: Instant) {
        let interval_start = *self.interval_start.get_or_insert(now);
        let idle = |latest| now.saturating_duration_since(latest) > USAGE_INTERVAL;
        if self.latest.is_some_and(idle) {
            self.max_in_flight = [0, 0];
            self.interval_start = Some(now);
        } else if now.saturating_duration_since(interval_start) > USAGE_INTERVAL {
            self.max_in_flight = [0, self.max_in_flight[0]];
            self.interval_start = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_kept_while_a_quarter_of_it_is_used() {
        let start = Instant::now();
        let mut usage = Usage::default();
        assert_eq!(usage.reduced_window(start, 1000, 10), None);
        for second in 0..60 {
            let now = start + Duration::from_secs(second);
            usage.on_in_flight(now, if second % 10 == 0 { 250 } else { 1 });
            assert_eq!(usage.reduced_window(now, 1000, 10), None, "{second} s");
        }
    }

    #[test]
    fn the_reduced_window_is_twice_the_use_but_at_least_the_initial_window() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut usage = Usage::default();
        usage.on_in_flight(start, 1000);
        assert_eq!(usage.reduced_window(at(10), 1000, 10), None);
        assert_eq!(usage.clone().reduced_window(at(11), 1000, 10), Some(10));
        for second in 1..=22 {
            usage.on_in_flight(at(second), 100);
        }
        assert_eq!(usage.clone().reduced_window(at(22), 1000, 10), Some(200));
        assert_eq!(usage.clone().reduced_window(at(22), 1000, 300), Some(300));
        assert_eq!(usage.reduced_window(at(22), 300, 300), None);
    }
}
