//! The congestion controllers of simulated flows: ours, the CUBIC of a kernel and a simple BBR.

use std::time::{Duration, Instant};

use towline_congestion::{Ack, DelayController};

use crate::simulation::{Control, DATAGRAM};

/// The controller under test, paced as quinn does.
pub(crate) struct DelayFlow(pub(crate) DelayController);

/// TCP CUBIC (RFC 9438) with `HyStart`, without pacing, as kernels send by default.
pub(crate) struct TcpCubic {
    window: f64,
    ssthresh: f64,
    min_rtt: Duration,
    w_max: f64,
    cwnd_epoch: f64,
    w_est: f64,
    epoch_start: Option<Instant>,
    recovery_start: Option<Instant>,
    app_limited: bool,
    round: Option<Instant>,
    round_min_rtt: Duration,
    samples: u32,
}

/// The core of BBR version 1: maximum delivery rate, minimum RTT and the gain cycle.
pub(crate) struct Bbr {
    delivered: u64,
    rates: Vec<f64>,
    min_rtt: Duration,
    min_rtt_at: Option<Instant>,
    round: Option<(Instant, u64)>,
    rounds: usize,
    full: (f64, u32),
    phase: BbrPhase,
    in_flight: u64,
}

#[derive(PartialEq)]
enum BbrPhase {
    Startup,
    Drain,
    ProbeBandwidth,
    ProbeRtt(Instant),
}

pub(crate) fn delay_flow() -> Box<DelayFlow> {
    Box::new(DelayFlow(DelayController::new(DATAGRAM as u16)))
}

pub(crate) fn cubic_flow() -> Box<TcpCubic> {
    Box::new(TcpCubic {
        window: 10.0,
        ssthresh: f64::MAX,
        min_rtt: Duration::MAX,
        w_max: 0.0,
        cwnd_epoch: 0.0,
        w_est: 0.0,
        epoch_start: None,
        recovery_start: None,
        app_limited: false,
        round: None,
        round_min_rtt: Duration::MAX,
        samples: 0,
    })
}

pub(crate) fn bbr_flow() -> Box<Bbr> {
    Box::new(Bbr {
        delivered: 0,
        rates: Vec::new(),
        min_rtt: Duration::MAX,
        min_rtt_at: None,
        round: None,
        rounds: 0,
        full: (0.0, 0),
        phase: BbrPhase::Startup,
        in_flight: 0,
    })
}

impl Control for DelayFlow {
    fn on_sent(&mut self, now: Instant) {
        self.0.on_sent(now);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool) {
        self.0.on_ack(now, Ack { sent, bytes }, app_limited);
    }

    fn on_acks_end(&mut self, now: Instant, in_flight: u64) {
        self.0.on_acks_end(now, in_flight);
    }

    fn on_loss(&mut self, now: Instant, sent: Instant, bytes: u64, persistent: bool) {
        if persistent {
            self.0.on_persistent_congestion(now);
        } else {
            self.0.on_loss(now, sent, bytes);
        }
    }

    fn on_mark(&mut self, _now: Instant, sent: Instant) {
        self.0.on_mark(sent);
    }

    fn window(&self) -> u64 {
        self.0.window()
    }

    fn pace(&self, smoothed_rtt: Duration) -> f64 {
        1.25 * self.window() as f64 / smoothed_rtt.as_secs_f64()
    }

    fn is_competing(&self) -> bool {
        self.0.is_competing()
    }
}

impl TcpCubic {
    const BETA_CUBIC: f64 = 0.7;
    const C: f64 = 0.4;

    fn reduce(&mut self, now: Instant, sent: Instant) {
        if self
            .recovery_start
            .is_some_and(|recovery_start| sent <= recovery_start)
        {
            return;
        }
        self.recovery_start = Some(now);
        self.w_max = if self.window < self.w_max {
            self.window * (1.0 + Self::BETA_CUBIC) / 2.0
        } else {
            self.window
        };
        self.window = (self.window * Self::BETA_CUBIC).max(2.0);
        self.ssthresh = self.window;
        self.epoch_start = None;
    }

    fn grow(&mut self, now: Instant, acked: f64) {
        let epoch_start = *self.epoch_start.get_or_insert(now);
        if epoch_start == now {
            self.cwnd_epoch = self.window;
            self.w_est = self.window;
            self.w_max = self.w_max.max(self.window);
        }
        let k = ((self.w_max - self.cwnd_epoch) / Self::C).cbrt();
        let t = (now - epoch_start + self.min_rtt).as_secs_f64();
        let target = Self::C * (t - k).powi(3) + self.w_max;
        let target = target.clamp(self.window, 1.5 * self.window);
        let alpha = if self.w_est < self.w_max {
            3.0 * (1.0 - Self::BETA_CUBIC) / (1.0 + Self::BETA_CUBIC)
        } else {
            1.0
        };
        self.w_est += alpha * acked / self.window;
        self.window = (self.window + (target - self.window) / self.window * acked).max(self.w_est);
    }

    fn hystart(&mut self, now: Instant, sent: Instant, rtt: Duration) {
        if self.round.is_none_or(|round| sent >= round) {
            self.round = Some(now);
            self.round_min_rtt = Duration::MAX;
            self.samples = 0;
        }
        self.round_min_rtt = self.round_min_rtt.min(rtt);
        self.samples += 1;
        let rtt_thresh =
            (self.min_rtt / 8).clamp(Duration::from_millis(4), Duration::from_millis(16));
        if self.samples >= 8
            && self.window >= 16.0
            && self.round_min_rtt > self.min_rtt + rtt_thresh
        {
            self.ssthresh = self.window;
        }
    }
}

impl Control for TcpCubic {
    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool) {
        let rtt = now - sent;
        self.min_rtt = self.min_rtt.min(rtt);
        self.app_limited = app_limited;
        if app_limited
            || self
                .recovery_start
                .is_some_and(|recovery_start| sent <= recovery_start)
        {
            return;
        }
        let acked = bytes as f64 / DATAGRAM as f64;
        if self.window < self.ssthresh {
            self.window += acked;
            self.hystart(now, sent, rtt);
        } else {
            self.grow(now, acked);
        }
    }

    fn on_acks_end(&mut self, _now: Instant, _in_flight: u64) {}

    fn on_loss(&mut self, now: Instant, sent: Instant, _bytes: u64, persistent: bool) {
        self.reduce(now, sent);
        if persistent {
            self.window = 2.0;
        }
    }

    fn on_mark(&mut self, now: Instant, sent: Instant) {
        self.reduce(now, sent);
    }

    fn window(&self) -> u64 {
        (self.window * DATAGRAM as f64) as u64
    }

    fn pace(&self, _smoothed_rtt: Duration) -> f64 {
        1e12
    }
}

impl Bbr {
    fn rate(&self) -> f64 {
        self.rates.iter().copied().fold(0.0, f64::max)
    }

    fn bdp(&self) -> f64 {
        if self.min_rtt == Duration::MAX {
            return 10.0 * DATAGRAM as f64;
        }
        (self.rate() * self.min_rtt.as_secs_f64()).max(4.0 * DATAGRAM as f64)
    }

    fn end_round(&mut self, now: Instant, began: (Instant, u64), app_limited: bool) {
        let (start, delivered) = began;
        let rate = (self.delivered - delivered) as f64 / (now - start).as_secs_f64().max(1e-6);
        self.round = Some((now, self.delivered));
        self.rounds += 1;
        if !app_limited || rate > self.rate() {
            self.rates.insert(0, rate);
            self.rates.truncate(10);
        }
        if self.phase == BbrPhase::Startup {
            if self.rate() > self.full.0 * 1.25 {
                self.full = (self.rate(), 0);
            } else {
                self.full.1 += 1;
            }
            if self.full.1 >= 3 {
                self.phase = BbrPhase::Drain;
            }
        }
    }
}

impl Control for Bbr {
    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool) {
        let rtt = now - sent;
        let expired = self
            .min_rtt_at
            .is_some_and(|at| now - at > Duration::from_secs(10));
        if rtt <= self.min_rtt || self.min_rtt_at.is_none() {
            self.min_rtt = rtt;
            self.min_rtt_at = Some(now);
        } else if expired {
            self.phase = BbrPhase::ProbeRtt(now);
            self.min_rtt = rtt;
            self.min_rtt_at = Some(now);
        }
        self.delivered += bytes;
        let began = *self.round.get_or_insert((now, self.delivered));
        if sent >= began.0 && now > began.0 {
            self.end_round(now, began, app_limited);
        }
    }

    fn on_acks_end(&mut self, now: Instant, in_flight: u64) {
        self.in_flight = in_flight;
        if self.phase == BbrPhase::Drain && in_flight as f64 <= self.bdp() {
            self.phase = BbrPhase::ProbeBandwidth;
        }
        if let BbrPhase::ProbeRtt(since) = self.phase
            && now - since > Duration::from_millis(200) + self.min_rtt
        {
            self.phase = BbrPhase::ProbeBandwidth;
        }
    }

    fn on_loss(&mut self, _now: Instant, _sent: Instant, _bytes: u64, _persistent: bool) {}

    fn on_mark(&mut self, _now: Instant, _sent: Instant) {}

    fn window(&self) -> u64 {
        let gain = match self.phase {
            BbrPhase::Startup => 2.885,
            BbrPhase::ProbeRtt(_) => return 4 * DATAGRAM + 1,
            _ => 2.0,
        };
        ((self.bdp() * gain) as u64).max(10 * DATAGRAM)
    }

    fn pace(&self, smoothed_rtt: Duration) -> f64 {
        if self.rates.is_empty() {
            return 10.0 * DATAGRAM as f64 / smoothed_rtt.as_secs_f64() * 2.885;
        }
        const CYCLE: [f64; 8] = [1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
        let gain = match self.phase {
            BbrPhase::Startup => 2.885,
            BbrPhase::Drain => 1.0 / 2.885,
            BbrPhase::ProbeBandwidth => CYCLE[self.rounds % 8],
            BbrPhase::ProbeRtt(_) => 1.0,
        };
        (self.rate() * gain).max(1.0)
    }
}
