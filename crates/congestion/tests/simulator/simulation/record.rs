//! Measurements of a simulation.

use std::time::Duration;

use crate::simulation::{DATAGRAM, Simulation};

/// Resolution of the throughput measurement.
pub(super) const BIN: Duration = Duration::from_millis(50);

impl Simulation {
    /// Jain's fairness index of all flows: 1 for equal shares, 1/n if one of n flows gets
    /// everything.
    pub(crate) fn fairness(&self, from: Duration, to: Duration) -> f64 {
        let rates: Vec<f64> = (0..self.flows.len())
            .map(|flow| self.mbit(flow, from, to))
            .collect();
        let squares: f64 = rates.iter().map(|rate| rate * rate).sum();
        rates.iter().sum::<f64>().powi(2) / (rates.len() as f64 * squares)
    }

    /// The window of a flow at a time, in datagrams.
    pub(crate) fn window(&self, flow: usize, at: Duration) -> u64 {
        let windows = &self.flows[flow].windows;
        let before = windows.partition_point(|(set, _)| *set <= at);
        before
            .checked_sub(1)
            .map_or(0, |last| windows[last].1 / DATAGRAM)
    }

    /// Throughput of a flow in Mbit/s between two times.
    pub(crate) fn mbit(&self, flow: usize, from: Duration, to: Duration) -> f64 {
        let bin = |at: Duration| (at.as_nanos() / BIN.as_nanos()) as usize;
        let delivered = &self.flows[flow].delivered;
        let bytes: u64 = (bin(from)..bin(to))
            .filter_map(|bin| delivered.get(bin))
            .sum();
        bytes as f64 * 8.0 / 1e6 / (to - from).as_secs_f64()
    }

    /// Share of the time between `from` and `to` in which a flow was in the competitive state.
    pub(crate) fn competing(&self, flow: usize, from: Duration, to: Duration) -> f64 {
        let spent: Duration = self.flows[flow]
            .competing_since
            .chunks(2)
            .map(|interval| {
                let end = interval.get(1).copied().unwrap_or(to);
                end.clamp(from, to) - interval[0].clamp(from, to)
            })
            .sum();
        spent.as_secs_f64() / (to - from).as_secs_f64()
    }

    /// Number of changes of the window between two times.
    pub(crate) fn window_changes(&self, flow: usize, from: Duration, to: Duration) -> usize {
        let within = |&&(at, _): &&(Duration, u64)| (from..to).contains(&at);
        self.flows[flow].windows.iter().filter(within).count()
    }

    /// Time at which all data had been acknowledged.
    pub(crate) fn finished(&self, flow: usize) -> Option<Duration> {
        self.flows[flow].finished
    }

    pub(crate) fn lost(&self, flow: usize) -> u64 {
        self.flows[flow].lost
    }

    pub(crate) fn sent(&self, flow: usize) -> u64 {
        self.flows[flow].sent_packets
    }

    /// A quantile (`share`) of the queue delay between two times, in milliseconds.
    pub(crate) fn queue_delay_ms(&self, share: f64, from: Duration, to: Duration) -> f64 {
        let mut delays: Vec<Duration> = self
            .queue
            .iter()
            .filter(|(at, _)| (from..to).contains(at))
            .map(|(_, delay)| *delay)
            .collect();
        delays.sort();
        let at = ((delays.len() as f64 * share) as usize).min(delays.len().saturating_sub(1));
        delays
            .get(at)
            .map_or(0.0, |delay| delay.as_secs_f64() * 1e3)
    }
}
