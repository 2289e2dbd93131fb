//! Small messages on tunnels that are open already, and how often somebody had to be woken up.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::{Figures, Metric, by_program, count};
use crate::cell::{Cell, Finished, Window, latencies};
use crate::client::{self, LIMIT, StoodStill};
use crate::stats::percentile;

pub(super) const METRICS: [Metric; 10] = [
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

pub(super) async fn measure(cell: &Cell<'_>, tunnels: u32) -> Result<Figures> {
    let mut open = Vec::new();
    for _ in 0..tunnels {
        open.push(cell.route.open(cell.at.echo).await?);
    }
    let (window, finished) = (cell.window(), Finished::default());
    let mut workers = JoinSet::new();
    for mut tunnel in open {
        let finished = finished.clone();
        workers.spawn(async move { exchanges(&mut tunnel, window, &finished).await });
    }
    // Exchanges have no deadlines of their own here, so that timers are no part of what they cost.
    let latencies = async {
        let all = timeout_at(window.end + LIMIT, latencies(&mut workers, &finished)).await;
        all.with_context(|| {
            let finished = finished.count();
            let text = format!("a tunnel stands still for {LIMIT:?}, after {finished} exchanges");
            StoodStill(text)
        })?
    };
    let (latencies, cpu, wake_ups) =
        tokio::try_join!(latencies, cell.cpu_in(window), cell.wake_ups_in(window))?;
    let mut figures = figures(&latencies, cell.plan.window)?;
    let messages = count(u64::try_from(latencies.len())?);
    let cpu = cpu.into_iter().map(|seconds| seconds * 1e6 / messages);
    figures.extend(by_program(&cpu.collect::<Vec<_>>()));
    let each = |number: u64| count(number) / messages;
    let programs: Vec<f64> = wake_ups.programs.into_iter().map(each).collect();
    let [_, server, agent] = by_program(&programs);
    figures.extend([server, agent, Some(each(wake_ups.generator))]);
    Ok(figures)
}

/// Exchanges messages to the end of the window.
pub(super) async fn exchanges(
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
pub(super) fn figures(latencies: &[Duration], window: Duration) -> Result<Figures> {
    let [p50, p99, max] = percentiles(latencies)?;
    let rate = count(u64::try_from(latencies.len())?) / window.as_secs_f64();
    Ok([rate, p50, p99, max].map(Some).to_vec())
}

/// The 50th and the 99th percentile and the largest of sorted latencies, in microseconds.
pub(super) fn percentiles(latencies: &[Duration]) -> Result<[f64; 3]> {
    let nothing = || StoodStill("nothing was finished in the whole window".to_owned());
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
    fn an_exchange_counts_where_it_begins() {
        let start = Instant::now();
        let (second, end) = (Duration::from_secs(1), start + Duration::from_secs(2));
        let window = Window { start, end };
        for (begin, counts) in [
            (start - second, false),
            (start, true),
            (start + second, true),
            (end, false),
        ] {
            assert_eq!(window.counts(begin), counts, "{begin:?}");
        }
    }

    #[test]
    fn nothing_has_no_figures() {
        let error = figures(&[], Duration::from_secs(1)).unwrap_err();
        assert!(error.downcast_ref::<StoodStill>().is_some(), "{error:?}");
    }
}
