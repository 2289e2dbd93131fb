//! Small messages on tunnels that are open already.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::{Figures, Metric, count};
use crate::cell::{Cell, Finished, Window, latencies};
use crate::client::{self, LIMIT};
use crate::stats::percentile;

pub(super) const METRICS: [Metric; 3] = [
    Metric::higher("rate", "/s"),
    Metric::lower("p50", "µs"),
    Metric::lower("p99", "µs"),
];

pub(super) async fn measure(cell: &Cell<'_>, tunnels: u32) -> Result<Figures> {
    let mut open = Vec::new();
    for _ in 0..tunnels {
        open.push(cell.route.open(cell.target.echo).await?);
    }
    let (window, finished) = (cell.window(), Finished::default());
    let mut workers = JoinSet::new();
    for tunnel in open {
        workers.spawn(work(tunnel, window, finished.clone()));
    }
    // Exchanges have no deadlines of their own here, so that timers are no part of what they cost.
    let latencies = timeout_at(window.end + LIMIT, latencies(&mut workers, &finished)).await;
    let latencies = latencies.with_context(|| {
        let finished = finished.count();
        format!("a tunnel stands still for {LIMIT:?}, after {finished} exchanges on all")
    })??;
    figures(&latencies, cell.plan.window)
}

async fn work(mut tunnel: TcpStream, window: Window, finished: Finished) -> Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    let mut begin = Instant::now();
    let mut number = 0;
    while begin < window.end {
        client::exchange_unbounded(&mut tunnel, number).await?;
        finished.add();
        number += 1;
        let end = Instant::now();
        if begin >= window.start && end <= window.end {
            latencies.push(end.duration_since(begin));
        }
        begin = end;
    }
    Ok(latencies)
}

/// Rate and percentiles of sorted latencies.
pub(super) fn figures(latencies: &[Duration], window: Duration) -> Result<Figures> {
    ensure!(!latencies.is_empty(), "nothing was finished in {window:?}");
    let rate = count(u64::try_from(latencies.len())?) / window.as_secs_f64();
    let at = |percent| percentile(latencies, percent).map(|value| value.as_secs_f64() * 1e6);
    Ok(vec![Some(rate), at(50), at(99)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_a_rate_and_percentiles_in_microseconds() {
        let latencies: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        let figures = figures(&latencies, Duration::from_secs(2)).unwrap();
        assert_eq!(figures, [Some(50.0), Some(50_000.0), Some(99_000.0)]);
        assert_eq!(figures.len(), METRICS.len());
    }

    #[test]
    fn nothing_has_no_figures() {
        assert!(figures(&[], Duration::from_secs(1)).is_err());
    }
}
