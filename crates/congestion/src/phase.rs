//! The states of a window: it doubles, grows, awaits the effect of a cut, or competes.

use std::time::{Duration, Instant};

use crate::cubic::Cubic;
use crate::path::{EMPTY_QUEUE_DIVISOR, Path};
use crate::round::Round;

/// Lower bound of the queue delay that ends slow start (RFC 9406 §4.3).
const MIN_RTT_THRESH: Duration = Duration::from_millis(4);

/// Upper bound of the queue delay that ends slow start (RFC 9406 §4.3).
const MAX_RTT_THRESH: Duration = Duration::from_millis(16);

/// The part of the minimum RTT that ends slow start (RFC 9406 §4.3).
const MIN_RTT_DIVISOR: u32 = 8;

/// The part of that delay from which growth is conservative.
const CSS_THRESH_DIVISOR: u32 = 3;

/// Slows the growth of conservative slow start (RFC 9406 §4.3).
const CSS_GROWTH_DIVISOR: u64 = 4;

/// The part of the window whose loss ends slow start.
const SLOW_START_LOSS_DIVISOR: u64 = 8;

/// The same in conservative slow start.
const CSS_LOSS_DIVISOR: u64 = 32;

/// What slow start leaves of the window at its end.
const SLOW_START_EXIT_DIVISOR: u64 = 2;

/// How a step grows while the queue is empty.
const STEP_GROWTH_EMPTY: (u64, u64) = (3, 2);

/// How a step grows while the queue is short.
const STEP_GROWTH_SHORT: (u64, u64) = (5, 4);

/// How a step grows near the target delay.
const STEP_GROWTH_NEAR_TARGET: (u64, u64) = (11, 10);

/// A queue delay below this part of its target is short.
const SHORT_QUEUE_DIVISOR: u32 = 2;

/// The part of the target delay by which a queue has to shrink to be called shorter.
const QUEUE_FALL_DIVISOR: u32 = 4;

/// Cuts without effect, after the first, by which a queue is known to be somebody else's.
const MAX_INEFFECTIVE_CUTS: u32 = 2;

/// Round trips to wait after a cut: in the first, what is acknowledged was sent before it.
const DRAIN_WAIT_ROUNDS: u32 = 3;

/// A round-trip time that a cut changes by less does not contain a queue.
const REROUTE_NOISE: Duration = Duration::from_millis(1);

/// A least round trip that is lower by more than this part of it was hidden by a queue.
const HIDDEN_QUEUE_DIVISOR: u32 = 64;

/// Jitter that hides no queue.
const HIDDEN_QUEUE_NOISE: Duration = Duration::from_micros(500);

/// What the first cut leaves at least: a queue deeper than this takes two.
const FIRST_CUT_MIN_FACTOR: f64 = 0.7;

/// What any cut leaves at least.
const REPEATED_CUT_MIN_FACTOR: f64 = 0.35;

/// What a cut leaves at most that looks for a hidden queue.
const PROBE_MAX_FACTOR: f64 = 0.85;

/// What a window does.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    /// Doubles each round trip.
    SlowStart(SlowStart),
    /// Grows in steps.
    CongestionAvoidance(CongestionAvoidance),
    /// Awaits the effect of a cut.
    Drain(Drain),
    /// Follows CUBIC, beside somebody who keeps the queue full.
    Competitive(Cubic),
}

/// A window that doubles.
#[derive(Debug, Clone, Default)]
pub(super) struct SlowStart {
    /// The window when a queue began to show, if it did not vanish again.
    css_window: Option<u64>,
}

/// A window that grows in steps.
#[derive(Debug, Clone)]
pub(super) struct CongestionAvoidance {
    /// What the next round trip adds.
    step: u64,
    /// The queue of the round trip before.
    last_queue_delay: Duration,
    /// Cuts so far that did not drain the queue, and what would compete because of them.
    ineffective_cuts: Option<(u32, Cubic)>,
}

/// A cut whose effect is awaited.
#[derive(Debug, Clone)]
pub(super) struct Drain {
    /// Round trips since the cut.
    rounds: u32,
    /// Cuts without effect before this one.
    ineffective_cuts: u32,
    /// The round-trip time at the cut.
    rtt_at_cut: Duration,
    /// The least round-trip time that was known at the cut.
    min_rtt_at_cut: Duration,
    /// Whether it looks for a lower one.
    probes_min_rtt: bool,
    /// What to compete with if no cut has an effect; none if a queue is no matter of this cut.
    cubic: Option<Cubic>,
    /// The first step of the growth that follows.
    step: u64,
}

/// What came of a cut.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Not known yet.
    Pending,
    /// The queue is empty.
    Drained(CongestionAvoidance),
    /// It is not, and a deeper cut may show why.
    CutAgain(Drain),
    /// No cut changed the round-trip time: this is the new route's, without any queue.
    Rerouted(Cubic),
    /// The queue is somebody else's.
    CompetingFlow(Cubic),
}

// === impl StartUp ===

impl SlowStart {
    /// What acknowledged bytes add: a quarter while a queue shows (RFC 9406 §4.2).
    pub(super) fn growth(&self, acked: u64) -> u64 {
        if self.css_window.is_some() {
            acked / CSS_GROWTH_DIVISOR
        } else {
            acked
        }
    }

    /// Looks at the queue of now, and answers whether it ends the start-up.
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

    /// The part of a window whose loss ends the start-up.
    pub(super) fn loss_tolerance(&self, window: u64) -> u64 {
        window
            / if self.css_window.is_some() {
                CSS_LOSS_DIVISOR
            } else {
                SLOW_START_LOSS_DIVISOR
            }
    }

    /// What is left of a window: when a queue first showed, twice as much was on its way as had
    /// made it a round trip before.
    pub(super) fn exit_window(&self, window: u64) -> u64 {
        self.css_window.unwrap_or(window) / SLOW_START_EXIT_DIVISOR
    }
}

// === impl Growth ===

impl CongestionAvoidance {
    /// Begins with a step of so many bytes.
    pub(super) fn new(step: u64) -> Self {
        Self {
            step,
            last_queue_delay: Duration::ZERO,
            ineffective_cuts: None,
        }
    }

    /// The cut that a queue above its target asks for; `cubic` stands for the window of now.
    pub(super) fn cut(&self, step: u64, cubic: Cubic) -> Drain {
        let (ineffective_cuts, cubic) = self.ineffective_cuts.clone().unwrap_or((0, cubic));
        Drain {
            ineffective_cuts,
            ..Drain::for_queue(step, cubic)
        }
    }

    /// Whether the queue became shorter although this window grew: others make room.
    pub(super) fn queue_fell(&self, queue_delay: Duration, target: Duration) -> bool {
        queue_delay + target / QUEUE_FALL_DIVISOR < self.last_queue_delay
    }

    /// What to add now. The next step is larger beside an empty queue, and little so beside a full
    /// one: it depends on what all who share the queue see alike, not on the window.
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
    /// A cut to be followed by growth that begins with a step.
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

    /// A cut because of the queue: without effect, it is repeated, and then `cubic` competes.
    pub(super) fn for_queue(step: u64, cubic: Cubic) -> Self {
        Self {
            cubic: Some(cubic),
            ..Self::new(step)
        }
    }

    /// A trial whether a queue is still somebody else's: without effect, `cubic` goes on.
    pub(super) fn trial(step: u64, cubic: Cubic) -> Self {
        Self {
            ineffective_cuts: MAX_INEFFECTIVE_CUTS,
            ..Self::for_queue(step, cubic)
        }
    }

    /// The cut is made, at this round-trip time and with this least one known.
    pub(super) fn begin(self, rtt_at_cut: Duration, min_rtt_at_cut: Duration) -> Self {
        Self {
            rtt_at_cut,
            min_rtt_at_cut,
            ..self
        }
    }

    /// What the cut leaves at least and at most, as shares of the window.
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

    /// A round trip ended.
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
            // Others may be about to cut, too.
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
