//! What is known of a path: the least round trip, the delivery rate and the loss of late.

use std::time::{Duration, Instant};

use crate::round::Round;

/// How long a least round-trip time holds at least half of: the route may have changed.
const LEAST_RTT_FOR: Duration = Duration::from_secs(10);

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

/// How many times the medium's loss must be exceeded beside a queue to tell of its overflow.
const UNUSUAL_LOSS: f64 = 6.0;

/// Long paths do not need longer queues than this.
const MOST_QUEUE: Duration = Duration::from_millis(50);

/// Below, a queue cannot be told from the bursts that we send.
const LEAST_QUEUE: Duration = Duration::from_millis(2);

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
    /// Bytes acknowledged and lost in round trips without a queue.
    medium: (u64, u64),
    /// The delay at which a queue overflowed, and when.
    shallow: Option<(Duration, Instant)>,
    /// The round-trip time at which a queue was seen to overflow, or to mark, and when.
    full: Option<(Duration, Instant)>,
    /// Time that the bottleneck takes for one datagram.
    grain: Duration,
}

// === impl Path ===

impl Path {
    /// A packet took so long to be acknowledged.
    pub(super) fn on_rtt(&mut self, now: Instant, rtt: Duration) {
        let spell = *self.spell.get_or_insert(now);
        let holds = LEAST_RTT_FOR.max(self.least_rtt() * LEAST_RTT_ROUNDS) / 2;
        let age = now.saturating_duration_since(spell);
        if age > holds {
            // A spell that was followed by silence is over for longer.
            self.least = [None, self.least[0].filter(|_| age <= holds * 2)];
            self.spell = Some(now);
        }
        self.least[0] = Some(self.least[0].map_or(rtt, |least| least.min(rtt)));
    }

    /// The route changed: its least round trip is this one, and its losses and queue are unknown.
    pub(super) fn on_route(&mut self, now: Instant, rtt: Duration) {
        self.least = [Some(rtt), None];
        self.spell = Some(now);
        self.medium = (0, 0);
        self.shallow = None;
        self.full = None;
    }

    /// Whether a queue that was seen full within the last while explains this round-trip time.
    pub(super) fn explains(&self, now: Instant, rtt: Duration) -> bool {
        self.full.is_some_and(|(full, at)| {
            rtt <= full && now.saturating_duration_since(at) <= LEAST_RTT_FOR
        })
    }

    /// A round trip ended.
    pub(super) fn on_round(&mut self, now: Instant, ended: &mut Round, datagram: u64) {
        // One that was cut short tells of a burst, not of the path.
        if ended.took >= self.least_rtt() / 2 {
            self.on_round_rate(ended);
        }
        self.grain = match self.rates.iter().copied().max() {
            None | Some(0) => Duration::ZERO,
            Some(rate) => Duration::from_nanos(datagram.saturating_mul(1_000_000_000) / rate),
        };
        self.on_round_loss(now, ended, datagram);
        self.acked = self.acked - self.acked / LOSS_MEMORY + ended.acked();
        self.lost = self.lost - self.lost / LOSS_MEMORY + ended.lost_ever;
    }

    fn on_round_rate(&mut self, ended: &Round) {
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
    }

    /// Tells what a full queue dropped from what the medium loses anyway.
    fn on_round_loss(&mut self, now: Instant, ended: &mut Round, datagram: u64) {
        let queue = ended.queue(self.least_rtt());
        let (acked, lost) = self.medium;
        let usual = ended.acked() as f64 * lost as f64 / acked.max(1) as f64;
        ended.unusual = ended.lost as f64 > UNUSUAL_LOSS * usual;
        let overflows = ended.unusual && ended.lost > 3 * datagram;
        if (overflows || ended.marked) && queue >= self.target() / 4 {
            self.full = Some((ended.last_rtt(), now));
        }
        if queue < self.target() / 4 {
            self.medium = (
                acked - acked / LOSS_MEMORY + ended.acked(),
                lost - lost / LOSS_MEMORY + ended.lost,
            );
        } else if ended.unusual && ended.lost > 3 * datagram {
            self.shallow = Some((queue, now));
        } else if self
            .shallow
            .is_some_and(|(_, at)| now.saturating_duration_since(at) > LEAST_RTT_FOR)
        {
            self.shallow = None;
        }
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
        let usual = (self.least_rtt() / 4).min(MOST_QUEUE) + Duration::from_millis(4);
        let shallow = self
            .shallow
            .map_or(usual, |(queue, _)| (queue / 2).max(LEAST_QUEUE));
        usual.min(shallow) + self.grain * 4
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

    /// The losses so far were answered by a cut: half of them count for the next.
    pub(super) fn answer_losses(&mut self) {
        self.lost /= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ack;

    /// Ten datagrams that were acknowledged after 40 ms, in a round that took as long as told.
    fn on_round(path: &mut Path, start: Instant, took: Duration) {
        let rtt = Duration::from_millis(40);
        let mut round = Round::default();
        round.restart(start);
        for _ in 0..10 {
            let sent = start;
            path.on_rtt(start + rtt, rtt);
            round.on_ack(start + rtt, Ack { sent, bytes: 1200 }, rtt, false);
            round.on_acks_end(12_000, 12_000, 1200);
        }
        let mut ended = round.restart(start + took);
        path.on_round(start + took, &mut ended, 1200);
    }

    #[test]
    fn a_round_cut_short_tells_no_rate() {
        let mut path = Path::default();
        let start = Instant::now();
        for millis in [0, 1, 19] {
            on_round(&mut path, start, Duration::from_millis(millis));
            assert_eq!(path.rate_window(), 0, "{millis} ms");
            // A quarter of the least round trip and 4 ms.
            assert_eq!(path.target().as_millis(), 14, "{millis} ms");
        }
        on_round(&mut path, start, Duration::from_millis(40));
        assert_eq!(path.rate_window(), 12_000);
    }

    #[test]
    fn nothing_but_the_rate_outlives_a_route() {
        let mut path = Path::default();
        let start = Instant::now();
        on_round(&mut path, start, Duration::from_millis(40));
        path.on_rtt(start, Duration::from_millis(20));
        // Eight datagrams lost beside a queue of 20 ms.
        let (at, rtt) = (start, Duration::from_millis(40));
        let mut ended = Round::default();
        ended.on_ack(
            at + rtt,
            Ack {
                sent: at,
                bytes: 1200,
            },
            rtt,
            false,
        );
        ended.on_loss(8 * 1200, false);
        path.on_round(start, &mut ended, 1200);
        assert!(path.explains(start, Duration::from_millis(40)));
        path.on_route(start, Duration::from_millis(40));
        assert!(!path.explains(start, Duration::from_millis(40)));
        assert_eq!(path.least_rtt().as_millis(), 40);
        assert_eq!(path.medium, (0, 0));
        assert_eq!(path.shallow, None);
    }
}
