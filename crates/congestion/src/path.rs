//! What is known of a path: the least round trip, the delivery rate and the loss of late.

use std::time::{Duration, Instant};

use crate::round::Round;

/// How long a least round-trip time holds at least half of: the route may have changed.
const MIN_RTT_INTERVAL: Duration = Duration::from_secs(10);

/// A least round-trip time holds for so many round trips, too: long paths are drained rarely.
const MIN_RTT_ROUNDS: u32 = 40;

/// Round trips over which the largest delivery rate is taken.
const RATE_ROUNDS: usize = 10;

/// The part of the recent past that one round trip replaces, in the account of losses.
const LOSS_DECAY_DIVISOR: u64 = 8;

/// Loss that is taken for the medium's, as one in so many: 5 %.
///
/// A medium that loses 3 % loses more in many a second.
const TOLERATED_LOSS_DIVISOR: u64 = 20;

/// How many times the medium's loss must be exceeded beside a queue to tell of its overflow.
const OVERFLOW_LOSS_RATIO: f64 = 6.0;

/// Long paths do not need longer queues than this.
const MAX_RTT_TARGET: Duration = Duration::from_millis(50);

/// Below, a queue cannot be told from the bursts that we send.
const MIN_OVERFLOW_TARGET: Duration = Duration::from_millis(2);

/// The part of the minimum RTT that the target delay is.
const TARGET_RTT_DIVISOR: u32 = 4;

/// The constant part of the target delay.
const BASE_TARGET: Duration = Duration::from_millis(4);

/// The part of an overflow delay that the target delay is.
const OVERFLOW_TARGET_DIVISOR: u32 = 2;

/// Datagrams whose serialization is added to the target delay.
const TARGET_DATAGRAMS: u32 = 4;

/// A queue delay below this part of its target counts as none.
pub(super) const EMPTY_QUEUE_DIVISOR: u32 = 4;

/// An overflow loses more than this.
const OVERFLOW_DATAGRAMS: u64 = 3;

/// A round gives a rate sample if it took this part of the minimum RTT.
const RATE_SAMPLE_RTT_DIVISOR: u32 = 2;

/// Measurements of one path.
#[derive(Debug, Clone, Default)]
pub(super) struct Path {
    /// The least round-trip times of this spell and of the one before.
    min_rtt: [Option<Duration>; 2],
    interval_start: Option<Instant>,
    /// Bytes a second, of the latest round trips that were not short of bytes to send.
    rates: [u64; RATE_ROUNDS],
    acked: u64,
    lost: u64,
    /// Bytes acknowledged and lost in round trips without a queue.
    random_loss: (u64, u64),
    /// The delay at which a queue overflowed, and when.
    overflow_delay: Option<(Duration, Instant)>,
    /// The round-trip time at which a queue was seen to overflow, or to mark, and when.
    overflow_rtt: Option<(Duration, Instant)>,
    /// Time that the bottleneck takes for one datagram.
    serialization: Duration,
}

// === impl Path ===

impl Path {
    /// A packet took so long to be acknowledged.
    pub(super) fn on_rtt(&mut self, now: Instant, rtt: Duration) {
        let interval_start = *self.interval_start.get_or_insert(now);
        let interval = MIN_RTT_INTERVAL.max(self.min_rtt() * MIN_RTT_ROUNDS) / 2;
        let age = now.saturating_duration_since(interval_start);
        if age > interval {
            // A spell that was followed by silence is over for longer.
            self.min_rtt = [None, self.min_rtt[0].filter(|_| age <= interval * 2)];
            self.interval_start = Some(now);
        }
        self.min_rtt[0] = Some(self.min_rtt[0].map_or(rtt, |min_rtt| min_rtt.min(rtt)));
    }

    /// The route changed: its least round trip is this one, and its losses and queue are unknown.
    pub(super) fn on_route(&mut self, now: Instant, rtt: Duration) {
        self.min_rtt = [Some(rtt), None];
        self.interval_start = Some(now);
        self.random_loss = (0, 0);
        self.overflow_delay = None;
        self.overflow_rtt = None;
    }

    /// Whether a queue that was seen full within the last while explains this round-trip time.
    pub(super) fn queue_explains(&self, now: Instant, rtt: Duration) -> bool {
        self.overflow_rtt.is_some_and(|(overflow_rtt, at)| {
            rtt <= overflow_rtt && now.saturating_duration_since(at) <= MIN_RTT_INTERVAL
        })
    }

    /// A round trip ended.
    pub(super) fn on_round(&mut self, now: Instant, ended: &mut Round, datagram: u64) {
        // One that was cut short tells of a burst, not of the path.
        if ended.duration >= self.min_rtt() / RATE_SAMPLE_RTT_DIVISOR {
            self.on_round_rate(ended);
        }
        self.serialization = match self.rates.iter().copied().max() {
            None | Some(0) => Duration::ZERO,
            Some(rate) => Duration::from_nanos(datagram.saturating_mul(1_000_000_000) / rate),
        };
        self.on_round_loss(now, ended, datagram);
        self.acked = self.acked - self.acked / LOSS_DECAY_DIVISOR + ended.acked();
        self.lost = self.lost - self.lost / LOSS_DECAY_DIVISOR + ended.lost_total;
    }

    fn on_round_rate(&mut self, ended: &Round) {
        let nanos = u64::try_from(ended.duration.as_nanos())
            .unwrap_or(u64::MAX)
            .max(1);
        let rate = ended.acked().saturating_mul(1_000_000_000) / nanos;
        if !ended.is_app_limited() {
            self.rates.rotate_right(1);
            self.rates[0] = rate;
        } else if rate > self.rates[0] {
            self.rates[0] = rate;
        }
    }

    /// Tells what a full queue dropped from what the medium loses anyway.
    fn on_round_loss(&mut self, now: Instant, ended: &mut Round, datagram: u64) {
        let queue_delay = ended.queue_delay(self.min_rtt());
        let (acked, lost) = self.random_loss;
        let expected = ended.acked() as f64 * lost as f64 / acked.max(1) as f64;
        ended.above_random_loss = ended.lost_since_cut as f64 > OVERFLOW_LOSS_RATIO * expected;
        let overflowed =
            ended.above_random_loss && ended.lost_since_cut > OVERFLOW_DATAGRAMS * datagram;
        if (overflowed || ended.marked) && queue_delay >= self.target() / EMPTY_QUEUE_DIVISOR {
            self.overflow_rtt = Some((ended.last_rtt(), now));
        }
        if queue_delay < self.target() / EMPTY_QUEUE_DIVISOR {
            self.random_loss = (
                acked - acked / LOSS_DECAY_DIVISOR + ended.acked(),
                lost - lost / LOSS_DECAY_DIVISOR + ended.lost_since_cut,
            );
        } else if ended.above_random_loss && ended.lost_since_cut > OVERFLOW_DATAGRAMS * datagram {
            self.overflow_delay = Some((queue_delay, now));
        } else if self
            .overflow_delay
            .is_some_and(|(_, at)| now.saturating_duration_since(at) > MIN_RTT_INTERVAL)
        {
            self.overflow_delay = None;
        }
    }

    /// The least round-trip time; zero before the first.
    pub(super) fn min_rtt(&self) -> Duration {
        self.min_rtt
            .iter()
            .flatten()
            .min()
            .copied()
            .unwrap_or_default()
    }

    /// The delay that our part of a queue may make.
    pub(super) fn target(&self) -> Duration {
        let rtt_target = (self.min_rtt() / TARGET_RTT_DIVISOR).min(MAX_RTT_TARGET) + BASE_TARGET;
        let overflow_target = self.overflow_delay.map_or(rtt_target, |(queue_delay, _)| {
            (queue_delay / OVERFLOW_TARGET_DIVISOR).max(MIN_OVERFLOW_TARGET)
        });
        rtt_target.min(overflow_target) + self.serialization * TARGET_DATAGRAMS
    }

    /// Bytes that keep the path busy without a queue.
    pub(super) fn bdp(&self) -> u64 {
        let rate = u128::from(self.rates.iter().copied().max().unwrap_or_default());
        let bytes = rate * self.min_rtt().as_nanos() / 1_000_000_000;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// Whether more is lost than a medium loses, and more than `allowance`.
    pub(super) fn exceeds_tolerated_loss(&self, allowance: u64) -> bool {
        self.lost > (self.acked + self.lost) / TOLERATED_LOSS_DIVISOR + allowance
    }

    /// The losses so far were answered by a cut: half of them count for the next.
    pub(super) fn halve_losses(&mut self) {
        self.lost /= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ack;

    /// Ten datagrams that were acknowledged after 40 ms, in a round that took as long as told.
    fn on_round(path: &mut Path, start: Instant, duration: Duration) {
        let rtt = Duration::from_millis(40);
        let mut round = Round::default();
        round.restart(start);
        for _ in 0..10 {
            let sent = start;
            path.on_rtt(start + rtt, rtt);
            round.on_ack(start + rtt, Ack { sent, bytes: 1200 }, rtt, false);
            round.on_acks_end(12_000, 12_000, 1200);
        }
        let mut ended = round.restart(start + duration);
        path.on_round(start + duration, &mut ended, 1200);
    }

    #[test]
    fn a_shortened_round_gives_no_rate_sample() {
        let mut path = Path::default();
        let start = Instant::now();
        for millis in [0, 1, 19] {
            on_round(&mut path, start, Duration::from_millis(millis));
            assert_eq!(path.bdp(), 0, "{millis} ms");
            // A quarter of the least round trip and 4 ms.
            assert_eq!(path.target().as_millis(), 14, "{millis} ms");
        }
        on_round(&mut path, start, Duration::from_millis(40));
        assert_eq!(path.bdp(), 12_000);
    }

    #[test]
    fn a_route_change_resets_all_but_the_rate() {
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
        assert!(path.queue_explains(start, Duration::from_millis(40)));
        path.on_route(start, Duration::from_millis(40));
        assert!(!path.queue_explains(start, Duration::from_millis(40)));
        assert_eq!(path.min_rtt().as_millis(), 40);
        assert_eq!(path.random_loss, (0, 0));
        assert_eq!(path.overflow_delay, None);
    }
}
