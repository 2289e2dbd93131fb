//! How much a session may have on its way: bounded in delay, tolerant of loss, polite beside TCP.
//!
//! The pure half of a congestion controller: it is told of acknowledgements, losses and marks, with
//! the time, and answers [`DelayBounded::window`]. One decision is made per round trip. The rules:
//!
//! - **Start-up** doubles each round trip, and ends when the queue shows ([`HyStart++`], RFC 9406),
//!   not when it overflows.
//! - **Grow.** The window grows in steps that rise while the queue is empty and hardly rise near
//!   its target, a quarter of the least round trip and 4 ms. Steps depend on the delay alone,
//!   which all who share a queue see alike, and cuts are proportional: so shares converge.
//! - **Drain.** Above the target, or where packets are lost or marked while a queue stands, the
//!   window is cut by what the queue holds. A cut that drains costs no throughput, and shows the
//!   least round trip to everybody who shares the path, newcomers included.
//! - **Compete.** A queue that does not drain when we cut is kept by somebody who does not mind
//!   delay. Then the window before the cuts is restored and follows CUBIC (RFC 9438) from there, no
//!   better and no worse than the rival; each loss is an occasion to try the drain again.
//! - **Loss** without a queue is taken for the medium's, up to 5 % of the recent round trips; beyond,
//!   it is a cut. Persistent congestion (RFC 9002 §7.6) starts over from the minimum window.
//! - A round trip in which there was too little to send decides nothing.
//!
//! [`HyStart++`]: https://www.rfc-editor.org/rfc/rfc9406

use std::time::{Duration, Instant};

use crate::congestion::cubic::Cubic;
use crate::congestion::path::Path;
use crate::congestion::round::Round;

mod cubic;

mod path;

mod round;

#[cfg(feature = "quic")]
pub(crate) mod quic;

/// Datagrams that may be sent before anything is known of the path.
pub const INITIAL_DATAGRAMS: u64 = 32;

/// The least window, in datagrams (RFC 9002 §7.2).
const LEAST_DATAGRAMS: u64 = 2;

/// Most of the window that one cut takes: a queue deeper than this takes two.
const DEEPEST_CUT: f64 = 0.7;

/// What a cut leaves below the measured path, so that the queue is empty for a moment.
const DRAIN: f64 = 0.97;

/// Cuts without effect after which the queue is known to be somebody else's.
const FUTILE_CUTS: u32 = 2;

/// Round trips to wait after a cut: in the first, what is acknowledged was sent before it.
const DRAIN_ROUNDS: u32 = 3;

/// How long to compete at most before the drain is tried again.
const COMPETE_FOR: Duration = Duration::from_secs(10);

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
pub struct DelayBounded {
    datagram: u64,
    window: u64,
    phase: Phase,
    path: Path,
    round: Round,
    /// What the next round trip adds to the window.
    step: u64,
    /// Losses of what was sent before are known.
    cut_at: Option<Instant>,
}

#[derive(Debug, Clone)]
enum Phase {
    StartUp,
    Grow,
    Drain(Drain),
    Compete(Cubic),
}

/// A cut whose effect is awaited.
#[derive(Debug, Clone)]
struct Drain {
    /// Round trips since the cut.
    rounds: u32,
    /// Cuts without effect before this one.
    futile: u32,
    /// What to compete with if the cut has no effect.
    rival: Cubic,
}

// === impl DelayBounded ===

impl DelayBounded {
    /// A new path, with datagrams of so many bytes.
    #[must_use]
    pub fn new(datagram: u16) -> Self {
        let datagram = u64::from(datagram).max(1);
        Self {
            datagram,
            window: INITIAL_DATAGRAMS * datagram,
            phase: Phase::StartUp,
            path: Path::default(),
            round: Round::default(),
            step: datagram,
            cut_at: None,
        }
    }

    /// Bytes that may be on their way unacknowledged; never less than two datagrams.
    #[must_use]
    pub fn window(&self) -> u64 {
        self.window
    }

    /// Whether the window still doubles, for the path has shown no end.
    #[must_use]
    pub fn is_starting(&self) -> bool {
        matches!(self.phase, Phase::StartUp)
    }

    /// Whether the window follows CUBIC, because a queue stands that is not ours.
    #[must_use]
    pub fn is_competing(&self) -> bool {
        matches!(self.phase, Phase::Compete(_))
    }

    /// One packet was acknowledged; `limited` if there was too little to send before.
    pub fn on_ack(&mut self, now: Instant, ack: Ack, limited: bool) {
        let rtt = now.saturating_duration_since(ack.sent);
        if self.round.idle_since(now) > path::LEAST_RTT_FOR {
            self.restart(now);
        }
        self.path.on_rtt(now, rtt);
        self.round.on_ack(now, ack, rtt, limited);
    }

    /// All packets of one acknowledgement are told; `in_flight` bytes remain.
    pub fn on_acks_end(&mut self, now: Instant, in_flight: u64) {
        let least = self.path.least_rtt();
        let batch = self.round.on_acks_end(now, in_flight, self.window, least);
        match &mut self.phase {
            Phase::StartUp => {
                if batch.grows {
                    self.window += batch.bytes;
                }
                let shows = least + (least / 8).clamp(START_QUEUE.0, START_QUEUE.1);
                if self.round.samples() >= 8 && self.round.least() >= shows {
                    self.leave_start_up(now);
                }
            }
            Phase::Compete(cubic) if batch.grows => {
                cubic.grow(now, least, batch.bytes);
                self.window = cubic.window();
            }
            _ => {}
        }
        if batch.ends_round {
            self.end_round(now);
        }
    }

    /// Bytes were lost; the last of them was sent at `sent`.
    pub fn on_loss(&mut self, now: Instant, sent: Instant, bytes: u64) {
        if self.cut_at.is_some_and(|cut| sent <= cut) {
            return;
        }
        self.round.on_loss(bytes);
        let many = self.window / 32 + LOSS_ALLOWANCE * self.datagram;
        if matches!(self.phase, Phase::StartUp) && self.round.lost() > many {
            self.leave_start_up(now);
        }
    }

    /// A queue told of itself (ECN), about packets sent until `sent`.
    pub fn on_mark(&mut self, sent: Instant) {
        if self.cut_at.is_none_or(|cut| sent > cut) {
            self.round.on_mark();
        }
    }

    /// Everything that was sent for several timeouts is lost (RFC 9002 §7.6): the path may be another.
    pub fn on_persistent_congestion(&mut self, now: Instant) {
        self.window = self.least_window();
        self.phase = Phase::StartUp;
        self.path = Path::default();
        self.round = Round::default();
        self.step = self.datagram;
        self.cut_at = Some(now);
    }

    /// The path takes datagrams of another size.
    pub fn on_datagram_size(&mut self, datagram: u16) {
        self.datagram = u64::from(datagram).max(1);
        self.window = self.window.max(self.least_window());
    }

    fn least_window(&self) -> u64 {
        LEAST_DATAGRAMS * self.datagram
    }

    /// What is known of the path is old: half the window, and start-up from there.
    fn restart(&mut self, now: Instant) {
        self.window = (self.window / 2).max((INITIAL_DATAGRAMS * self.datagram).min(self.window));
        self.phase = Phase::StartUp;
        self.path = Path::default();
        self.round = Round::default();
        self.step = self.datagram;
        self.cut_at = Some(now);
    }

    /// What is on its way now is twice what made the delay that showed.
    fn leave_start_up(&mut self, now: Instant) {
        let before = self.window;
        self.window = (before / 2).max(self.least_window());
        self.step = (self.window / 32).max(self.datagram);
        self.cut_at = Some(now);
        self.phase = Phase::Drain(Drain {
            rounds: 0,
            futile: 0,
            rival: Cubic::new(now, self.window, self.datagram),
        });
        self.round.restart(now);
    }

    fn end_round(&mut self, now: Instant) {
        let mut ended = self.round.restart(now);
        self.path.on_round(&ended);
        let limited = ended.is_limited();
        let queue = ended.queue(self.path.least_rtt());
        ended.excess = self
            .path
            .loses_more_than_tolerated(LOSS_ALLOWANCE * self.datagram);
        let congested =
            ended.marked || ended.excess || (ended.lost > 0 && queue > self.path.target() / 3);
        match self.phase.clone() {
            Phase::StartUp => {
                if congested {
                    self.leave_start_up(now);
                }
            }
            Phase::Grow => {
                if congested || (!limited && queue > self.path.target()) {
                    let rival = Cubic::new(now, self.window, self.datagram);
                    self.cut(now, &ended, 0, rival);
                } else if ended.fills {
                    self.grow(queue);
                }
            }
            Phase::Drain(drain) => self.await_drain(now, drain, &ended),
            Phase::Compete(cubic) => {
                if ended.lost > 0 || ended.marked {
                    let mut rival = cubic;
                    rival.on_loss(now);
                    self.cut(now, &ended, FUTILE_CUTS, rival);
                } else if cubic.age(now) > COMPETE_FOR {
                    let rival = Cubic::new(now, self.window, self.datagram);
                    self.cut(now, &ended, FUTILE_CUTS, rival);
                }
            }
        }
    }

    /// Adds a step, and chooses the next: quick beside an empty queue, slow beside a full one.
    fn grow(&mut self, queue: Duration) {
        self.window += self.step;
        let target = self.path.target();
        let (more, of) = if queue < target / 4 {
            (3, 2)
        } else if queue < target / 2 {
            (5, 4)
        } else {
            (11, 10)
        };
        let step = (self.step * more).div_ceil(of);
        self.step = step.clamp(self.datagram, (self.window / 8).max(self.datagram));
    }

    /// Takes out of the window what the queue holds.
    fn cut(&mut self, now: Instant, ended: &Round, futile: u32, rival: Cubic) {
        let least = self.path.least_rtt();
        let share = DRAIN * least.div_duration_f64(ended.last_rtt().max(least).max(SHORTEST));
        let most = if ended.excess || ended.marked {
            0.85
        } else {
            1.0
        };
        let mut window = scale(self.window, share.clamp(DEEPEST_CUT, most));
        if ended.excess {
            // A path that became much narrower is followed at once.
            window = window.min(self.path.rate_window().max(self.window / 2));
            self.path.forget_losses();
        }
        self.window = window.max(self.least_window());
        self.step = self.datagram;
        self.cut_at = Some(now);
        self.phase = Phase::Drain(Drain {
            rounds: 0,
            futile,
            rival,
        });
    }

    fn await_drain(&mut self, now: Instant, mut drain: Drain, ended: &Round) {
        drain.rounds += 1;
        if drain.rounds == 1 {
            self.phase = Phase::Drain(drain);
            return;
        }
        let stands = ended.least().saturating_sub(self.path.least_rtt());
        if ended.is_limited() || stands <= self.path.target() / 4 {
            self.phase = Phase::Grow;
        } else if drain.rounds < DRAIN_ROUNDS {
            self.phase = Phase::Drain(drain);
        } else if drain.futile < FUTILE_CUTS {
            self.cut(now, ended, drain.futile + 1, drain.rival);
        } else {
            self.window = drain.rival.window().max(self.least_window());
            self.phase = Phase::Compete(drain.rival);
        }
    }
}

/// Bounds of the delay that ends a start-up, of which an eighth of the least round trip is taken.
const START_QUEUE: (Duration, Duration) = (Duration::from_millis(4), Duration::from_millis(16));

/// Lost datagrams that prove nothing: a small window loses 3 % by bad luck.
const LOSS_ALLOWANCE: u64 = 4;

/// No round trip is shorter, where lengths are divided.
const SHORTEST: Duration = Duration::from_nanos(1);

/// A share of some bytes.
fn scale(bytes: u64, share: f64) -> u64 {
    (bytes as f64 * share) as u64
}
