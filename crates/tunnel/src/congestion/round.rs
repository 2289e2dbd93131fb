//! What one round trip told: it ends when a packet is acknowledged that was sent after its start.

use std::time::{Duration, Instant};

use crate::congestion::Ack;

/// One round trip, under way or ended.
#[derive(Debug, Clone, Default)]
pub(super) struct Round {
    start: Option<Instant>,
    last_ack: Option<Instant>,
    acked: u64,
    limited: u64,
    samples: u32,
    least: Option<Duration>,
    /// The least of the second half, which shows the queue of now rather than of a round trip ago.
    tail: Option<Duration>,
    batch: u64,
    batch_limited: bool,
    ends: bool,
    /// Bytes lost.
    pub(super) lost: u64,
    /// Whether a queue marked packets.
    pub(super) marked: bool,
    /// Whether, with it, more was lost lately than a medium loses.
    pub(super) excess: bool,
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
    /// How long nothing was acknowledged.
    pub(super) fn idle_since(&self, now: Instant) -> Duration {
        self.last_ack
            .map_or(Duration::ZERO, |last| now.saturating_duration_since(last))
    }

    /// One packet was acknowledged after `rtt`.
    pub(super) fn on_ack(&mut self, now: Instant, ack: Ack, rtt: Duration, limited: bool) {
        let start = *self.start.get_or_insert(now);
        self.ends |= ack.sent >= start;
        self.last_ack = Some(now);
        self.batch += ack.bytes;
        self.batch_limited = limited;
        self.samples += 1;
        self.least = Some(self.least.map_or(rtt, |least| least.min(rtt)));
        self.tail = Some(self.tail.map_or(rtt, |least| least.min(rtt)));
    }

    /// The packets of one acknowledgement are all told.
    pub(super) fn on_acks_end(
        &mut self,
        now: Instant,
        in_flight: u64,
        window: u64,
        least_rtt: Duration,
    ) -> Batch {
        let bytes = std::mem::take(&mut self.batch);
        let grows = !self.batch_limited && (in_flight + bytes) / 3 * 4 >= window / 8 * 7;
        self.acked += bytes;
        self.fills |= grows;
        if self.batch_limited {
            self.limited += bytes;
        }
        let early = self
            .start
            .is_some_and(|start| now.saturating_duration_since(start) < least_rtt / 2);
        if early {
            self.tail = None;
        }
        Batch {
            bytes,
            grows,
            ends_round: std::mem::take(&mut self.ends),
        }
    }

    /// Bytes were lost.
    pub(super) fn on_loss(&mut self, bytes: u64) {
        self.lost += bytes;
    }

    /// A queue marked packets.
    pub(super) fn on_mark(&mut self) {
        self.marked = true;
    }

    /// Ends this round trip and begins the next.
    pub(super) fn restart(&mut self, now: Instant) -> Self {
        let next = Self {
            start: Some(now),
            last_ack: self.last_ack,
            ..Self::default()
        };
        let mut ended = std::mem::replace(self, next);
        ended.took = ended
            .start
            .map_or(Duration::ZERO, |start| now.saturating_duration_since(start));
        ended
    }

    /// Packets acknowledged.
    pub(super) fn samples(&self) -> u32 {
        self.samples
    }

    /// Bytes acknowledged.
    pub(super) fn acked(&self) -> u64 {
        self.acked
    }

    /// Bytes lost.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// Whether there was mostly too little to send.
    pub(super) fn is_limited(&self) -> bool {
        self.limited * 2 > self.acked
    }

    /// The least round-trip time in it.
    pub(super) fn least(&self) -> Duration {
        self.least.unwrap_or_default()
    }

    /// The round-trip time at its end, without what jitter added.
    pub(super) fn last_rtt(&self) -> Duration {
        self.tail.or(self.least).unwrap_or_default()
    }

    /// The delay of the queue at its end.
    pub(super) fn queue(&self, least_rtt: Duration) -> Duration {
        self.last_rtt().saturating_sub(least_rtt)
    }
}
