//! Requests and answers of some kilobytes on many tunnels at once.

use anyhow::{Result, ensure};
use tokio::task::JoinSet;
use towline_bench::cell::{Finished, latencies};
use towline_bench::rows::{Figures, Metric, count};
use towline_bench::stats::percentile;

use super::{Cell, milliseconds};
use crate::load;

pub(super) const METRICS: [Metric; 4] = [
    Metric::lower("p50", "ms"),
    Metric::lower("p95", "ms"),
    Metric::lower("p99", "ms"),
    Metric::higher("rate", "/s"),
];

/// Bytes of a request, and of its answer.
const SIZE: usize = 8 * 1024;

pub(super) async fn measure(cell: &Cell<'_>, tunnels: u32) -> Result<Figures> {
    let mut open = Vec::new();
    for _ in 0..tunnels {
        open.push(cell.running.open().await?);
    }
    let window = cell.plan.window();
    let mut workers = JoinSet::new();
    for tunnel in open {
        workers.spawn(load::exchanges(tunnel, SIZE, window));
    }
    let times = latencies(&mut workers, &Finished::default()).await?;
    ensure!(!times.is_empty(), "no request was answered");
    let at = |percent| percentile(&times, percent).map(milliseconds);
    let rate = count(u64::try_from(times.len())?) / cell.plan.window.as_secs_f64();
    Ok(vec![at(50), at(95), at(99), Some(rate)])
}
