//! What happens to each packet in one direction of a link: pure, from times to times.
//!
//! The transmitter is a single time, at which it will have sent everything that waits. A packet is
//! sent from then on, or at once when that time has passed, and moves it by its size divided by the
//! rate. So the rate is exact however late the caller asks.

use std::time::Duration;

use fastrand::Rng;

use super::Link;

/// Nanoseconds of a second times bits of a byte.
const NANO_BITS: u64 = 8_000_000_000;

/// One direction of a link. Times are durations since any one start.
#[derive(Debug)]
pub struct Shaper {
    link: Link,
    losses: Losses,
    jitter: Rng,
    /// When the transmitter has sent everything that was accepted.
    free_at: Duration,
    /// What `free_at` is short of, in bits times nanoseconds: less than one nanosecond.
    remainder: u64,
    last_arrival: Duration,
}

/// What happens to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is lost at random.
    Lost,
    /// The queue is full.
    Overflowed,
    /// It arrives at this time.
    Arrives(Duration),
}

/// Random losses.
#[derive(Debug)]
struct Losses {
    random: Rng,
    /// The probabilities, for each packet, to get from good to bad and from bad to good.
    worsen: f64,
    recover: f64,
    bad: bool,
}

// === impl Shaper ===

impl Shaper {
    /// With an empty queue; its losses depend on `seed` alone.
    pub fn new(link: &Link, seed: u64) -> Self {
        let mut seeds = Rng::with_seed(seed);
        Self {
            link: link.clone(),
            losses: Losses::new(link, seeds.fork()),
            jitter: seeds.fork(),
            free_at: Duration::ZERO,
            remainder: 0,
            last_arrival: Duration::ZERO,
        }
    }

    /// Decides about a packet of `length` bytes that is offered at `now`; times must not decrease.
    ///
    /// A packet that finds the transmitter free is sent even when it is larger than the queue.
    pub fn offer(&mut self, now: Duration, length: usize) -> Fate {
        if self.losses.next() {
            return Fate::Lost;
        }
        let waits = self.free_at.saturating_sub(now);
        // A packet has at most 65,535 bytes: nothing here overflows.
        let bytes = u64::try_from(length).unwrap_or(65_535);
        let (work, rate) = (bytes * NANO_BITS + self.remainder, self.link.rate.bits());
        let sending = Duration::from_nanos(work / rate);
        if !waits.is_zero() && waits + sending > self.link.queue {
            return Fate::Overflowed;
        }
        self.remainder = work % rate;
        self.free_at = now + waits + sending;
        let jitter = self.link.jitter.mul_f64(self.jitter.f64());
        self.last_arrival = self
            .last_arrival
            .max(self.free_at + self.link.delay + jitter);
        Fate::Arrives(self.last_arrival)
    }
}

// === impl Losses ===

impl Losses {
    fn new(link: &Link, random: Rng) -> Self {
        let (share, burst) = (link.loss.unwrap_or_default().get(), link.loss_burst);
        // In the long run bad / (good + bad) must be the share. Without bursts the next state
        // does not depend on this one, and bad follows bad as often as it follows good.
        let (worsen, recover) = if burst <= 1.0 {
            (share, 1.0 - share)
        } else if share >= 1.0 {
            (1.0, 0.0)
        } else {
            (share / burst / (1.0 - share), 1.0 / burst)
        };
        Self {
            random,
            worsen,
            recover,
            bad: false,
        }
    }

    /// Whether the next packet is lost: the n-th packet has the n-th random number.
    fn next(&mut self) -> bool {
        let number = self.random.f64();
        self.bad = match self.bad {
            true => number >= self.recover,
            false => number < self.worsen,
        };
        self.bad
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn link(rate: &str, queue: u32) -> Link {
        Link {
            delay: 20 * MS,
            jitter: Duration::ZERO,
            rate: rate.parse().unwrap(),
            queue: MS * queue,
            loss: None,
            loss_burst: 1.0,
            seed: 1,
        }
    }

    fn lossy(percent: f64, burst: f64, seed: u64) -> Shaper {
        let mut link = link("10Gbit", 1000);
        link.loss = Some(format!("{percent}%").parse().unwrap());
        link.loss_burst = burst;
        Shaper::new(&link, seed)
    }

    #[test]
    fn a_lone_packet_takes_its_transmission_and_the_delay() {
        for (rate, length, micros) in [
            ("200Mbit", 1500, 60),
            ("1Gbit", 1500, 12),
            ("200Mbit", 25, 1),
        ] {
            let mut shaper = Shaper::new(&link(rate, 60), 7);
            let arrival = 25 * MS + Duration::from_micros(micros);
            assert_eq!(
                shaper.offer(5 * MS, length),
                Fate::Arrives(arrival),
                "{rate}"
            );
        }
    }

    #[test]
    fn the_rate_is_exact_where_a_packet_takes_no_whole_nanosecond() {
        // 1,500 bytes at 333 Mbit/s take 36,036.036… ns: a second takes 27,750 packets.
        let mut shaper = Shaper::new(&link("333Mbit", 10_000), 7);
        let last = (0..27_750)
            .map(|_| shaper.offer(Duration::ZERO, 1500))
            .last();
        assert_eq!(last, Some(Fate::Arrives(Duration::from_secs(1) + 20 * MS)));
    }

    #[test]
    fn the_queue_drops_what_does_not_fit_and_takes_more_once_it_has_room() {
        // 10 ms at 12 Mbit/s hold ten packets of 1,500 bytes, with the one that is being sent.
        let mut shaper = Shaper::new(&link("12Mbit", 10), 7);
        let fates: Vec<Fate> = (0..12)
            .map(|_| shaper.offer(Duration::ZERO, 1500))
            .collect();
        assert!(
            fates[..10]
                .iter()
                .all(|fate| matches!(fate, Fate::Arrives(_)))
        );
        assert_eq!(fates[10..], [Fate::Overflowed; 2]);
        assert_eq!(shaper.offer(MS, 1500), Fate::Arrives(31 * MS));
        assert_eq!(shaper.offer(MS, 1500), Fate::Overflowed);

        let mut without = Shaper::new(&link("12Mbit", 0), 7);
        assert_eq!(without.offer(MS, 1500), Fate::Arrives(22 * MS));
        assert_eq!(without.offer(MS, 1500), Fate::Overflowed);
    }

    #[test]
    fn losses_have_their_share_and_their_bursts() {
        let cases = [
            (0.0, 1.0),
            (0.1, 1.0),
            (3.0, 1.0),
            (1.0, 5.0),
            (100.0, 1.0),
            (100.0, 5.0),
        ];
        for (percent, burst) in cases {
            let (mut shaper, packets) = (lossy(percent, burst, 11), 1_000_000_u32);
            let times = (0..packets).map(|number| Duration::from_micros(number.into()));
            let lost: Vec<bool> = times
                .map(|now| shaper.offer(now, 100) == Fate::Lost)
                .collect();
            let count = lost.iter().filter(|lost| **lost).count();
            let (count, share) = (f64::from(u32::try_from(count).unwrap()), percent / 100.0);
            let packets = f64::from(packets);
            // Six standard deviations of a sum whose terms come in bursts.
            let deviation = (share * (1.0 - share) * (2.0 * burst - 1.0) / packets).sqrt();
            let error = (count / packets - share).abs();
            assert!(
                error <= 6.0 * deviation + 1e-5,
                "{percent} in {burst}: {count}"
            );
            let starts = lost.windows(2).filter(|pair| !pair[0] && pair[1]).count();
            if burst > 1.0 && share < 1.0 {
                let length = count / f64::from(u32::try_from(starts).unwrap());
                assert!(
                    (length / burst - 1.0).abs() < 0.05,
                    "{percent} in {burst}: {length}"
                );
            }
        }
    }

    #[test]
    fn the_same_seed_loses_the_same_packets() {
        let lost = |seed| {
            let mut shaper = lossy(3.0, 1.0, seed);
            let fates = (0..10_000).map(|number| shaper.offer(MS * number, 99));
            fates.map(|fate| fate == Fate::Lost).collect::<Vec<_>>()
        };
        assert_eq!(lost(5), lost(5));
        assert_ne!(lost(5), lost(6));
    }

    proptest! {
        #[test]
        fn order_queue_and_rate_hold_for_any_traffic(
            packets in prop::collection::vec((0_u64..200_000, 20_u64..=1500), 1..500),
            rate in 1_000_u64..1_000_000,
            queue in 0_u32..50,
            jitter in 0_u32..5,
        ) {
            let mut link = link(&format!("{rate}kbit"), queue);
            link.jitter = MS * jitter;
            let mut shaper = Shaper::new(&link, 3);
            let (mut now, mut last, mut sent) = (Duration::ZERO, Duration::ZERO, 0);
            let time = |bytes: u64| Duration::from_nanos(bytes * 8_000_000 / rate);
            for (gap, length) in packets {
                now += Duration::from_nanos(gap);
                if let Fate::Arrives(at) = shaper.offer(now, usize::try_from(length).unwrap()) {
                    sent += length;
                    prop_assert!(at >= last, "order");
                    prop_assert!(at >= now + time(length) + link.delay, "never early");
                    // The packet before may have been larger than the queue.
                    let queue = link.queue + time(1500) * 2;
                    prop_assert!(at <= now + queue + link.delay + link.jitter, "queue");
                    last = at;
                }
            }
            let least = time(sent) + link.delay;
            prop_assert!(last.is_zero() || last + Duration::from_nanos(1) >= least, "rate");
        }
    }
}
