//! What a link has done so far.

use std::fmt;
use std::time::Duration;

/// Width of a histogram's bucket: finer than what a thread that sleeps can promise.
const STEP: Duration = Duration::from_micros(50);

/// Buckets of a histogram, up to a second; what is longer is counted in the last.
const STEPS: usize = 20_000;

/// Counters of one way.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    /// Packets that arrived.
    pub packets: u64,
    /// Their bytes with IP headers.
    pub bytes: u64,
    /// Packets that the dice took.
    pub lost: u64,
    /// Packets that found the queue full.
    pub overflowed: u64,
    /// Packets that were marked.
    pub marked: u64,
    /// Packets that the receiving side did not take; a fault of the measurement, not of the link.
    pub refused: u64,
    /// How long packets waited for the transmitter.
    pub waited: Histogram,
    /// How much later than computed they were handed over: how well the program kept up.
    pub late: Histogram,
}

/// How often something took how long, in steps of 50 µs up to a second.
#[derive(Debug, Clone, Default)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

// === impl Counters ===

impl Counters {
    /// Packets that were offered.
    pub fn offered(&self) -> u64 {
        self.packets + self.lost + self.overflowed
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            packets,
            bytes,
            lost,
            overflowed,
            marked,
            refused,
            waited,
            late,
        } = self;
        write!(
            formatter,
            "{packets} packets, {bytes} bytes, {lost} lost, {overflowed} dropped by the queue, \
             {marked} marked, {refused} refused; queued p50 {:?} p99 {:?}, late p50 {:?} p99 {:?}",
            waited.percentile(50),
            waited.percentile(99),
            late.percentile(50),
            late.percentile(99),
        )
    }
}

// === impl Histogram ===

impl Histogram {
    /// Counts one more.
    pub fn add(&mut self, time: Duration) {
        if self.counts.is_empty() {
            self.counts = vec![0; STEPS];
        }
        let step = usize::try_from(time.as_micros() / STEP.as_micros()).unwrap_or(STEPS);
        self.counts[step.min(STEPS - 1)] += 1;
        self.total += 1;
    }

    /// The upper end of the bucket that holds the smallest value which `percent` of all values do
    /// not exceed; nothing took no time.
    pub fn percentile(&self, percent: u64) -> Duration {
        let rank = (self.total * percent).div_ceil(100).max(1);
        let mut seen = 0;
        for (bound, count) in (1..).zip(&self.counts) {
            seen += count;
            if seen >= rank {
                return STEP * bound;
            }
        }
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_exact_to_a_step() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(99), Duration::ZERO);
        for millisecond in 0..100 {
            histogram.add(Duration::from_millis(millisecond));
        }
        for (percent, milliseconds) in [(1, 0), (50, 49), (99, 98), (100, 99)] {
            let bound = Duration::from_millis(milliseconds) + STEP;
            assert_eq!(histogram.percentile(percent), bound, "{percent}");
        }
        histogram.add(Duration::from_secs(100));
        assert_eq!(histogram.percentile(100), Duration::from_secs(1));
    }
}
