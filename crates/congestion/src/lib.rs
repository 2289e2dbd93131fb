//! How much a session may have on its way: bounded in delay, tolerant of loss, polite beside TCP.
//!
//! The pure half of a congestion controller: it is told of acknowledgements, losses and marks, with
//! the time, and answers [`DelayBounded::window`]. One decision is made per round trip. The rules:
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
use crate::phase::{Drain, Growth, Outcome, Phase};
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
const LEAST_DATAGRAMS: u64 = 2;

/// What a cut leaves at most if packets were marked, or lost beyond what is tolerated.
const FIRM_CUT: f64 = 0.85;

/// What a cut leaves below the measured path, so that the queue is empty for a moment.
const DRAIN: f64 = 0.97;

/// Lost datagrams that prove nothing: a small window loses 3 % by bad luck.
const LOSS_ALLOWANCE: u64 = 4;

/// A step is a sixteenth of the window at most, or so many datagrams.
const STEP_DATAGRAMS: u64 = 8;

/// How long to compete at most before the drain is tried again.
const COMPETE_FOR: Duration = Duration::from_secs(10);

/// No round trip is shorter, where lengths are divided.
const SHORTEST: Duration = Duration::from_nanos(1);

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
    usage: Usage,
    /// Losses of what was sent until then are answered.
    cut_at: Option<Instant>,
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
            phase: Phase::StartUp(phase::StartUp::default()),
            path: Path::default(),
            round: Round::default(),
            usage: Usage::default(),
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
        matches!(self.phase, Phase::StartUp(_))
    }

    /// Whether the window follows CUBIC, because a queue stands that is not ours.
    #[must_use]
    pub fn is_competing(&self) -> bool {
        matches!(self.phase, Phase::Compete(_))
    }

    /// Something was just sent, or is about to be: a window that was not used for long is old.
    pub fn on_sent(&mut self, now: Instant) {
        let initial = INITIAL_DATAGRAMS * self.datagram;
        if let Some(kept) = self.usage.shrinks_to(now, self.window, initial) {
            self.start_over(now, kept);
        }
    }

    /// One packet was acknowledged; `limited` if there was too little to send before.
    pub fn on_ack(&mut self, now: Instant, ack: Ack, limited: bool) {
        let rtt = now.saturating_duration_since(ack.sent);
        self.path.on_rtt(now, rtt);
        self.round.on_ack(now, ack, rtt, limited);
    }

    /// All packets of one acknowledgement are told; `in_flight` bytes remain.
    pub fn on_acks_end(&mut self, now: Instant, in_flight: u64) {
        let least = self.path.least_rtt();
        let least_window = self.least_window();
        let batch = self
            .round
            .on_acks_end(in_flight, self.window, self.datagram);
        self.usage.on_flight(now, in_flight + batch.bytes);
        let queue = self.round.recent().map(|rtt| rtt.saturating_sub(least));
        let mut over = batch.ends_round;
        match &mut self.phase {
            Phase::StartUp(start_up) => {
                if batch.grows {
                    self.window += start_up.growth(batch.bytes);
                }
                // A packet alone is acknowledged late: that is no queue.
                if !self.round.is_limited()
                    && queue.is_some_and(|queue| start_up.ends_at(queue, least, self.window))
                {
                    self.end_round_early(now);
                    over = false;
                }
            }
            // Who shares the queue sees the same at the same time: nobody is left behind to grow.
            Phase::Grow(_) if !self.round.is_limited() => {
                over |= queue.is_some_and(|queue| queue > self.path.target());
            }
            Phase::Compete(cubic) if batch.grows => {
                cubic.grow(now, least, batch.bytes, self.datagram);
                // Datagrams may have become larger since the loss.
                self.window = cubic.window().max(least_window);
            }
            _ => {}
        }
        if over {
            self.end_round(now);
        }
    }

    /// Bytes were lost; the last of them was sent at `sent`.
    pub fn on_loss(&mut self, now: Instant, sent: Instant, bytes: u64) {
        let answered = self.cut_at.is_some_and(|cut| sent <= cut);
        self.round.on_loss(bytes, answered);
        match &self.phase {
            _ if answered => {}
            Phase::StartUp(start_up) => {
                let tolerated = start_up.tolerates(self.window) + self.allowance();
                if self.round.lost > tolerated {
                    self.end_round_early(now);
                }
            }
            Phase::Compete(_) => self.end_round(now),
            Phase::Grow(_) | Phase::Drain(_) => {}
        }
    }

    /// A queue told of itself (ECN), about packets sent until `sent`.
    pub fn on_mark(&mut self, sent: Instant) {
        if self.cut_at.is_none_or(|cut| sent > cut) {
            self.round.on_mark();
        }
    }

    /// All that was sent for several timeouts is lost (RFC 9002 §7.6): the path may be another.
    pub fn on_persistent_congestion(&mut self, now: Instant) {
        self.start_over(now, self.least_window());
    }

    /// The path takes datagrams of another size.
    pub fn on_datagram_size(&mut self, datagram: u16) {
        self.datagram = u64::from(datagram).max(1);
        self.window = self.window.max(self.least_window());
    }

    /// The start-up is over, in the middle of a round trip.
    fn end_round_early(&mut self, now: Instant) {
        self.close_round(now);
        self.leave_start_up(now);
    }

    fn close_round(&mut self, now: Instant) -> Round {
        let mut ended = self.round.restart(now);
        self.path.on_round(now, &mut ended, self.datagram);
        ended.excess = self.path.loses_more_than_tolerated(self.allowance());
        ended
    }

    fn end_round(&mut self, now: Instant) {
        let ended = self.close_round(now);
        let least_window = self.least_window();
        match &mut self.phase {
            Phase::StartUp(_) if ended.marked => self.leave_start_up(now),
            Phase::StartUp(_) => {}
            Phase::Grow(_) => self.grow_or_cut(now, &ended),
            Phase::Drain(drain) => {
                let outcome = drain.after(now, &ended, &self.path);
                self.follow(now, outcome, &ended);
            }
            Phase::Compete(cubic) => {
                let mut rival = cubic.clone();
                if ended.lost > 0 || ended.marked {
                    rival.on_loss(now, least_window);
                } else if cubic.age(now) > COMPETE_FOR {
                    rival = Cubic::new(now, self.window);
                } else {
                    return;
                }
                self.cut(now, &ended, Drain::trial(self.datagram, rival));
            }
        }
    }

    fn grow_or_cut(&mut self, now: Instant, ended: &Round) {
        let Phase::Grow(growth) = &mut self.phase else {
            return;
        };
        let target = self.path.target();
        let queue = ended.queue(self.path.least_rtt());
        let congested = ended.marked || ended.excess || (ended.unusual && queue > target / 2);
        if !ended.is_limited() && queue > target {
            let rival = Cubic::new(now, self.window);
            let drain = growth.cut(self.datagram, rival);
            self.cut(now, ended, drain);
        } else if congested || (!ended.is_limited() && growth.is_alone(queue, target)) {
            self.cut(now, ended, Drain::new(self.datagram));
        } else if ended.fills {
            let most = (self.window / 16).max(STEP_DATAGRAMS * self.datagram);
            self.window += growth.add(queue, target, (self.datagram, most));
        }
    }

    /// Takes out of the window what the queue holds.
    fn cut(&mut self, now: Instant, ended: &Round, drain: Drain) {
        let least = self.path.least_rtt();
        let rtt = ended.last_rtt().max(least).max(SHORTEST);
        let firm = if ended.excess || ended.marked {
            FIRM_CUT
        } else {
            1.0
        };
        let (floor, ceiling) = drain.bounds();
        let share = (DRAIN * least.div_duration_f64(rtt)).clamp(floor, ceiling.min(firm));
        let mut window = (self.window as f64 * share) as u64;
        if ended.excess {
            // A path that became much narrower is followed at once.
            window = window.min(self.path.rate_window().max(self.window / 2));
            self.path.answer_losses();
        }
        self.window = window.max(self.least_window());
        self.cut_at = Some(now);
        self.phase = Phase::Drain(drain.begin(rtt, least));
    }

    fn follow(&mut self, now: Instant, outcome: Outcome, ended: &Round) {
        match outcome {
            Outcome::Open => {}
            Outcome::Drained(growth) => self.phase = Phase::Grow(growth),
            Outcome::CutAgain(drain) => self.cut(now, ended, drain),
            Outcome::Rerouted(rival) => {
                self.window = rival.window().max(self.least_window());
                self.path.on_route(now, ended.least());
                self.phase = Phase::Grow(Growth::new((self.window / 32).max(self.datagram)));
            }
            Outcome::Rivalled(rival) => {
                self.window = rival.window().max(self.least_window());
                self.phase = Phase::Compete(rival);
            }
        }
    }

    fn leave_start_up(&mut self, now: Instant) {
        let Phase::StartUp(start_up) = &self.phase else {
            return;
        };
        self.window = start_up.end(self.window).max(self.least_window());
        let step = (self.window / 32).max(self.datagram);
        self.phase = Phase::Drain(Drain::new(step));
        self.cut_at = Some(now);
    }

    /// Forgets the path, and starts up from this window.
    fn start_over(&mut self, now: Instant, window: u64) {
        *self = Self {
            window,
            cut_at: Some(now),
            datagram: self.datagram,
            // What was used is a fact of the sender, not of the path.
            usage: std::mem::take(&mut self.usage),
            ..Self::new(0)
        };
    }

    fn least_window(&self) -> u64 {
        LEAST_DATAGRAMS * self.datagram
    }

    fn allowance(&self) -> u64 {
        LOSS_ALLOWANCE * self.datagram
    }
}
