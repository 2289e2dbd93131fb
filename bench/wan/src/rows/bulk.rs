//! Endless downloads, and how long small messages take beside them.

use anyhow::{Context, Result};
use tokio::task::JoinSet;
use tokio::time::Instant;
use towline_bench::cell::keep_working;
use towline_bench::rows::{Figures, Metric, count};
use towline_bench::stats::percentile;

use super::{Cell, megabits_per_second, milliseconds};
use crate::load::{self, Flow};

pub(super) const METRICS: [Metric; 4] = [
    Metric::higher("rate", "Mbit/s"),
    Metric::lower("64-byte round trip beside, p50", "ms"),
    Metric::lower("64-byte round trip beside, p99", "ms"),
    Metric::lower("dropped by the queue", "% of packets"),
];

/// Bytes of a small message.
const MESSAGE: usize = 64;

pub(super) async fn measure(cell: &Cell<'_>, streams: u32) -> Result<Figures> {
    let mut workers = JoinSet::new();
    let small = cell.running.open().await?;
    let mut flows = Vec::new();
    for _ in 0..streams {
        let tunnel = cell.running.open().await?;
        flows.push(Flow::start(tunnel, &mut workers));
    }
    let window = cell.plan.window();
    let mut trips = JoinSet::new();
    trips.spawn(load::exchanges(small, MESSAGE, window));

    let bytes = || flows.iter().map(Flow::bytes).sum::<u64>();
    keep_working(&mut workers, cell.plan.warm_up).await?;
    let (begin, before, [_, link_before]) = (Instant::now(), bytes(), cell.wan.counters());
    keep_working(&mut workers, cell.plan.window).await?;
    let (time, after, [_, link_after]) = (begin.elapsed(), bytes(), cell.wan.counters());

    let mut trips = trips.join_next().await.context("a worker")???;
    trips.sort_unstable();
    let trip = |percent| percentile(&trips, percent).map(milliseconds);
    let dropped = link_after.overflowed - link_before.overflowed;
    let offered = link_after.offered() - link_before.offered();
    Ok(vec![
        Some(megabits_per_second(after - before, time)),
        trip(50),
        trip(99),
        Some(count(dropped) / count(offered.max(1)) * 100.0),
    ])
}
