//! The state of one flow: sender, receiver and recorded measurements.

use std::collections::VecDeque;
use std::time::Duration;

use crate::simulation::receiver::ACK_DELAY;
use crate::simulation::{Control, Source};

#[derive(Clone, Copy, PartialEq)]
pub(super) enum State {
    InFlight,
    Settled,
}

pub(super) struct Sent {
    pub(super) at: Duration,
    pub(super) bytes: u64,
    pub(super) state: State,
}

pub(super) struct Flow {
    pub(super) control: Box<dyn Control>,
    pub(super) source: Source,
    pub(super) available: u64,
    /// Number of replacements of the source.
    pub(super) source_changes: u32,
    pub(super) extra_rtt: Duration,
    // State of the sender.
    pub(super) sent: VecDeque<Sent>,
    pub(super) first: u64,
    pub(super) in_flight: u64,
    pub(super) largest_acked: Option<u64>,
    pub(super) smoothed_rtt: Option<Duration>,
    pub(super) rtt_var: Duration,
    pub(super) latest_rtt: Duration,
    pub(super) app_limited: bool,
    pub(super) pacing_tokens: f64,
    pub(super) paced_at: Duration,
    pub(super) pace_timer: u64,
    pub(super) pto_timer: u64,
    pub(super) pto_count: u32,
    // State of the receiver.
    pub(super) expected: u64,
    pub(super) pending: Vec<u64>,
    pub(super) pending_mark: bool,
    pub(super) ack_timer: u64,
    // Measurements.
    pub(super) delivered: Vec<u64>,
    pub(super) finished: Option<Duration>,
    pub(super) lost: u64,
    pub(super) sent_packets: u64,
    pub(super) windows: Vec<(Duration, u64)>,
    /// Times at which the competitive state was entered and left, alternating.
    pub(super) competing_since: Vec<Duration>,
}

impl Flow {
    pub(super) fn new(control: Box<dyn Control>, source: Source, extra_rtt: Duration) -> Self {
        Self {
            control,
            source,
            available: 0,
            source_changes: 0,
            extra_rtt,
            sent: VecDeque::new(),
            first: 0,
            in_flight: 0,
            largest_acked: None,
            smoothed_rtt: None,
            rtt_var: Duration::ZERO,
            latest_rtt: Duration::ZERO,
            app_limited: false,
            pacing_tokens: 0.0,
            paced_at: Duration::ZERO,
            pace_timer: 0,
            pto_timer: 0,
            pto_count: 0,
            expected: 0,
            pending: Vec::new(),
            pending_mark: false,
            ack_timer: 0,
            delivered: Vec::new(),
            finished: None,
            lost: 0,
            sent_packets: 0,
            windows: Vec::new(),
            competing_since: Vec::new(),
        }
    }

    pub(super) fn on_rtt(&mut self, rtt: Duration) {
        self.latest_rtt = rtt;
        if let Some(smoothed_rtt) = self.smoothed_rtt {
            self.rtt_var = (self.rtt_var * 3 + smoothed_rtt.abs_diff(rtt)) / 4;
            self.smoothed_rtt = Some((smoothed_rtt * 7 + rtt) / 8);
        } else {
            self.rtt_var = rtt / 2;
            self.smoothed_rtt = Some(rtt);
        }
    }

    pub(super) fn pto(&self) -> Duration {
        self.smoothed_rtt.unwrap_or(Duration::from_millis(333)) + self.rtt_var * 4 + ACK_DELAY
    }
}
