//! The window of CUBIC (RFC 9438), for as long as we share a queue with it.

use std::time::{Duration, Instant};

/// Multiplicative decrease (§4.6).
const BETA: f64 = 0.7;

/// Scale of the curve, in datagrams per second cubed (§5.1).
const C: f64 = 0.4;

/// Increase that makes Reno's average with this decrease (§4.3).
const ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);

/// A window between two losses; lengths in datagrams.
#[derive(Debug, Clone)]
pub(super) struct Cubic {
    datagram: f64,
    epoch: Instant,
    start: f64,
    plateau: f64,
    reno: f64,
    window: f64,
}

// === impl Cubic ===

impl Cubic {
    /// Goes on from a window, as if it had been the plateau.
    pub(super) fn new(now: Instant, window: u64, datagram: u64) -> Self {
        let datagram = datagram as f64;
        let window = window as f64 / datagram;
        Self {
            datagram,
            epoch: now,
            start: window,
            plateau: window,
            reno: window,
            window,
        }
    }

    /// How long ago the last loss was.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.epoch)
    }

    /// The window in bytes.
    pub(super) fn window(&self) -> u64 {
        (self.window * self.datagram) as u64
    }

    /// So many bytes were acknowledged while the window was in use.
    pub(super) fn grow(&mut self, now: Instant, rtt: Duration, acked: u64) {
        let acked = acked as f64 / self.datagram;
        let k = ((self.plateau - self.start) / C).cbrt();
        let t = (self.age(now) + rtt).as_secs_f64();
        let target = (C * (t - k).powi(3) + self.plateau).clamp(self.window, 1.5 * self.window);
        let alpha = if self.reno < self.plateau { ALPHA } else { 1.0 };
        self.reno += alpha * acked / self.window;
        self.window += (target - self.window) / self.window * acked;
        self.window = self.window.max(self.reno);
    }

    /// Packets were lost: a new curve, below the window.
    pub(super) fn on_loss(&mut self, now: Instant) {
        // Fast convergence (§4.7) leaves room to newcomers.
        self.plateau = if self.window < self.plateau {
            self.window * (1.0 + BETA) / 2.0
        } else {
            self.window
        };
        self.start = (self.window * BETA).max(1.0);
        self.window = self.start;
        self.reno = self.start;
        self.epoch = now;
    }
}
