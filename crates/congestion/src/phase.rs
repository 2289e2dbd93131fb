//! The states of a window: it doubles, grows, awaits the effect of a cut, or competes.

use std::time::{Duration, Instant};

use crate::cubic::Cubic;
use crate::path::Path;
use crate::round::Round;

/// Bounds of the delay that ends a start-up, of which an eighth of the least round trip is taken
/// (RFC 9406 §4.3).
const START_QUEUE: (Duration, Duration) = (Duration::from_millis(4), Duration::from_millis(16));

/// Cuts without effect, after the first, by which a queue is known to be somebody else's.
const FUTILE_CUTS: u32 = 2;

/// Round trips to wait after a cut: in the first, what is acknowledged was sent before it.
const DRAIN_ROUNDS: u32 = 3;

/// A round-trip time that a cut changes by less does not contain a queue.
const ROUTE_NOISE: Duration = Duration::from_millis(1);

/// A least round trip that is lower by more than this part of it was hidden by a queue.
const HIDDEN: u32 = 64;

/// Jitter that hides no queue.
const HIDDEN_NOISE: Duration = Duration::from_micros(500);

/// What the first cut leaves at least: a queue deeper than this takes two.
const FIRST_CUT: f64 = 0.7;

/// What any cut leaves at least.
const DEEP_CUT: f64 = 0.35;

/// What a cut leaves at most that looks for a hidden queue.
const PROBE_CUT: f64 = 0.85;

/// What a window does.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    /// Doubles each round trip.
    StartUp(StartUp),
    /// Grows in steps.
    Grow(Growth),
    /// Awaits the effect of a cut.
    Drain(Drain),
    /// Follows CUBIC, beside somebody who keeps the queue full.
    Compete(Cubic),
}

/// A window that doubles.
#[derive(Debug, Clone, Default)]
pub(super) struct StartUp {
    /// The window when a queue began to show, if it did not vanish again.
    shown_at: Option<u64>,
}

/// A window that grows in steps.
#[derive(Debug, Clone)]
pub(super) struct Growth {
    /// What the next round trip adds.
    step: u64,
    /// The queue of the round trip before.
    queue: Duration,
    /// Cuts so far that did not drain the queue, and what would compete because of them.
    futile: Option<(u32, Cubic)>,
}

/// A cut whose effect is awaited.
#[derive(Debug, Clone)]
pub(super) struct Drain {
    /// Round trips since the cut.
    rounds: u32,
    /// Cuts without effect before this one.
    futile: u32,
    /// The round-trip time at the cut.
    before: Duration,
    /// The least round-trip time that was known at the cut.
    least: Duration,
    /// Whether it looks for a lower one.
    probes: bool,
    /// What to compete with if no cut has an effect; none if a queue is no matter of this cut.
    rival: Option<Cubic>,
    /// The first step of the growth that follows.
    step: u64,
}

/// What came of a cut.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Not known yet.
    Open,
    /// The queue is empty.
    Drained(Growth),
    /// It is not, and a deeper cut may show why.
    CutAgain(Drain),
    /// No cut changed the round-trip time: this is the new route's, without any queue.
    Rerouted(Cubic),
    /// The queue is somebody else's.
    Rivalled(Cubic),
}

// === impl StartUp ===

impl StartUp {
    /// What acknowledged bytes add: a quarter while a queue shows (RFC 9406 §4.2).
    pub(super) fn growth(&self, acked: u64) -> u64 {
        if self.shown_at.is_some() {
            acked / 4
        } else {
            acked
        }
    }

    /// Looks at the queue of now, and answers whether it ends the start-up.
    pub(super) fn ends_at(&mut self, queue: Duration, least: Duration, window: u64) -> bool {
        let ends = (least / 8).clamp(START_QUEUE.0, START_QUEUE.1);
        if queue < ends / 3 {
            self.shown_at = None;
        } else {
            self.shown_at.get_or_insert(window);
        }
        queue >= ends
    }

    /// The part of a window whose loss ends the start-up.
    pub(super) fn tolerates(&self, window: u64) -> u64 {
        window / if self.shown_at.is_some() { 32 } else { 8 }
    }

    /// What is left of a window: when a queue first showed, twice as much was on its way as had
    /// made it a round trip before.
    pub(super) fn end(&self, window: u64) -> u64 {
        self.shown_at.unwrap_or(window) / 2
    }
}

// === impl Growth ===

impl Growth {
    /// Begins with a step of so many bytes.
    pub(super) fn new(step: u64) -> Self {
        Self {
            step,
            queue: Duration::ZERO,
            futile: None,
        }
    }

    /// The cut that a queue above its target asks for; `rival` stands for the window of now.
    pub(super) fn cut(&self, step: u64, rival: Cubic) -> Drain {
        let (futile, rival) = self.futile.clone().unwrap_or((0, rival));
        Drain {
            futile,
            ..Drain::of_queue(step, rival)
        }
    }

    /// Whether the queue became shorter although this window grew: others make room.
    pub(super) fn is_alone(&self, queue: Duration, target: Duration) -> bool {
        queue + target / 4 < self.queue
    }

    /// What to add now. The next step is larger beside an empty queue, and little so beside a full
    /// one: it depends on what all who share the queue see alike, not on the window.
    pub(super) fn add(&mut self, queue: Duration, target: Duration, bounds: (u64, u64)) -> u64 {
        let added = self.step;
        let (more, of) = if queue < target / 4 {
            (3, 2)
        } else if queue < target / 2 {
            (5, 4)
        } else {
            (11, 10)
        };
        self.step = (added * more).div_ceil(of).clamp(bounds.0, bounds.1);
        self.queue = queue;
        added
    }
}

// === impl Drain ===

impl Drain {
    /// A cut to be followed by growth that begins with a step.
    pub(super) fn new(step: u64) -> Self {
        Self {
            rounds: 0,
            futile: 0,
            before: Duration::ZERO,
            least: Duration::ZERO,
            probes: false,
            rival: None,
            step,
        }
    }

    /// A cut because of the queue: without effect, it is repeated, and then `rival` competes.
    pub(super) fn of_queue(step: u64, rival: Cubic) -> Self {
        Self {
            rival: Some(rival),
            ..Self::new(step)
        }
    }

    /// A trial whether a queue is still somebody else's: without effect, `rival` goes on.
    pub(super) fn trial(step: u64, rival: Cubic) -> Self {
        Self {
            futile: FUTILE_CUTS,
            ..Self::of_queue(step, rival)
        }
    }

    /// The cut is made, at this round-trip time and with this least one known.
    pub(super) fn begin(self, before: Duration, least: Duration) -> Self {
        Self {
            before,
            least,
            ..self
        }
    }

    /// What the cut leaves at least and at most, as shares of the window.
    pub(super) fn bounds(&self) -> (f64, f64) {
        let least = if self.futile == 0 {
            FIRST_CUT
        } else {
            DEEP_CUT
        };
        (least, if self.probes { PROBE_CUT } else { 1.0 })
    }

    /// A round trip ended.
    pub(super) fn after(&mut self, now: Instant, ended: &Round, path: &Path) -> Outcome {
        self.rounds += 1;
        if self.rounds == 1 {
            return Outcome::Open;
        }
        let least = path.least_rtt();
        let drained = self.rival.is_none()
            || ended.is_limited()
            || ended.least().saturating_sub(least) <= path.target() / 4;
        if drained && least + (least / HIDDEN).max(HIDDEN_NOISE) < self.least {
            return Outcome::CutAgain(Self {
                probes: true,
                ..Self::new(self.step)
            });
        }
        let Some(rival) = self.rival.clone().filter(|_| !drained) else {
            return Outcome::Drained(Growth::new(self.step));
        };
        if self.rounds < DRAIN_ROUNDS {
            return Outcome::Open;
        }
        if self.futile < FUTILE_CUTS && ended.least().saturating_sub(least) < path.target() {
            // Others may be about to cut, too.
            Outcome::Drained(Growth {
                futile: Some((self.futile + 1, rival)),
                ..Growth::new(self.step)
            })
        } else if self.futile < FUTILE_CUTS {
            Outcome::CutAgain(Self {
                futile: self.futile + 1,
                ..Self::of_queue(self.step, rival)
            })
        } else if ended.least().abs_diff(self.before) <= ROUTE_NOISE
            && !path.explains(now, ended.least())
        {
            Outcome::Rerouted(rival)
        } else {
            Outcome::Rivalled(rival)
        }
    }
}
