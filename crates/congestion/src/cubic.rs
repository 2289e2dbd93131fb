//! The window of CUBIC (RFC 9438), for as long as we share a queue with it.

use std::time::{Duration, Instant};

/// Multiplicative decrease (§4.6).
const BETA_CUBIC: f64 = 0.7;

/// Scale of the curve, in datagrams per second cubed (§5.1).
const C: f64 = 0.4;

/// Increase that makes Reno's average with this decrease (§4.3).
const ALPHA_CUBIC: f64 = 3.0 * (1.0 - BETA_CUBIC) / (1.0 + BETA_CUBIC);

/// The largest target within one RTT, as a multiple of the window (§4.2).
const MAX_TARGET_FACTOR: f64 = 1.5;

/// A window between two losses; lengths in bytes, so that they hold for datagrams of any size.
#[derive(Debug, Clone)]
pub(super) struct Cubic {
    epoch_start: Instant,
    cwnd_epoch: f64,
    w_max: f64,
    w_est: f64,
    window: f64,
}

// === impl Cubic ===

impl Cubic {
    /// Goes on from a window, as if it had been the plateau.
    pub(super) fn new(now: Instant, window: u64) -> Self {
        let window = window as f64;
        Self {
            epoch_start: now,
            cwnd_epoch: window,
            w_max: window,
            w_est: window,
            window,
        }
    }

    /// How long ago the last loss was.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.epoch_start)
    }

    /// The window.
    pub(super) fn window(&self) -> u64 {
        self.window as u64
    }

    /// So many bytes were acknowledged while the window was in use.
    pub(super) fn grow(&mut self, now: Instant, rtt: Duration, acked: u64, datagram: u64) {
        let (acked, datagram) = (acked as f64, datagram as f64);
        let c = C * datagram;
        let k = ((self.w_max - self.cwnd_epoch) / c).cbrt();
        let t = (self.age(now) + rtt).as_secs_f64();
        let target =
            (c * (t - k).powi(3) + self.w_max).clamp(self.window, MAX_TARGET_FACTOR * self.window);
        let alpha = if self.w_est < self.w_max {
            ALPHA_CUBIC
        } else {
            1.0
        };
        self.w_est += alpha * datagram * acked / self.window;
        self.window += (target - self.window) / self.window * acked;
        self.window = self.window.max(self.w_est);
    }

    /// Packets were lost: a new curve, below the window, but not below `min_window`.
    pub(super) fn on_loss(&mut self, now: Instant, min_window: u64) {
        // Fast convergence (§4.7) leaves room to newcomers.
        self.w_max = if self.window < self.w_max {
            self.window * (1.0 + BETA_CUBIC) / 2.0
        } else {
            self.window
        };
        self.cwnd_epoch = (self.window * BETA_CUBIC).max(min_window as f64);
        // The floor may be above: then nothing has to be found again.
        self.w_max = self.w_max.max(self.cwnd_epoch);
        self.window = self.cwnd_epoch;
        self.w_est = self.cwnd_epoch;
        self.epoch_start = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_do_not_reduce_the_window_below_the_minimum() {
        let now = Instant::now();
        let mut cubic = Cubic::new(now, 100 * 1200);
        for _ in 0..30 {
            cubic.on_loss(now, 2 * 1200);
        }
        assert_eq!(cubic.window(), 2 * 1200);
        // A floor that rises, with the size of a datagram, is a new plateau.
        cubic.on_loss(now, 2 * 16_368);
        assert_eq!(cubic.window(), 2 * 16_368);
        cubic.grow(now, Duration::from_millis(40), 2 * 16_368, 16_368);
        assert!((2 * 16_368..4 * 16_368).contains(&cubic.window()));
    }
}
