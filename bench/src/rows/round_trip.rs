//! Small messages on tunnels that are open already, and how often a process is woken up.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::{Figures, Metric, by_program, count};
use crate::cell::{Cell, Finished, Window, latencies};
use crate::client::{self, LIMIT, TimedOut};
use crate::stats::percentile;
use crate::target::Service;

pub const METRICS: [Metric; 10] = [
    Metric::higher("rate", "/s"),
    Metric::lower("p50", "µs"),
    Metric::lower("p99", "µs"),
    Metric::lower("max", "µs"),
    Metric::lower("CPU per message, server + agent", "µs"),
    Metric::lower("CPU per message, server", "µs"),
    Metric::lower("CPU per message, agent", "µs"),
    Metric::lower("wake-ups per message, server", ""),
    Metric::lower("wake-ups per message, agent", ""),
    Metric::lower("wake-ups per message, load generator", ""),
];

pub async fn measure(cell: &Cell<'_>, tunnels: u32) -> Result<Figures> {
    let mut open = Vec::new();
    for _ in 0..tunnels {
        open.push(cell.open(Service::Echo).await?);
    }
    let (window, finished) = (cell.window(), Finished::default());
    let mut workers = JoinSet::new();
    for mut tunnel in open {
        let finished = finished.clone();
        workers.spawn(async move { exchanges(&mut tunnel, window, &finished).await });
    }
    // Exchanges have no deadlines of their own, so that timers add no cost.
    let latencies = async {
        let all = timeout_at(window.end + LIMIT, latencies(&mut workers, &finished)).await;
        all.with_context(|| {
            let finished = finished.count();
            TimedOut(format!(
                "no answer within {LIMIT:?}, after {finished} exchanges"
            ))
        })?
    };
    let (latencies, cpu, wake_ups) =
        tokio::try_join!(latencies, cell.cpu_in(window), cell.wake_ups_in(window))?;
    let mut figures = figures(&latencies, cell.plan.window)?;
    let messages = count(u64::try_from(latencies.len())?);
    let cpu = cpu.into_iter().map(|seconds| seconds * 1e6 / messages);
    figures.extend(by_program(&cpu.collect::<Vec<_>>()));
    let each = |number: u64| count(number) / messages;
    let mut wake_ups: Vec<f64> = wake_ups.into_iter().map(each).collect();
    let generator = wake_ups.pop();
    let [_, server, agent] = by_program(&wake_ups);
    figures.extend([server, agent, generator]);
    Ok(figures)
}

/// Exchanges messages to the end of the window.
pub async fn exchanges(
    tunnel: &mut TcpStream,
    window: Window,
    finished: &Finished,
) -> Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    let mut begin = Instant::now();
    let mut number = 0;
    while begin < window.end {
        client::exchange_unbounded(tunnel, number).await?;
        finished.add();
        number += 1;
        let end = Instant::now();
        if window.counts(begin) {
            latencies.push(end.duration_since(begin));
        }
        begin = end;
    }
    Ok(latencies)
}

/// Rate, percentiles and maximum of sorted latencies.
pub fn figures(latencies: &[Duration], window: Duration) -> Result<Figures> {
    let [p50, p99, max] = percentiles(latencies)?;
    let rate = count(u64::try_from(latencies.len())?) / window.as_secs_f64();
    Ok([rate, p50, p99, max].map(Some).to_vec())
}

/// The 50th and the 99th percentile and the largest of sorted latencies, in microseconds.
pub fn percentiles(latencies: &[Duration]) -> Result<[f64; 3]> {
    let nothing = || TimedOut("nothing was finished in the whole window".to_owned());
    let at = |percent| {
        let value = percentile(latencies, percent).with_context(nothing)?;
        anyhow::Ok(value.as_secs_f64() * 1e6)
    };
    Ok([at(50)?, at(99)?, at(100)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_a_rate_and_percentiles_in_microseconds() {
        let latencies: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        let figures = figures(&latencies, Duration::from_secs(2)).unwrap();
        assert_eq!(figures, [50.0, 50_000.0, 99_000.0, 100_000.0].map(Some));
    }

    #[test]
    fn nothing_has_no_figures() {
        let error = figures(&[], Duration::from_secs(1)).unwrap_err();
        assert!(error.downcast_ref::<TimedOut>().is_some(), "{error:?}");
    }
}
