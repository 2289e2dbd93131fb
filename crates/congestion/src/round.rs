//! One round trip. It ends when a packet is acknowledged that was sent after its start.

use std::time::{Duration, Instant};

use crate::ack::Ack;

/// RTT samples of which the lowest is used, as a filter for jitter (RFC 9406 §4.3).
const N_RTT_SAMPLE: u32 = 8;

/// Quarters of the window that have to be in flight in a window that is utilized.
const UTILIZED_QUARTERS: u64 = 3;

/// Datagrams that may be missing in flight for reasons of packetization.
const UTILIZATION_SLACK_DATAGRAMS: u64 = 2;

/// A round, in progress or ended.
#[derive(Debug, Clone, Default)]
pub(super) struct Round {
    start: Option<Instant>,
    acked: u64,
    app_limited: u64,
    min_rtt: Option<Duration>,
    /// Number of RTT samples since `recent_rtt` was set, and the lowest of them.
    samples: (u32, Duration),
    /// The lowest of the latest [`N_RTT_SAMPLE`] samples.
    recent_rtt: Option<Duration>,
    /// RTT at the end of the previous round.
    previous: Duration,
    batch: u64,
    batch_app_limited: bool,
    ends: bool,
    /// Bytes lost of packets sent after the latest cut.
    pub(super) lost_since_cut: u64,
    /// Bytes lost of all packets.
    pub(super) lost_total: u64,
    /// Whether packets had ECN marks.
    pub(super) marked: bool,
    /// Whether the recent loss, including this round, exceeds the tolerated rate.
    pub(super) excess_loss: bool,
    /// Whether more was lost in this round than random loss explains.
    pub(super) above_random_loss: bool,
    /// Whether the window was utilized.
    pub(super) window_utilized: bool,
    /// Duration of the round; zero until it has ended.
    pub(super) duration: Duration,
}

/// The sum over one acknowledgement frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batch {
    /// Bytes acknowledged.
    pub(super) bytes: u64,
    /// Whether the window was utilized, so that it may grow (RFC 9002 §7.8).
    pub(super) window_utilized: bool,
    /// Whether it ends the round.
    pub(super) ends_round: bool,
}

// === impl Round ===

impl Round {
    /// Takes one acknowledged packet and its RTT.
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

    /// Takes the end of an acknowledgement frame.
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

    /// Takes lost bytes. `in_recovery` tells that they were sent before the latest cut.
    pub(super) fn on_loss(&mut self, bytes: u64, in_recovery: bool) {
        self.lost_total += bytes;
        if !in_recovery {
            self.lost_since_cut += bytes;
        }
    }

    /// Takes an ECN mark.
    pub(super) fn on_mark(&mut self) {
        self.marked = true;
    }

    /// Ends this round, starts the next one and returns the ended one.
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

    /// The lowest of the latest RTT samples; none until there are enough.
    pub(super) fn recent_rtt(&self) -> Option<Duration> {
        self.recent_rtt
    }

    /// Bytes acknowledged.
    pub(super) fn acked(&self) -> u64 {
        self.acked
    }

    /// Whether most bytes were acknowledged while the application had too little data.
    pub(super) fn is_app_limited(&self) -> bool {
        self.app_limited * 2 > self.acked
    }

    /// The lowest RTT of the round; zero without samples.
    pub(super) fn min_rtt(&self) -> Duration {
        self.min_rtt.unwrap_or_default()
    }

    /// RTT at the end of the round, without jitter. A round without samples keeps the previous
    /// RTT.
    pub(super) fn last_rtt(&self) -> Duration {
        self.recent_rtt.or(self.min_rtt).unwrap_or(self.previous)
    }

    /// Queue delay at the end of the round.
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
