//! What one round trip told: it ends when a packet is acknowledged that was sent after its start.

use std::time::{Duration, Instant};

use crate::Ack;

/// Packets whose least round-trip time tells a queue from jitter (RFC 9406 §4.2).
const GROUP: u32 = 8;

/// One round trip, under way or ended.
#[derive(Debug, Clone, Default)]
pub(super) struct Round {
    start: Option<Instant>,
    acked: u64,
    limited: u64,
    least: Option<Duration>,
    /// The packets of the group under way, and the least round-trip time in it.
    group: (u32, Duration),
    /// The least round-trip time of the latest whole group: the queue of now, without jitter.
    recent: Option<Duration>,
    /// The round-trip time at the end of the round before.
    previous: Duration,
    batch: u64,
    batch_limited: bool,
    ends: bool,
    /// Bytes lost that were sent since the latest cut.
    pub(super) lost: u64,
    /// All bytes lost.
    pub(super) lost_ever: u64,
    /// Whether a queue marked packets.
    pub(super) marked: bool,
    /// Whether, with it, more was lost lately than a medium loses.
    pub(super) excess: bool,
    /// Whether more was lost in it than the medium usually loses.
    pub(super) unusual: bool,
    /// Whether the window was filled.
    pub(super) fills: bool,
    /// How long it took, once it ended.
    pub(super) took: Duration,
}

/// One acknowledgement, added up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batch {
    /// Bytes acknowledged.
    pub(super) bytes: u64,
    /// Whether the window was in use, so that it may grow.
    pub(super) grows: bool,
    /// Whether the round trip is over.
    pub(super) ends_round: bool,
}

// === impl Round ===

impl Round {
    /// One packet was acknowledged after `rtt`.
    pub(super) fn on_ack(&mut self, now: Instant, ack: Ack, rtt: Duration, limited: bool) {
        let start = *self.start.get_or_insert(now);
        self.ends |= ack.sent >= start;
        self.batch += ack.bytes;
        self.batch_limited = limited;
        let (packets, group) = self.group;
        let group = if packets == 0 { rtt } else { group.min(rtt) };
        self.group = (packets + 1, group);
        if packets + 1 == GROUP {
            self.recent = Some(group);
            self.group = (0, Duration::ZERO);
        }
        self.least = Some(self.least.map_or(rtt, |least| least.min(rtt)));
    }

    /// The packets of one acknowledgement are all told.
    pub(super) fn on_acks_end(&mut self, in_flight: u64, window: u64, datagram: u64) -> Batch {
        let bytes = std::mem::take(&mut self.batch);
        let used = in_flight + bytes + 2 * datagram;
        let grows = !self.batch_limited && used >= window / 4 * 3;
        self.acked += bytes;
        self.fills |= grows;
        if self.batch_limited {
            self.limited += bytes;
        }
        Batch {
            bytes,
            grows,
            ends_round: std::mem::take(&mut self.ends),
        }
    }

    /// Bytes were lost; `answered` if they were sent before the latest cut.
    pub(super) fn on_loss(&mut self, bytes: u64, answered: bool) {
        self.lost_ever += bytes;
        if !answered {
            self.lost += bytes;
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
            group: self.group,
            previous: self.last_rtt(),
            ..Self::default()
        };
        let mut ended = std::mem::replace(self, next);
        ended.took = ended
            .start
            .map_or(Duration::ZERO, |start| now.saturating_duration_since(start));
        ended
    }

    /// The round-trip time of the latest packets, once there were enough.
    pub(super) fn recent(&self) -> Option<Duration> {
        self.recent
    }

    /// Bytes acknowledged.
    pub(super) fn acked(&self) -> u64 {
        self.acked
    }

    /// Whether there was mostly too little to send.
    pub(super) fn is_limited(&self) -> bool {
        self.limited * 2 > self.acked
    }

    /// The least round-trip time in it.
    pub(super) fn least(&self) -> Duration {
        self.least.unwrap_or_default()
    }

    /// The round-trip time at its end, without what jitter added; nothing has changed if nothing
    /// was acknowledged.
    pub(super) fn last_rtt(&self) -> Duration {
        self.recent.or(self.least).unwrap_or(self.previous)
    }

    /// The delay of the queue at its end.
    pub(super) fn queue(&self, least_rtt: Duration) -> Duration {
        self.last_rtt().saturating_sub(least_rtt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_without_acknowledgements_has_the_queue_of_the_one_before() {
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
            assert_eq!(ended.queue(Duration::from_millis(40)).as_millis(), 20);
        }
    }
}
