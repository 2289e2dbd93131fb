//! A small tunnel beside two bulk downloads, and beside four tunnels more that nobody reads.
//!
//! The small tunnel exchanges messages one after the other, first beside the bulk alone, then with
//! the stalled tunnels as well, which have had a warm-up to fill every buffer on their way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use super::{Figures, Metric, bulk, count, round_trip};
use crate::cell::{Cell, Finished, keep_working};
use crate::client::{LIMIT, StoodStill};

pub(super) const METRICS: [Metric; 8] = [
    Metric::lower("p50 beside 2 bulk", "µs"),
    Metric::lower("p99 beside 2 bulk", "µs"),
    Metric::higher("bulk rate", "Gbit/s"),
    Metric::lower("p50 beside 2 bulk and 4 stalled", "µs"),
    Metric::lower("p99 beside 2 bulk and 4 stalled", "µs"),
    Metric::higher("bulk rate with stalled", "Gbit/s"),
    Metric::lower("p99 with stalled ÷ without", "×"),
    Metric::lower("p50 with stalled ÷ without", "×"),
];

/// Downloads.
const BULK: u32 = 2;

/// Downloads that are never read.
const STALLED: u32 = 4;

/// What is seen of a session in one window.
struct Seen {
    p50: f64,
    p99: f64,
    gbits: f64,
}

pub(super) async fn measure(cell: &Cell<'_>) -> Result<Figures> {
    let received = Arc::new(AtomicU64::new(0));
    let mut downloads = JoinSet::new();
    for _ in 0..BULK {
        let stream = cell.download().await.context("bulk")?;
        downloads.spawn(bulk::receive(stream, Arc::clone(&received)));
    }
    let mut small = cell.route.open(cell.at.echo).await.context("small")?;
    let without = watch(cell, &mut downloads, &mut small, &received).await;
    let without = without.context("beside bulk alone")?;

    let mut stalled = Vec::new();
    for number in 1..=STALLED {
        let opened = cell.download().await;
        stalled.push(opened.with_context(|| format!("stalled tunnel {number}"))?);
        keep_working(&mut downloads, cell.plan.warm_up / STALLED).await?;
    }
    let with = watch(cell, &mut downloads, &mut small, &received).await;
    let with = with.with_context(|| format!("beside bulk and {} stalled", stalled.len()))?;
    Ok([
        without.p50,
        without.p99,
        without.gbits,
        with.p50,
        with.p99,
        with.gbits,
        with.p99 / without.p99,
        with.p50 / without.p50,
    ]
    .map(Some)
    .to_vec())
}

async fn watch(
    cell: &Cell<'_>,
    downloads: &mut JoinSet<Result<()>>,
    small: &mut TcpStream,
    received: &AtomicU64,
) -> Result<Seen> {
    let window = cell.window();
    let finished = Finished::default();
    let gbits = async {
        keep_working(downloads, cell.plan.warm_up).await?;
        let before = received.load(Ordering::Relaxed);
        keep_working(downloads, cell.plan.window).await?;
        let bytes = received.load(Ordering::Relaxed) - before;
        Ok(count(bytes) * 8.0 / 1e9 / cell.plan.window.as_secs_f64())
    };
    let exchanges = async {
        let done = timeout_at(
            window.end + LIMIT,
            round_trip::exchanges(small, window, &finished),
        );
        let still = || StoodStill(format!("stood still after {} exchanges", finished.count()));
        done.await.with_context(still)?
    };
    let (gbits, mut latencies): (f64, Vec<Duration>) = tokio::try_join!(gbits, exchanges)?;
    latencies.sort_unstable();
    let [p50, p99] = round_trip::percentiles(&latencies)?;
    Ok(Seen { p50, p99, gbits })
}
