//! The window function of CUBIC (RFC 9438), used in the competitive state. Section numbers refer
//! to that RFC.

use std::time::{Duration, Instant};

/// Multiplicative decrease factor, `beta_cubic` (§4.6).
const BETA_CUBIC: f64 = 0.7;

/// Scale of the cubic function, in datagrams per second cubed (§5.1).
const C: f64 = 0.4;

/// Additive increase factor that gives the mean window of Reno at this decrease factor (§4.3).
const ALPHA_CUBIC: f64 = 3.0 * (1.0 - BETA_CUBIC) / (1.0 + BETA_CUBIC);

/// Upper bound of the target, as a multiple of the window (§4.2).
const MAX_TARGET_FACTOR: f64 = 1.5;

/// A CUBIC window and its epoch. Windows are in bytes, so that the datagram size may change.
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
    /// Starts an epoch at `window` with `w_max` equal to it.
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

    /// Time since the epoch started, which is the time of the latest loss.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.epoch_start)
    }

    /// The window in bytes.
    pub(super) fn window(&self) -> u64 {
        self.window as u64
    }

    /// Grows the window after `acked` bytes were acknowledged while the window was utilized.
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

    /// Starts a new epoch after a loss; the window is reduced, but not below `min_window` bytes.
    pub(super) fn on_loss(&mut self, now: Instant, min_window: u64) {
        // Fast convergence (§4.7): release bandwidth to new flows.
        self.w_max = if self.window < self.w_max {
            self.window * (1.0 + BETA_CUBIC) / 2.0
        } else {
            self.window
        };
        self.cwnd_epoch = (self.window * BETA_CUBIC).max(min_window as f64);
        // The minimum window may be above the maximum; then there is no window to return to.
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
        // A minimum window that rises with the datagram size becomes the new maximum.
        cubic.on_loss(now, 2 * 16_368);
        assert_eq!(cubic.window(), 2 * 16_368);
        cubic.grow(now, Duration::from_millis(40), 2 * 16_368, 16_368);
        assert!((2 * 16_368..4 * 16_368).contains(&cubic.window()));
    }
}
