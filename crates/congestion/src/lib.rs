//! Delay-based congestion controller without I/O.
//!
#![doc = include_str!("../README.md")]

mod ack;

mod phase;

mod path;

mod round;

mod cubic;

mod usage;

use std::time::{Duration, Instant};

use crate::cubic::Cubic;
use crate::path::Path;
use crate::phase::{CongestionAvoidance, Drain, Outcome, Phase};
use crate::round::Round;
use crate::usage::Usage;

pub use crate::ack::Ack;

/// Initial window, in datagrams.
pub const INITIAL_DATAGRAMS: u64 = 32;

/// Minimum window, in datagrams (RFC 9002 §7.2).
const MIN_DATAGRAMS: u64 = 2;

/// Largest factor of a cut after ECN marks or more loss than is tolerated.
const CONGESTION_MAX_FACTOR: f64 = 0.85;

/// Leaves the window below the measured path, so that the queue is empty for a moment.
const DRAIN_FACTOR: f64 = 0.97;

/// Lost datagrams that are no reason to act. A small window loses 3 % by chance.
const LOSS_ALLOWANCE_DATAGRAMS: u64 = 4;

/// Largest step of congestion avoidance in datagrams, if this is more than the part of the window.
const MAX_STEP_DATAGRAMS: u64 = 8;

/// Largest step of congestion avoidance, as a divisor of the window.
const MAX_STEP_DIVISOR: u64 = 16;

/// First step after slow start or a route change, as a divisor of the window.
const INITIAL_STEP_DIVISOR: u64 = 32;

/// Queue delay from which loss above the random loss is a reason to cut, as a divisor of the
/// target.
const OVERFLOW_QUEUE_DIVISOR: u32 = 2;

/// Limit of what one cut because of losses takes, as a divisor of the window.
const MAX_LOSS_CUT_DIVISOR: u64 = 2;

/// Time in the competitive state without a loss, after which a trial cut is made.
const DRAIN_TRIAL_INTERVAL: Duration = Duration::from_secs(10);

/// Lower bound of an RTT that is used as a divisor.
const RTT_FLOOR: Duration = Duration::from_nanos(1);

/// The congestion controller of one path. The documentation of the crate describes its states.
#[derive(Debug, Clone)]
pub struct DelayController {
    datagram: u64,
    window: u64,
    phase: Phase,
    path: Path,
    round: Round,
    usage: Usage,
    /// Losses and marks of packets sent up to this time belong to a cut that was made already.
    recovery_start: Option<Instant>,
}

// === impl DelayController ===

impl DelayController {
    /// Creates the controller of a new path, in slow start with the initial window.
    ///
    /// `datagram` is the size of a datagram in bytes; 0 is taken as 1.
    #[must_use]
    pub fn new(datagram: u16) -> Self {
        let datagram = u64::from(datagram).max(1);
        Self {
            datagram,
            window: INITIAL_DATAGRAMS * datagram,
            phase: Phase::SlowStart(phase::SlowStart::default()),
            path: Path::default(),
            round: Round::default(),
            usage: Usage::default(),
            recovery_start: None,
        }
    }

    /// The congestion window: the bytes that may be in flight. At least two datagrams.
    #[must_use]
    pub fn window(&self) -> u64 {
        self.window
    }

    /// Whether the controller is in slow start.
    #[must_use]
    pub fn is_in_slow_start(&self) -> bool {
        matches!(self.phase, Phase::SlowStart(_))
    }

    /// Whether the controller is in the competitive state, in which the window follows CUBIC.
    #[must_use]
    pub fn is_competing(&self) -> bool {
        matches!(self.phase, Phase::Competitive(_))
    }

    /// Reports that a packet is about to be sent or was just sent.
    ///
    /// Reduces a window that was not used for a long time, before it is sent as one burst.
    pub fn on_sent(&mut self, now: Instant) {
        let initial = INITIAL_DATAGRAMS * self.datagram;
        if let Some(reduced) = self.usage.reduced_window(now, self.window, initial) {
            self.restart(now, reduced);
        }
    }

    /// Reports one acknowledged packet. `app_limited` tells that the application had too little
    /// data to fill the window.
    ///
    /// Each acknowledgement frame is one or more calls, followed by one of [`Self::on_acks_end`].
    pub fn on_ack(&mut self, now: Instant, ack: Ack, app_limited: bool) {
        let rtt = now.saturating_duration_since(ack.sent);
        self.path.on_rtt(now, rtt);
        self.round.on_ack(now, ack, rtt, app_limited);
    }

    /// Reports the end of an acknowledgement frame, with the bytes that are still in flight.
    pub fn on_acks_end(&mut self, now: Instant, in_flight: u64) {
        let min_rtt = self.path.min_rtt();
        let min_window = self.min_window();
        let batch = self
            .round
            .on_acks_end(in_flight, self.window, self.datagram);
        self.usage.on_in_flight(now, in_flight + batch.bytes);
        let queue_delay = self
            .round
            .recent_rtt()
            .map(|rtt| rtt.saturating_sub(min_rtt));
        let mut round_ended = batch.ends_round;
        match &mut self.phase {
            Phase::SlowStart(slow_start) => {
                if batch.window_utilized {
                    self.window += slow_start.growth(batch.bytes);
                }
                // A receiver may delay the acknowledgement of a single packet (ACK delay), which
                // looks like a queue.
                if !self.round.is_app_limited()
                    && queue_delay.is_some_and(|queue_delay| {
                        slow_start.on_queue_delay(queue_delay, min_rtt, self.window)
                    })
                {
                    self.end_round_early(now);
                    round_ended = false;
                }
            }
            // All flows in a queue see the target exceeded at the same time. To cut at once keeps
            // a flow with a longer RTT from growing while the others cut.
            Phase::CongestionAvoidance(_) if !self.round.is_app_limited() => {
                round_ended |=
                    queue_delay.is_some_and(|queue_delay| queue_delay > self.path.target());
            }
            Phase::Competitive(cubic) if batch.window_utilized => {
                cubic.grow(now, min_rtt, batch.bytes, self.datagram);
                // The datagram size may have grown since the loss.
                self.window = cubic.window().max(min_window);
            }
            _ => {}
        }
        if round_ended {
            self.end_round(now);
        }
    }

    /// Reports `bytes` of lost packets; the last of them was sent at `sent`.
    pub fn on_loss(&mut self, now: Instant, sent: Instant, bytes: u64) {
        let in_recovery = self.recovery_start.is_some_and(|start| sent <= start);
        self.round.on_loss(bytes, in_recovery);
        match &self.phase {
            _ if in_recovery => {}
            Phase::SlowStart(slow_start) => {
                let tolerance = slow_start.loss_tolerance(self.window) + self.loss_allowance();
                if self.round.lost_since_cut > tolerance {
                    self.end_round_early(now);
                }
            }
            Phase::Competitive(_) => self.end_round(now),
            Phase::CongestionAvoidance(_) | Phase::Drain(_) => {}
        }
    }

    /// Reports an ECN mark (CE) on packets sent up to `sent`.
    pub fn on_mark(&mut self, sent: Instant) {
        if self.recovery_start.is_none_or(|start| sent > start) {
            self.round.on_mark();
        }
    }

    /// Reports persistent congestion (RFC 9002 §7.6): slow start begins with the minimum window,
    /// and all measurements of the path are discarded.
    pub fn on_persistent_congestion(&mut self, now: Instant) {
        self.restart(now, self.min_window());
    }

    /// Reports a new size of datagrams in bytes; 0 is taken as 1. The minimum window follows it.
    pub fn on_datagram_size(&mut self, datagram: u16) {
        self.datagram = u64::from(datagram).max(1);
        self.window = self.window.max(self.min_window());
    }

    /// Leaves slow start before the round ends.
    fn end_round_early(&mut self, now: Instant) {
        self.close_round(now);
        self.exit_slow_start(now);
    }

    fn close_round(&mut self, now: Instant) -> Round {
        let mut ended = self.round.restart(now);
        self.path.on_round(now, &mut ended, self.datagram);
        ended.excess_loss = self.path.exceeds_tolerated_loss(self.loss_allowance());
        ended
    }

    fn end_round(&mut self, now: Instant) {
        let ended = self.close_round(now);
        let min_window = self.min_window();
        match &mut self.phase {
            Phase::SlowStart(_) if ended.marked => self.exit_slow_start(now),
            Phase::SlowStart(_) => {}
            Phase::CongestionAvoidance(_) => self.grow_or_cut(now, &ended),
            Phase::Drain(drain) => {
                let outcome = drain.on_round_end(now, &ended, &self.path);
                self.apply(now, outcome, &ended);
            }
            Phase::Competitive(cubic) => {
                let mut next = cubic.clone();
                if ended.lost_since_cut > 0 || ended.marked {
                    next.on_loss(now, min_window);
                } else if cubic.age(now) > DRAIN_TRIAL_INTERVAL {
                    next = Cubic::new(now, self.window);
                } else {
                    return;
                }
                self.cut(now, &ended, Drain::trial(self.datagram, next));
            }
        }
    }

    fn grow_or_cut(&mut self, now: Instant, ended: &Round) {
        let Phase::CongestionAvoidance(avoidance) = &mut self.phase else {
            return;
        };
        let target = self.path.target();
        let queue_delay = ended.queue_delay(self.path.min_rtt());
        let congested = ended.marked
            || ended.excess_loss
            || (ended.above_random_loss && queue_delay > target / OVERFLOW_QUEUE_DIVISOR);
        if !ended.is_app_limited() && queue_delay > target {
            let cubic = Cubic::new(now, self.window);
            let drain = avoidance.cut(self.datagram, cubic);
            self.cut(now, ended, drain);
        } else if congested
            || (!ended.is_app_limited() && avoidance.queue_fell(queue_delay, target))
        {
            self.cut(now, ended, Drain::new(self.datagram));
        } else if ended.window_utilized {
            let max_step = (self.window / MAX_STEP_DIVISOR).max(MAX_STEP_DATAGRAMS * self.datagram);
            self.window += avoidance.take_step(queue_delay, target, (self.datagram, max_step));
        }
    }

    /// Cuts the window by the content of the queue and waits in the drain state for the effect.
    fn cut(&mut self, now: Instant, ended: &Round, drain: Drain) {
        let min_rtt = self.path.min_rtt();
        let rtt = ended.last_rtt().max(min_rtt).max(RTT_FLOOR);
        let max_factor = if ended.excess_loss || ended.marked {
            CONGESTION_MAX_FACTOR
        } else {
            1.0
        };
        let (floor, ceiling) = drain.factor_bounds();
        let factor =
            (DRAIN_FACTOR * min_rtt.div_duration_f64(rtt)).clamp(floor, ceiling.min(max_factor));
        let mut window = (self.window as f64 * factor) as u64;
        if ended.excess_loss {
            // Follows at once when the path has become much narrower.
            window = window.min(self.path.bdp().max(self.window / MAX_LOSS_CUT_DIVISOR));
            self.path.halve_losses();
        }
        self.window = window.max(self.min_window());
        self.recovery_start = Some(now);
        self.phase = Phase::Drain(drain.begin(rtt, min_rtt));
    }

    fn apply(&mut self, now: Instant, outcome: Outcome, ended: &Round) {
        match outcome {
            Outcome::Pending => {}
            Outcome::Drained(avoidance) => self.phase = Phase::CongestionAvoidance(avoidance),
            Outcome::CutAgain(drain) => self.cut(now, ended, drain),
            Outcome::Rerouted(cubic) => {
                self.window = cubic.window().max(self.min_window());
                self.path.on_route(now, ended.min_rtt());
                self.phase = Phase::CongestionAvoidance(CongestionAvoidance::new(
                    (self.window / INITIAL_STEP_DIVISOR).max(self.datagram),
                ));
            }
            Outcome::CompetingFlow(cubic) => {
                self.window = cubic.window().max(self.min_window());
                self.phase = Phase::Competitive(cubic);
            }
        }
    }

    fn exit_slow_start(&mut self, now: Instant) {
        let Phase::SlowStart(slow_start) = &self.phase else {
            return;
        };
        self.window = slow_start.exit_window(self.window).max(self.min_window());
        let step = (self.window / INITIAL_STEP_DIVISOR).max(self.datagram);
        self.phase = Phase::Drain(Drain::new(step));
        self.recovery_start = Some(now);
    }

    /// Discards all measurements of the path and starts slow start from `window` bytes.
    fn restart(&mut self, now: Instant, window: u64) {
        *self = Self {
            window,
            recovery_start: Some(now),
            datagram: self.datagram,
            // The use of the window depends on the sender, not on the path.
            usage: std::mem::take(&mut self.usage),
            ..Self::new(0)
        };
    }

    fn min_window(&self) -> u64 {
        MIN_DATAGRAMS * self.datagram
    }

    fn loss_allowance(&self) -> u64 {
        LOSS_ALLOWANCE_DATAGRAMS * self.datagram
    }
}
