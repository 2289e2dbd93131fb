//! The simulated link.

use std::time::Duration;

use crate::simulation::Simulation;

/// How a medium loses packets.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Loss {
    None,
    /// Each packet alone, with this probability.
    Random(f64),
    /// Whole runs of packets: the share that is lost, and the mean length of a run.
    Bursts(f64, f64),
}

/// A bottleneck and the way to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    pub(crate) mbit: f64,
    pub(crate) one_way: Duration,
    /// The longest delay that the queue makes before it drops.
    pub(crate) queue: Duration,
    pub(crate) loss: Loss,
    /// The delay of the queue from which it marks packets.
    pub(crate) mark: Option<Duration>,
    /// The most that a packet is delayed beyond, by chance, without changing the order.
    pub(crate) jitter: Duration,
}

impl Link {
    pub(crate) fn new(mbit: f64, one_way: u64, queue: u64) -> Self {
        Self {
            mbit,
            one_way: Duration::from_millis(one_way),
            queue: Duration::from_millis(queue),
            loss: Loss::None,
            mark: None,
            jitter: Duration::ZERO,
        }
    }

    pub(crate) fn loss(self, loss: Loss) -> Self {
        Self { loss, ..self }
    }
}

impl Simulation {
    pub(super) fn is_lost_at_random(&mut self) -> bool {
        match self.link.loss {
            Loss::None => false,
            Loss::Random(share) => self.rng.f64() < share,
            Loss::Bursts(share, run) => {
                let leave = 1.0 / run;
                let enter = share * leave / (1.0 - share);
                let change = if self.bursting { leave } else { enter };
                self.bursting ^= self.rng.f64() < change;
                self.bursting
            }
        }
    }
}
