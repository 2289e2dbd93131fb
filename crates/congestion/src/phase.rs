//! The states of the controller: slow start, congestion avoidance, drain and competitive.

use std::time::{Duration, Instant};

use crate::cubic::Cubic;
use crate::path::{EMPTY_QUEUE_DIVISOR, Path};
use crate::round::Round;

/// Lower bound of the queue delay that ends slow start (RFC 9406 §4.3).
const MIN_RTT_THRESH: Duration = Duration::from_millis(4);

/// Upper bound of the queue delay that ends slow start (RFC 9406 §4.3).
const MAX_RTT_THRESH: Duration = Duration::from_millis(16);

/// Queue delay that ends slow start, as a divisor of the minimum RTT (RFC 9406 §4.3).
const MIN_RTT_DIVISOR: u32 = 8;

/// Queue delay that starts conservative slow start (CSS), as a divisor of the one that ends it.
const CSS_THRESH_DIVISOR: u32 = 3;

/// Growth in conservative slow start, as a divisor of the growth in slow start (RFC 9406 §4.3).
const CSS_GROWTH_DIVISOR: u64 = 4;

/// Loss that ends slow start, as a divisor of the window.
const SLOW_START_LOSS_DIVISOR: u64 = 8;

/// Loss that ends conservative slow start, as a divisor of the window.
const CSS_LOSS_DIVISOR: u64 = 32;

/// The window after slow start, as a divisor of the window at the start of its conservative part.
const SLOW_START_EXIT_DIVISOR: u64 = 2;

/// Growth of the step per round while the queue is empty, as a fraction.
const STEP_GROWTH_EMPTY: (u64, u64) = (3, 2);

/// Growth of the step per round while the queue is short, as a fraction.
const STEP_GROWTH_SHORT: (u64, u64) = (5, 4);

/// Growth of the step per round near the target, as a fraction.
const STEP_GROWTH_NEAR_TARGET: (u64, u64) = (11, 10);

/// Queue delay below which the queue is regarded as short, as a divisor of the target.
const SHORT_QUEUE_DIVISOR: u32 = 2;

/// Smallest decrease of the queue delay that counts as one, as a divisor of the target.
const QUEUE_FALL_DIVISOR: u32 = 4;

/// Ineffective cuts, after the first, that prove a competing flow or a longer route.
const MAX_INEFFECTIVE_CUTS: u32 = 2;

/// Rounds to wait for the effect of a cut. Packets acknowledged in the first were sent before the
/// cut.
const DRAIN_WAIT_ROUNDS: u32 = 3;

/// A cut that changes the RTT by no more than this has not drained any queue.
const REROUTE_NOISE: Duration = Duration::from_millis(1);

/// Smallest decrease of the minimum RTT that reveals a hidden queue, as a divisor of it.
const HIDDEN_QUEUE_DIVISOR: u32 = 64;

/// The same as a time, if this is longer: the jitter of the minimum RTT.
const HIDDEN_QUEUE_NOISE: Duration = Duration::from_micros(500);

/// Smallest factor of a first cut. A longer queue needs a second cut.
const FIRST_CUT_MIN_FACTOR: f64 = 0.7;

/// Smallest factor of all further cuts.
const REPEATED_CUT_MIN_FACTOR: f64 = 0.35;

/// Largest factor of a cut that looks for a lower minimum RTT.
const PROBE_MAX_FACTOR: f64 = 0.85;

/// The state of the controller.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    /// The window doubles per round.
    SlowStart(SlowStart),
    /// The window grows by a step per round.
    CongestionAvoidance(CongestionAvoidance),
    /// A cut was made and its effect is not known yet.
    Drain(Drain),
    /// The window follows CUBIC beside a competing flow.
    Competitive(Cubic),
}

/// Slow start with its conservative part.
#[derive(Debug, Clone, Default)]
pub(super) struct SlowStart {
    /// The window when conservative slow start began; none outside it.
    css_window: Option<u64>,
}

/// Congestion avoidance.
#[derive(Debug, Clone)]
pub(super) struct CongestionAvoidance {
    /// Bytes that the next round adds to the window.
    step: u64,
    /// Queue delay of the previous round.
    last_queue_delay: Duration,
    /// Ineffective cuts so far, and the CUBIC window from before them.
    ineffective_cuts: Option<(u32, Cubic)>,
}

/// The wait for the effect of a cut.
#[derive(Debug, Clone)]
pub(super) struct Drain {
    /// Rounds since the cut.
    rounds: u32,
    /// Ineffective cuts before this one.
    ineffective_cuts: u32,
    /// RTT at the cut.
    rtt_at_cut: Duration,
    /// Minimum RTT that was known at the cut.
    min_rtt_at_cut: Duration,
    /// Whether the cut looks for a lower minimum RTT.
    probes_min_rtt: bool,
    /// Window of the competitive state, from before the cuts; none if the cut had another reason
    /// than the queue delay.
    cubic: Option<Cubic>,
    /// First step of the congestion avoidance that follows, in bytes.
    step: u64,
}

/// The result of a round in the drain state.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The effect of the cut is not known yet.
    Pending,
    /// The queue is empty, or further cuts are left to congestion avoidance.
    Drained(CongestionAvoidance),
    /// Another cut is needed.
    CutAgain(Drain),
    /// The last cut did not change the RTT: the route has become longer and there is no queue.
    Rerouted(Cubic),
    /// A competing flow keeps the queue full.
    CompetingFlow(Cubic),
}

// === impl SlowStart ===

impl SlowStart {
    /// Bytes to add to the window for `acked` bytes (RFC 9406 §4.2).
    pub(super) fn growth(&self, acked: u64) -> u64 {
        if self.css_window.is_some() {
            acked / CSS_GROWTH_DIVISOR
        } else {
            acked
        }
    }

    /// Takes the present queue delay and returns whether it ends slow start.
    pub(super) fn on_queue_delay(
        &mut self,
        queue_delay: Duration,
        min_rtt: Duration,
        window: u64,
    ) -> bool {
        let threshold = (min_rtt / MIN_RTT_DIVISOR).clamp(MIN_RTT_THRESH, MAX_RTT_THRESH);
        if queue_delay < threshold / CSS_THRESH_DIVISOR {
            self.css_window = None;
        } else {
            self.css_window.get_or_insert(window);
        }
        queue_delay >= threshold
    }

    /// Lost bytes that do not end slow start.
    pub(super) fn loss_tolerance(&self, window: u64) -> u64 {
        window
            / if self.css_window.is_some() {
                CSS_LOSS_DIVISOR
            } else {
                SLOW_START_LOSS_DIVISOR
            }
    }

    /// The window after slow start. Half of the window at the start of the conservative part was
    /// in flight when the queue began to grow.
    pub(super) fn exit_window(&self, window: u64) -> u64 {
        self.css_window.unwrap_or(window) / SLOW_START_EXIT_DIVISOR
    }
}

// === impl CongestionAvoidance ===

impl CongestionAvoidance {
    /// Starts with a first step in bytes.
    pub(super) fn new(step: u64) -> Self {
        Self {
            step,
            last_queue_delay: Duration::ZERO,
            ineffective_cuts: None,
        }
    }

    /// The cut because of a queue delay above the target. `cubic` holds the present window, which
    /// is kept only if this is the first cut.
    pub(super) fn cut(&self, step: u64, cubic: Cubic) -> Drain {
        let (ineffective_cuts, cubic) = self.ineffective_cuts.clone().unwrap_or((0, cubic));
        Drain {
            ineffective_cuts,
            ..Drain::for_queue(step, cubic)
        }
    }

    /// Whether the queue became shorter although this window grew, because other flows were cut.
    pub(super) fn queue_fell(&self, queue_delay: Duration, target: Duration) -> bool {
        queue_delay + target / QUEUE_FALL_DIVISOR < self.last_queue_delay
    }

    /// Returns the bytes to add, and grows the next step within `bounds` (in bytes).
    ///
    /// The growth depends on the queue delay, which all flows in a queue share, and not on the
    /// window. Therefore shares converge.
    pub(super) fn take_step(
        &mut self,
        queue_delay: Duration,
        target: Duration,
        bounds: (u64, u64),
    ) -> u64 {
        let added = self.step;
        let (numerator, denominator) = if queue_delay < target / EMPTY_QUEUE_DIVISOR {
            STEP_GROWTH_EMPTY
        } else if queue_delay < target / SHORT_QUEUE_DIVISOR {
            STEP_GROWTH_SHORT
        } else {
            STEP_GROWTH_NEAR_TARGET
        };
        self.step = (added * numerator)
            .div_ceil(denominator)
            .clamp(bounds.0, bounds.1);
        self.last_queue_delay = queue_delay;
        added
    }
}

// === impl Drain ===

impl Drain {
    /// A cut for another reason than the queue delay, followed by growth from `step` bytes.
    pub(super) fn new(step: u64) -> Self {
        Self {
            rounds: 0,
            ineffective_cuts: 0,
            rtt_at_cut: Duration::ZERO,
            min_rtt_at_cut: Duration::ZERO,
            probes_min_rtt: false,
            cubic: None,
            step,
        }
    }

    /// A cut because of the queue delay. It is repeated while ineffective; then `cubic` takes
    /// over.
    pub(super) fn for_queue(step: u64, cubic: Cubic) -> Self {
        Self {
            cubic: Some(cubic),
            ..Self::new(step)
        }
    }

    /// A trial cut in the competitive state. If it is ineffective, `cubic` goes on.
    pub(super) fn trial(step: u64, cubic: Cubic) -> Self {
        Self {
            ineffective_cuts: MAX_INEFFECTIVE_CUTS,
            ..Self::for_queue(step, cubic)
        }
    }

    /// Records the RTT and the minimum RTT at the time of the cut.
    pub(super) fn begin(self, rtt_at_cut: Duration, min_rtt_at_cut: Duration) -> Self {
        Self {
            rtt_at_cut,
            min_rtt_at_cut,
            ..self
        }
    }

    /// The smallest and the largest factor of the cut.
    pub(super) fn factor_bounds(&self) -> (f64, f64) {
        let min_factor = if self.ineffective_cuts == 0 {
            FIRST_CUT_MIN_FACTOR
        } else {
            REPEATED_CUT_MIN_FACTOR
        };
        (
            min_factor,
            if self.probes_min_rtt {
                PROBE_MAX_FACTOR
            } else {
                1.0
            },
        )
    }

    /// Judges the effect of the cut at the end of a round.
    pub(super) fn on_round_end(&mut self, now: Instant, ended: &Round, path: &Path) -> Outcome {
        self.rounds += 1;
        if self.rounds == 1 {
            return Outcome::Pending;
        }
        let min_rtt = path.min_rtt();
        let drained = self.cubic.is_none()
            || ended.is_app_limited()
            || ended.min_rtt().saturating_sub(min_rtt) <= path.target() / EMPTY_QUEUE_DIVISOR;
        if drained
            && min_rtt + (min_rtt / HIDDEN_QUEUE_DIVISOR).max(HIDDEN_QUEUE_NOISE)
                < self.min_rtt_at_cut
        {
            return Outcome::CutAgain(Self {
                probes_min_rtt: true,
                ..Self::new(self.step)
            });
        }
        let Some(cubic) = self.cubic.clone().filter(|_| !drained) else {
            return Outcome::Drained(CongestionAvoidance::new(self.step));
        };
        if self.rounds < DRAIN_WAIT_ROUNDS {
            return Outcome::Pending;
        }
        if self.ineffective_cuts < MAX_INEFFECTIVE_CUTS
            && ended.min_rtt().saturating_sub(min_rtt) < path.target()
        {
            // Other flows may be about to cut, too.
            Outcome::Drained(CongestionAvoidance {
                ineffective_cuts: Some((self.ineffective_cuts + 1, cubic)),
                ..CongestionAvoidance::new(self.step)
            })
        } else if self.ineffective_cuts < MAX_INEFFECTIVE_CUTS {
            Outcome::CutAgain(Self {
                ineffective_cuts: self.ineffective_cuts + 1,
                ..Self::for_queue(self.step, cubic)
            })
        } else if ended.min_rtt().abs_diff(self.rtt_at_cut) <= REROUTE_NOISE
            && !path.queue_explains(now, ended.min_rtt())
        {
            Outcome::Rerouted(cubic)
        } else {
            Outcome::CompetingFlow(cubic)
        }
    }
}
