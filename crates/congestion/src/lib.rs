//! How much a session may have on its way: bounded in delay, tolerant of loss, polite beside TCP.
//!
//! The pure half of a congestion controller: it is told of acknowledgements, losses and marks, with
//! the time, and answers [`DelayController::window`]. One decision is made per round trip. The rules:
//!
//! - **Start-up** doubles each round trip, and ends when the queue shows ([`HyStart++`], RFC 9406),
//!   not when it overflows.
//! - **Grow.** The window grows in steps that rise while the queue is empty and hardly rise near
//!   its target: a quarter of the least round trip and 4 ms, or half of what overflowed before.
//!   Steps depend on the delay, which all who share a queue see alike, and cuts are proportional:
//!   so shares converge. Who sees the queue fall while growing cuts along with whoever did.
//! - **Drain.** Above the target, or where packets are lost or marked while a queue stands, the
//!   window is cut by what the queue holds. A cut that drains costs no throughput, and shows the
//!   least round trip to everybody who shares the path, newcomers included. A cut that finds a
//!   lower one than was known is followed by another: a queue had been taken for the path.
//! - **Reroute.** A cut to half that does not change the round trip at all had no queue to drain:
//!   the route is longer now, and the window before the cuts is restored. Unless a queue was seen
//!   full lately at a longer round trip: that one stands, and our share is too small to show.
//! - **Compete.** A queue that shrinks but does not drain is kept by somebody who does not mind
//!   delay. Then the window before the cuts is restored and follows CUBIC (RFC 9438) from there, no
//!   better and no worse than the rival; each loss is an occasion to try the drain again.
//! - **Loss** without a queue is taken for the medium's, up to 5 % of the recent round trips; beyond,
//!   it is a cut. Persistent congestion (RFC 9002 §7.6) starts over from the minimum window.
//! - **Unused.** A window of which less than a quarter was used for ten seconds becomes twice what
//!   was used, or the initial one, before the next burst, and starts up again (cf. RFC 7661).
//! - A round trip in which there was too little to send decides nothing.
//!
//! [`HyStart++`]: https://www.rfc-editor.org/rfc/rfc9406

use std::time::{Duration, Instant};

use crate::cubic::Cubic;
use crate::path::Path;
use crate::phase::{CongestionAvoidance, Drain, Outcome, Phase};
use crate::round::Round;
use crate::usage::Usage;

mod phase;

mod path;

mod round;

mod cubic;

mod usage;

/// Datagrams that may be sent before anything is known of the path.
pub const INITIAL_DATAGRAMS: u64 = 32;

/// The least window, in datagrams (RFC 9002 §7.2).
const MIN_DATAGRAMS: u64 = 2;

/// What a cut leaves at most if packets were marked, or lost beyond what is tolerated.
const CONGESTION_MAX_FACTOR: f64 = 0.85;

/// What a cut leaves below the measured path, so that the queue is empty for a moment.
const DRAIN_FACTOR: f64 = 0.97;

/// Lost datagrams that prove nothing: a small window loses 3 % by bad luck.
const LOSS_ALLOWANCE_DATAGRAMS: u64 = 4;

/// A step is a sixteenth of the window at most, or so many datagrams.
const MAX_STEP_DATAGRAMS: u64 = 8;

/// The largest step, as a divisor of the window.
const MAX_STEP_DIVISOR: u64 = 16;

/// The first step after slow start or a change of the route, as a divisor of the window.
const INITIAL_STEP_DIVISOR: u64 = 32;

/// Losses above the random ones are an overflow from this part of the target delay on.
const OVERFLOW_QUEUE_DIVISOR: u32 = 2;

/// What one cut because of losses takes at most, as a divisor of the window.
const MAX_LOSS_CUT_DIVISOR: u64 = 2;

/// How long to compete at most before the drain is tried again.
const DRAIN_TRIAL_INTERVAL: Duration = Duration::from_secs(10);

/// No round trip is shorter, where lengths are divided.
const RTT_FLOOR: Duration = Duration::from_nanos(1);

/// An acknowledged packet.
#[derive(Debug, Clone, Copy)]
pub struct Ack {
    /// When the packet was sent.
    pub sent: Instant,
    /// Its size.
    pub bytes: u64,
}

/// A congestion window for one path; see the module.
#[derive(Debug, Clone)]
pub struct DelayController {
    datagram: u64,
    window: u64,
    phase: Phase,
    path: Path,
    round: Round,
    usage: Usage,
    /// Losses of what was sent until then are answered.
    recovery_start: Option<Instant>,
}

// === impl DelayBounded ===

impl DelayController {
    /// A new path, with datagrams of so many bytes.
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

    /// Bytes that may be on their way unacknowledged; never less than two datagrams.
    #[must_use]
    pub fn window(&self) -> u64 {
        self.window
    }

    /// Whether the window still doubles, for the path has shown no end.
    #[must_use]
    pub fn is_in_slow_start(&self) -> bool {
        matches!(self.phase, Phase::SlowStart(_))
    }

    /// Whether the window follows CUBIC, because a queue stands that is not ours.
    #[must_use]
    pub fn is_competing(&self) -> bool {
        matches!(self.phase, Phase::Competitive(_))
    }

    /// Something was just sent, or is about to be: a window that was not used for long is old.
    pub fn on_sent(&mut self, now: Instant) {
        let initial = INITIAL_DATAGRAMS * self.datagram;
        if let Some(reduced) = self.usage.reduced_window(now, self.window, initial) {
            self.restart(now, reduced);
        }
    }

    /// One packet was acknowledged; `app_limited` if there was too little to send before.
    pub fn on_ack(&mut self, now: Instant, ack: Ack, app_limited: bool) {
        let rtt = now.saturating_duration_since(ack.sent);
        self.path.on_rtt(now, rtt);
        self.round.on_ack(now, ack, rtt, app_limited);
    }

    /// All packets of one acknowledgement are told; `in_flight` bytes remain.
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
                // A packet alone is acknowledged late: that is no queue.
                if !self.round.is_app_limited()
                    && queue_delay.is_some_and(|queue_delay| {
                        slow_start.on_queue_delay(queue_delay, min_rtt, self.window)
                    })
                {
                    self.end_round_early(now);
                    round_ended = false;
                }
            }
            // Who shares the queue sees the same at the same time: nobody is left behind to grow.
            Phase::CongestionAvoidance(_) if !self.round.is_app_limited() => {
                round_ended |=
                    queue_delay.is_some_and(|queue_delay| queue_delay > self.path.target());
            }
            Phase::Competitive(cubic) if batch.window_utilized => {
                cubic.grow(now, min_rtt, batch.bytes, self.datagram);
                // Datagrams may have become larger since the loss.
                self.window = cubic.window().max(min_window);
            }
            _ => {}
        }
        if round_ended {
            self.end_round(now);
        }
    }

    /// Bytes were lost; the last of them was sent at `sent`.
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

    /// A queue told of itself (ECN), about packets sent until `sent`.
    pub fn on_mark(&mut self, sent: Instant) {
        if self.recovery_start.is_none_or(|start| sent > start) {
            self.round.on_mark();
        }
    }

    /// All that was sent for several timeouts is lost (RFC 9002 §7.6): the path may be another.
    pub fn on_persistent_congestion(&mut self, now: Instant) {
        self.restart(now, self.min_window());
    }

    /// The path takes datagrams of another size.
    pub fn on_datagram_size(&mut self, datagram: u16) {
        self.datagram = u64::from(datagram).max(1);
        self.window = self.window.max(self.min_window());
    }

    /// The start-up is over, in the middle of a round trip.
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

    /// Takes out of the window what the queue holds.
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
            // A path that became much narrower is followed at once.
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

    /// Forgets the path, and starts up from this window.
    fn restart(&mut self, now: Instant, window: u64) {
        *self = Self {
            window,
            recovery_start: Some(now),
            datagram: self.datagram,
            // What was used is a fact of the sender, not of the path.
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
