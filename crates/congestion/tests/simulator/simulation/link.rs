//! The link: a bottleneck with a rate, a queue, a delay, random loss and ECN marks.

use std::time::Duration;

use crate::simulation::Simulation;

/// Random loss.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Loss {
    None,
    /// Each packet on its own, with this probability.
    Random(f64),
    /// Runs of packets: the share of packets lost, and the mean length of a run in packets.
    Bursts(f64, f64),
}

/// Properties of the link. The way back has the same delay, but no queue and no loss.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    pub(crate) mbit: f64,
    pub(crate) one_way: Duration,
    /// Queue delay above which packets are dropped.
    pub(crate) queue: Duration,
    pub(crate) loss: Loss,
    /// Queue delay above which packets get an ECN mark.
    pub(crate) mark: Option<Duration>,
    /// Upper bound of a random extra delay that keeps the order of packets.
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
