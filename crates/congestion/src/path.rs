//! Measurements of a path: minimum RTT, delivery rate, loss and queue overflows.

use std::time::{Duration, Instant};

use crate::round::Round;

/// Time for which a minimum RTT is valid. A limit is needed because the route may change.
const MIN_RTT_INTERVAL: Duration = Duration::from_secs(10);

/// The same in round trips, if this is longer: long paths drain their queue rarely.
const MIN_RTT_ROUNDS: u32 = 40;

/// Rounds over which the maximum delivery rate is taken.
const RATE_ROUNDS: usize = 10;

/// Decay of the moving averages of losses per round, as a divisor.
const LOSS_DECAY_DIVISOR: u64 = 8;

/// Tolerated rate of random loss, as a divisor of the bytes sent: 5 %.
///
/// A link with a mean loss of 3 % loses more in many seconds.
const TOLERATED_LOSS_DIVISOR: u64 = 20;

/// Multiple of the expected random loss from which loss in a queue is taken for an overflow.
const OVERFLOW_LOSS_RATIO: f64 = 6.0;

/// Upper bound of the part of the target that depends on the RTT. Longer paths need no longer
/// queue.
const MAX_RTT_TARGET: Duration = Duration::from_millis(50);

/// Lower bound of a target that follows an overflow. A shorter queue cannot be told from the
/// bursts of the sender.
const MIN_OVERFLOW_TARGET: Duration = Duration::from_millis(2);

/// The part of the target that depends on the RTT, as a divisor of the minimum RTT.
const TARGET_RTT_DIVISOR: u32 = 4;

/// The constant part of the target.
const BASE_TARGET: Duration = Duration::from_millis(4);

/// The target after an overflow, as a divisor of the overflow delay.
const OVERFLOW_TARGET_DIVISOR: u32 = 2;

/// Datagrams whose serialization is added to the target.
const TARGET_DATAGRAMS: u32 = 4;

/// Queue delay below which the queue is regarded as empty, as a divisor of the target.
pub(super) const EMPTY_QUEUE_DIVISOR: u32 = 4;

/// An overflow loses more datagrams than this.
const OVERFLOW_DATAGRAMS: u64 = 3;

/// Shortest round that gives a sample of the delivery rate, as a divisor of the minimum RTT.
const RATE_SAMPLE_RTT_DIVISOR: u32 = 2;

/// Measurements of one path.
#[derive(Debug, Clone, Default)]
pub(super) struct Path {
    /// Minimum RTT of the present interval and of the one before.
    min_rtt: [Option<Duration>; 2],
    interval_start: Option<Instant>,
    /// Delivery rates of the latest rounds that were not application-limited, in bytes per second.
    rates: [u64; RATE_ROUNDS],
    acked: u64,
    lost: u64,
    /// Moving averages of the bytes acknowledged and lost in rounds without a queue.
    random_loss: (u64, u64),
    /// Queue delay of the latest overflow, and its time.
    overflow_delay: Option<(Duration, Instant)>,
    /// RTT of the latest overflow or ECN mark beside a queue, and its time.
    overflow_rtt: Option<(Duration, Instant)>,
    /// Time in which the bottleneck transmits one datagram.
    serialization: Duration,
}

// === impl Path ===

impl Path {
    /// Takes an RTT sample.
    pub(super) fn on_rtt(&mut self, now: Instant, rtt: Duration) {
        let interval_start = *self.interval_start.get_or_insert(now);
        let interval = MIN_RTT_INTERVAL.max(self.min_rtt() * MIN_RTT_ROUNDS) / 2;
        let age = now.saturating_duration_since(interval_start);
        if age > interval {
            // After an idle period, the present interval is as old as the one before usually is.
            self.min_rtt = [None, self.min_rtt[0].filter(|_| age <= interval * 2)];
            self.interval_start = Some(now);
        }
        self.min_rtt[0] = Some(self.min_rtt[0].map_or(rtt, |min_rtt| min_rtt.min(rtt)));
    }

    /// Reports a route change: `rtt` is the minimum RTT, and losses and queue are unknown.
    pub(super) fn on_route(&mut self, now: Instant, rtt: Duration) {
        self.min_rtt = [Some(rtt), None];
        self.interval_start = Some(now);
        self.random_loss = (0, 0);
        self.overflow_delay = None;
        self.overflow_rtt = None;
    }

    /// Whether a queue that overflowed recently, at this or a longer RTT, explains this RTT.
    pub(super) fn queue_explains(&self, now: Instant, rtt: Duration) -> bool {
        self.overflow_rtt.is_some_and(|(overflow_rtt, at)| {
            rtt <= overflow_rtt && now.saturating_duration_since(at) <= MIN_RTT_INTERVAL
        })
    }

    /// Takes the measurements of a round that ended, and sets its `above_random_loss`.
    pub(super) fn on_round(&mut self, now: Instant, ended: &mut Round, datagram: u64) {
        // A shorter round measures a burst, not the path.
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

    /// Tells loss by queue overflow from random loss.
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

    /// The minimum RTT; zero before the first sample.
    pub(super) fn min_rtt(&self) -> Duration {
        self.min_rtt
            .iter()
            .flatten()
            .min()
            .copied()
            .unwrap_or_default()
    }

    /// The target: the queue delay up to which the window grows.
    pub(super) fn target(&self) -> Duration {
        let rtt_target = (self.min_rtt() / TARGET_RTT_DIVISOR).min(MAX_RTT_TARGET) + BASE_TARGET;
        let overflow_target = self.overflow_delay.map_or(rtt_target, |(queue_delay, _)| {
            (queue_delay / OVERFLOW_TARGET_DIVISOR).max(MIN_OVERFLOW_TARGET)
        });
        rtt_target.min(overflow_target) + self.serialization * TARGET_DATAGRAMS
    }

    /// Bandwidth-delay product: the bytes that fill the path without a queue.
    pub(super) fn bdp(&self) -> u64 {
        let rate = u128::from(self.rates.iter().copied().max().unwrap_or_default());
        let bytes = rate * self.min_rtt().as_nanos() / 1_000_000_000;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// Whether the recent loss exceeds the tolerated rate and, beyond that, `allowance` bytes.
    pub(super) fn exceeds_tolerated_loss(&self, allowance: u64) -> bool {
        self.lost > (self.acked + self.lost) / TOLERATED_LOSS_DIVISOR + allowance
    }

    /// Halves the recent loss after a cut, so that one event does not cause several cuts.
    pub(super) fn halve_losses(&mut self) {
        self.lost /= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ack::Ack;

    /// A round that took `duration`, with ten datagrams acknowledged after 40 ms.
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
            // A quarter of the minimum RTT, and 4 ms.
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
        // Eight datagrams are lost beside a queue delay of 20 ms.
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
