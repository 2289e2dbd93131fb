//! What happens to each packet on one way of a link: pure, from moments to moments.
//!
//! The transmitter is a single moment, the one at which it will have sent everything that waits.
//! A packet is sent from then on, or at once when that moment has passed, and moves it by its
//! size divided by the rate. So the rate is exact however late the caller asks.

use std::time::Duration;

use fastrand::Rng;

use crate::link::{Loss, Way};

/// Nanoseconds of a second, and bits of a byte.
const NANOS: u64 = 1_000_000_000;
const BITS: u64 = 8;

/// One way of a link, with what is under way on it. Moments are durations since any one start.
#[derive(Debug)]
pub struct Lane {
    way: Way,
    limit: Duration,
    mark: Option<Duration>,
    losses: Losses,
    jitter: Rng,
    /// When the transmitter has sent everything that was accepted.
    free_at: Duration,
    /// What `free_at` is short of, in bits times nanoseconds: less than one nanosecond.
    remainder: u64,
    last_arrival: Duration,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The dice were against it.
    Lost,
    /// The queue was full.
    Overflowed,
    /// It arrives.
    Delivered {
        /// When.
        at: Duration,
        /// How long it waited before its first bit was sent.
        waited: Duration,
        /// Whether it tells of congestion, if it can.
        marked: bool,
    },
}

/// The dice of [`Loss`].
#[derive(Debug)]
struct Losses {
    dice: Rng,
    /// Per packet, from good to bad and from bad to good.
    worsen: f64,
    recover: f64,
    bad: bool,
}

// === impl Lane ===

impl Lane {
    /// An empty lane; its dice depend on `seed` alone.
    pub fn new(way: Way, seed: u64) -> Self {
        let mut seeds = Rng::with_seed(seed);
        Self {
            way,
            limit: way.queue.at(way.rate),
            mark: way.mark.map(|mark| mark.at(way.rate)),
            losses: Losses::new(way.loss, seeds.fork()),
            jitter: seeds.fork(),
            free_at: Duration::ZERO,
            remainder: 0,
            last_arrival: Duration::ZERO,
        }
    }

    /// Decides about a packet of `length` bytes that is offered at `now`; calls must not go back
    /// in time.
    ///
    /// A packet that finds the transmitter free is sent even when it alone is larger than the
    /// queue.
    pub fn offer(&mut self, now: Duration, length: usize) -> Fate {
        if self.losses.strike() {
            return Fate::Lost;
        }
        let waited = self.free_at.saturating_sub(now);
        let (sending, remainder) = self.transmission(length);
        if !waited.is_zero() && waited + sending > self.limit {
            return Fate::Overflowed;
        }
        self.remainder = remainder;
        self.free_at = now + waited + sending;
        let arrival = self.free_at + self.way.delay + self.shake();
        self.last_arrival = self.last_arrival.max(arrival);
        Fate::Delivered {
            at: self.last_arrival,
            waited,
            marked: self.mark.is_some_and(|mark| waited >= mark),
        }
    }

    /// How long so many bytes take, and what is left below a nanosecond.
    fn transmission(&self, length: usize) -> (Duration, u64) {
        // A packet has at most 65,535 bytes: nothing here overflows.
        let bytes = u64::try_from(length).unwrap_or(65_535);
        let rate = self.way.rate.bits();
        let work = bytes * BITS * NANOS + self.remainder;
        (Duration::from_nanos(work / rate), work % rate)
    }

    fn shake(&mut self) -> Duration {
        if self.way.jitter.is_zero() {
            return Duration::ZERO;
        }
        self.way.jitter.mul_f64(self.jitter.f64())
    }
}

// === impl Losses ===

impl Losses {
    fn new(loss: Loss, dice: Rng) -> Self {
        let share = loss.share.get();
        let recover = 1.0 / loss.burst.max(1.0);
        // In the long run bad / (good + bad) must be the share. Without bursts the next state
        // does not depend on this one, and bad follows bad as often as it follows good.
        let (worsen, recover) = if loss.burst <= 1.0 {
            (share, 1.0 - share)
        } else if share >= 1.0 {
            (1.0, 0.0)
        } else {
            (recover * share / (1.0 - share), recover)
        };
        Self {
            dice,
            worsen,
            recover,
            bad: false,
        }
    }

    /// Rolls once, whatever comes of it: the n-th packet has the n-th roll.
    fn strike(&mut self) -> bool {
        let roll = self.dice.f64();
        self.bad = if self.bad {
            roll >= self.recover
        } else {
            roll < self.worsen
        };
        self.bad
    }
}

#[cfg(test)]
mod tests;
