//! What a link is like.

use std::fmt;
use std::time::Duration;

use crate::units::{Depth, Rate, Share};

/// The largest IP packet of a link that nothing else is said of.
pub const MTU: u16 = 1500;

/// A link between two sites. Both ways are alike unless `back` says otherwise; each has a queue
/// and dice of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    /// The way from near to far.
    pub there: Way,
    /// The way from far to near.
    pub back: Way,
    /// The largest IP packet.
    pub mtu: u16,
    /// What the dice start from: the same seed loses the same packets of the same sequence.
    pub seed: u64,
}

/// One way of a link. A packet may be lost first, then it waits in the queue, then it is sent at
/// the link's rate, then it travels: losses take nothing of the rate, as if they had happened
/// before the narrow place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Way {
    /// How long a packet travels once it is sent.
    pub delay: Duration,
    /// An evenly distributed share of this is added to each packet's delay. Packets stay in order,
    /// so one waits for an earlier one that got more: the busier the way, the closer all come to
    /// the whole of it.
    pub jitter: Duration,
    /// How fast packets are sent, their IP headers counted.
    pub rate: Rate,
    /// What does not fit is dropped from the queue's end.
    pub queue: Depth,
    /// From this depth on, packets that can be are marked (ECN); none are without it.
    pub mark: Option<Depth>,
    /// Which packets are lost at random.
    pub loss: Loss,
}

/// How packets are lost at random.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Loss {
    /// How many of all packets, in the long run.
    pub share: Share,
    /// How many in a row, on average: above 1 losses come in bursts (Gilbert–Elliott with a bad
    /// state that loses everything), at 1 each packet has dice of its own.
    pub burst: f64,
}

// === impl Link ===

impl Link {
    /// A link whose ways are alike, for packets of 1,500 bytes.
    pub fn symmetric(way: Way) -> Self {
        Self {
            there: way,
            back: way,
            mtu: MTU,
            seed: 1,
        }
    }

    /// The same link without losses of its own.
    pub fn clean(mut self) -> Self {
        self.there.loss = Loss::NONE;
        self.back.loss = Loss::NONE;
        self
    }

    /// How long a packet and its answer travel when nobody else uses the link.
    pub fn round_trip(&self) -> Duration {
        self.there.delay + self.back.delay
    }
}

impl fmt::Display for Link {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.there)?;
        if self.back != self.there {
            write!(formatter, "; back {}", self.back)?;
        }
        if self.mtu != MTU {
            write!(formatter, "; MTU {}", self.mtu)?;
        }
        Ok(())
    }
}

// === impl Way ===

impl Way {
    /// A clean way with this delay, rate and queue.
    pub const fn new(delay: Duration, rate: Rate, queue: Depth) -> Self {
        Self {
            delay,
            jitter: Duration::ZERO,
            rate,
            queue,
            mark: None,
            loss: Loss::NONE,
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let delay = humantime::format_duration(self.delay);
        write!(
            formatter,
            "{delay} each way, {}/s, queue {}",
            self.rate, self.queue
        )?;
        if !self.jitter.is_zero() {
            let jitter = humantime::format_duration(self.jitter);
            write!(formatter, ", jitter {jitter}")?;
        }
        if let Some(mark) = self.mark {
            write!(formatter, ", ECN from {mark}")?;
        }
        match self.loss {
            Loss { share, .. } if share == Share::NONE => Ok(()),
            loss => write!(formatter, ", loss {loss}"),
        }
    }
}

// === impl Loss ===

impl Loss {
    /// Nothing is lost but what the queue drops.
    pub const NONE: Self = Self {
        share: Share::NONE,
        burst: 1.0,
    };
}

impl fmt::Display for Loss {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.share)?;
        if self.burst > 1.0 {
            write!(formatter, " in bursts of {}", self.burst)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_says_what_it_is() {
        let rate = "200Mbit".parse().unwrap();
        let mut way = Way::new(Duration::from_millis(20), rate, "60ms".parse().unwrap());
        let mut link = Link::symmetric(way);
        assert_eq!(link.round_trip(), Duration::from_millis(40));
        let text = "20ms each way, 200Mbit/s, queue 60ms";
        assert_eq!(link.to_string(), text);

        way.jitter = Duration::from_millis(2);
        way.mark = Some("5ms".parse().unwrap());
        way.loss = Loss {
            share: "1%".parse().unwrap(),
            burst: 4.0,
        };
        link.back = way;
        let back = "20ms each way, 200Mbit/s, queue 60ms, jitter 2ms, ECN from 5ms, \
                    loss 1% in bursts of 4";
        assert_eq!(link.to_string(), format!("{text}; back {back}"));
    }
}
