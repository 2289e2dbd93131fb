//! What one round trip told: it ends when a packet is acknowledged that was sent after its start.

use std::time::{Duration, Instant};

use crate::Ack;

/// Packets whose least round-trip time tells a queue from jitter (RFC 9406 §4.2).
const N_RTT_SAMPLE: u32 = 8;

/// Quarters of the window that have to be in flight for it to count as utilized.
const UTILIZED_QUARTERS: u64 = 3;

/// Datagrams that may be missing from a window that is in flight as a whole.
const UTILIZATION_SLACK_DATAGRAMS: u64 = 2;

/// One round trip, under way or ended.
#[derive(Debug, Clone, Default)]
pub(super) struct Round {
    start: Option<Instant>,
    acked: u64,
    app_limited: u64,
    min_rtt: Option<Duration>,
    /// The packets of the group under way, and the least round-trip time in it.
    samples: (u32, Duration),
    /// The least round-trip time of the latest whole group: the queue of now, without jitter.
    recent_rtt: Option<Duration>,
    /// The round-trip time at the end of the round before.
    previous: Duration,
    batch: u64,
    batch_app_limited: bool,
    ends: bool,
    /// Bytes lost that were sent since the latest cut.
    pub(super) lost_since_cut: u64,
    /// All bytes lost.
    pub(super) lost_total: u64,
    /// Whether a queue marked packets.
    pub(super) marked: bool,
    /// Whether, with it, more was lost lately than a medium loses.
    pub(super) excess_loss: bool,
    /// Whether more was lost in it than the medium usually loses.
    pub(super) above_random_loss: bool,
    /// Whether the window was filled.
    pub(super) window_utilized: bool,
    /// How long it took, once it ended.
    pub(super) duration: Duration,
}

/// One acknowledgement, added up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batch {
    /// Bytes acknowledged.
    pub(super) bytes: u64,
    /// Whether the window was in use, so that it may grow.
    pub(super) window_utilized: bool,
    /// Whether the round trip is over.
    pub(super) ends_round: bool,
}

// === impl Round ===

impl Round {
    /// One packet was acknowledged after `rtt`.
    pub(super) fn on_ack(&mut self, now: Instant, ack: Ack, rtt: Duration, app_limited: bool) {
        let start = *self.start.get_or_insert(now);
        self.ends |= ack.sent >= start;
        self.batch += ack.bytes;
        self.batch_app_limited = app_limited;
        let (count, min_rtt) = self.samples;
        let min_rtt = if count == 0 { rtt } else { min_rtt.min(rtt) };
        self.samples = (count + 1, min_rtt);
        if count + 1 == N_RTT_SAMPLE {
            self.recent_rtt = Some(min_rtt);
            self.samples = (0, Duration::ZERO);
        }
        self.min_rtt = Some(self.min_rtt.map_or(rtt, |min_rtt| min_rtt.min(rtt)));
    }

    /// The packets of one acknowledgement are all told.
    pub(super) fn on_acks_end(&mut self, in_flight: u64, window: u64, datagram: u64) -> Batch {
        let bytes = std::mem::take(&mut self.batch);
        let utilized = in_flight + bytes + UTILIZATION_SLACK_DATAGRAMS * datagram;
        let window_utilized = !self.batch_app_limited && utilized >= window / 4 * UTILIZED_QUARTERS;
        self.acked += bytes;
        self.window_utilized |= window_utilized;
        if self.batch_app_limited {
            self.app_limited += bytes;
        }
        Batch {
            bytes,
            window_utilized,
            ends_round: std::mem::take(&mut self.ends),
        }
    }

    /// Bytes were lost; `in_recovery` if they were sent before the latest cut.
    pub(super) fn on_loss(&mut self, bytes: u64, in_recovery: bool) {
        self.lost_total += bytes;
        if !in_recovery {
            self.lost_since_cut += bytes;
        }
    }

    /// A queue marked packets.
    pub(super) fn on_mark(&mut self) {
        self.marked = true;
    }

    /// Ends this round trip and begins the next.
    pub(super) fn restart(&mut self, now: Instant) -> Self {
        let next = Self {
            start: Some(now),
            samples: self.samples,
            previous: self.last_rtt(),
            ..Self::default()
        };
        let mut ended = std::mem::replace(self, next);
        ended.duration = ended
            .start
            .map_or(Duration::ZERO, |start| now.saturating_duration_since(start));
        ended
    }

    /// The round-trip time of the latest packets, once there were enough.
    pub(super) fn recent_rtt(&self) -> Option<Duration> {
        self.recent_rtt
    }

    /// Bytes acknowledged.
    pub(super) fn acked(&self) -> u64 {
        self.acked
    }

    /// Whether there was mostly too little to send.
    pub(super) fn is_app_limited(&self) -> bool {
        self.app_limited * 2 > self.acked
    }

    /// The least round-trip time in it.
    pub(super) fn min_rtt(&self) -> Duration {
        self.min_rtt.unwrap_or_default()
    }

    /// The round-trip time at its end, without what jitter added; nothing has changed if nothing
    /// was acknowledged.
    pub(super) fn last_rtt(&self) -> Duration {
        self.recent_rtt.or(self.min_rtt).unwrap_or(self.previous)
    }

    /// The delay of the queue at its end.
    pub(super) fn queue_delay(&self, min_rtt: Duration) -> Duration {
        self.last_rtt().saturating_sub(min_rtt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_without_acknowledgements_keeps_the_previous_queue_delay() {
        let start = Instant::now();
        let rtt = Duration::from_millis(60);
        let mut round = Round::default();
        let ack = Ack {
            sent: start,
            bytes: 1200,
        };
        round.on_ack(start + rtt, ack, rtt, false);
        round.on_acks_end(1200, 2400, 1200);
        for _ in 0..2 {
            let ended = round.restart(start + rtt);
            assert_eq!(ended.queue_delay(Duration::from_millis(40)).as_millis(), 20);
        }
    }
}
