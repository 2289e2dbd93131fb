//! What is known of a path: the least round trip, the delivery rate and the loss of late.

use std::time::{Duration, Instant};

use crate::congestion::round::Round;

/// How long a least round-trip time holds at least half of: the route may have changed.
pub(super) const LEAST_RTT_FOR: Duration = Duration::from_secs(10);

/// A least round-trip time holds for so many round trips, too: long paths are drained rarely.
const LEAST_RTT_ROUNDS: u32 = 40;

/// Round trips over which the largest delivery rate is taken.
const RATE_ROUNDS: usize = 10;

/// The part of the recent past that one round trip replaces, in the account of losses.
const LOSS_MEMORY: u64 = 8;

/// Loss that is taken for the medium's, as one in so many: 5 %.
///
/// A medium that loses 3 % loses more in many a second.
const TOLERATED_LOSS: u64 = 20;

/// Measurements of one path.
#[derive(Debug, Clone, Default)]
pub(super) struct Path {
    /// The least round-trip times of this spell and of the one before.
    least: [Option<Duration>; 2],
    spell: Option<Instant>,
    /// Bytes a second, of the latest round trips that were not short of bytes to send.
    rates: [u64; RATE_ROUNDS],
    acked: u64,
    lost: u64,
}

// === impl Path ===

impl Path {
    /// A packet took so long to be acknowledged.
    pub(super) fn on_rtt(&mut self, now: Instant, rtt: Duration) {
        let spell = *self.spell.get_or_insert(now);
        let holds = LEAST_RTT_FOR.max(self.least_rtt() * LEAST_RTT_ROUNDS) / 2;
        if now.saturating_duration_since(spell) > holds {
            self.least = [None, self.least[0]];
            self.spell = Some(now);
        }
        self.least[0] = Some(self.least[0].map_or(rtt, |least| least.min(rtt)));
    }

    /// A round trip ended.
    pub(super) fn on_round(&mut self, ended: &Round) {
        let nanos = u64::try_from(ended.took.as_nanos())
            .unwrap_or(u64::MAX)
            .max(1);
        let rate = ended.acked().saturating_mul(1_000_000_000) / nanos;
        if !ended.is_limited() {
            self.rates.rotate_right(1);
            self.rates[0] = rate;
        } else if rate > self.rates[0] {
            self.rates[0] = rate;
        }
        self.acked = self.acked - self.acked / LOSS_MEMORY + ended.acked();
        self.lost = self.lost - self.lost / LOSS_MEMORY + ended.lost;
    }

    /// The least round-trip time; zero before the first.
    pub(super) fn least_rtt(&self) -> Duration {
        self.least
            .iter()
            .flatten()
            .min()
            .copied()
            .unwrap_or_default()
    }

    /// The delay that our part of a queue may make.
    pub(super) fn target(&self) -> Duration {
        self.least_rtt() / 4 + Duration::from_millis(4)
    }

    /// Bytes that keep the path busy without a queue.
    pub(super) fn rate_window(&self) -> u64 {
        let rate = u128::from(self.rates.iter().copied().max().unwrap_or_default());
        let bytes = rate * self.least_rtt().as_nanos() / 1_000_000_000;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// Whether more is lost than a medium loses, and more than `allowance`.
    pub(super) fn loses_more_than_tolerated(&self, allowance: u64) -> bool {
        self.lost > (self.acked + self.lost) / TOLERATED_LOSS + allowance
    }

    /// The losses so far were answered.
    pub(super) fn forget_losses(&mut self) {
        self.lost = 0;
    }
}
