//! A small tunnel beside two bulk downloads, and beside four more downloads that are never read.
//!
//! The small tunnel exchanges messages one after the other. The downloads have a process of their
//! own at either end, so that only the subject is shared. With stalled downloads the same is
//! measured twice, first without them; then they have a warm-up to fill every buffer on their way.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpStream;
use tokio::time::{sleep, sleep_until, timeout_at};

use super::{Figures, Metric, count, round_trip};
use crate::cell::{Cell, Finished};
use crate::client::{self, LIMIT, TimedOut};
use crate::downloads::Downloads;
use crate::target::{ORDER, Service};

pub const METRICS: [Metric; 4] = [
    Metric::lower("p50", "µs"),
    Metric::lower("p99", "µs"),
    Metric::lower("max", "µs"),
    Metric::higher("bulk rate", "Gbit/s"),
];

pub const STALLED_METRICS: [Metric; 9] = [
    Metric::lower("p50", "µs"),
    Metric::lower("p99", "µs"),
    Metric::lower("max", "µs"),
    Metric::higher("bulk rate", "Gbit/s"),
    Metric::lower("p50 before the stalled", "µs"),
    Metric::lower("p99 before the stalled", "µs"),
    Metric::higher("bulk rate before the stalled", "Gbit/s"),
    Metric::lower("p99 with stalled ÷ before", "×"),
    Metric::lower("p50 with stalled ÷ before", "×"),
];

/// Downloads.
const BULK: u32 = 2;

/// Downloads that are never read.
const STALLED: u32 = 4;

/// What is measured in one window.
struct Seen {
    p50: f64,
    p99: f64,
    max: f64,
    gbits: f64,
}

/// Beside the downloads alone.
pub async fn measure(cell: &Cell<'_>) -> Result<Figures> {
    let (mut downloads, mut small) = open(cell).await?;
    let seen = watch(cell, &mut downloads, &mut small).await?;
    let figures = [seen.p50, seen.p99, seen.max, seen.gbits];
    Ok(figures.map(Some).to_vec())
}

/// Beside the downloads alone, then beside stalled ones as well.
pub async fn measure_stalled(cell: &Cell<'_>) -> Result<Figures> {
    let (mut downloads, mut small) = open(cell).await?;
    let before = watch(cell, &mut downloads, &mut small).await;
    let before = before.context("beside bulk alone")?;
    let mut stalled = Vec::new();
    for number in 1..=STALLED {
        let context = || format!("stalled tunnel {number}");
        let mut stream = cell.open(Service::Orders).await.with_context(context)?;
        client::order(&mut stream, &mut [0; ORDER], u64::MAX)
            .await
            .with_context(context)?;
        stalled.push(stream);
        sleep(cell.plan.warm_up / STALLED).await;
    }
    let with = watch(cell, &mut downloads, &mut small).await;
    let with = with.with_context(|| format!("beside bulk and {} stalled", stalled.len()))?;
    Ok([
        with.p50,
        with.p99,
        with.max,
        with.gbits,
        before.p50,
        before.p99,
        before.gbits,
        with.p99 / before.p99,
        with.p50 / before.p50,
    ]
    .map(Some)
    .to_vec())
}

async fn open(cell: &Cell<'_>) -> Result<(Downloads, TcpStream)> {
    let downloads = Downloads::start(cell.entry(Service::Orders), BULK).await;
    let downloads = downloads.context("bulk")?;
    let small = cell.open(Service::Echo).await.context("small")?;
    Ok((downloads, small))
}

async fn watch(cell: &Cell<'_>, downloads: &mut Downloads, small: &mut TcpStream) -> Result<Seen> {
    let window = cell.window();
    let finished = Finished::default();
    let gbits = async {
        sleep_until(window.start).await;
        let before = downloads.received().await?;
        sleep_until(window.end).await;
        let bytes = downloads.received().await?.saturating_sub(before);
        Ok(count(bytes) * 8.0 / 1e9 / cell.plan.window.as_secs_f64())
    };
    let exchanges = async {
        let done = timeout_at(
            window.end + LIMIT,
            round_trip::exchanges(small, window, &finished),
        );
        let after = || TimedOut(format!("no answer after {} exchanges", finished.count()));
        done.await.with_context(after)?
    };
    let (gbits, mut latencies): (f64, Vec<Duration>) = tokio::try_join!(gbits, exchanges)?;
    latencies.sort_unstable();
    let [p50, p99, max] = round_trip::percentiles(&latencies)?;
    Ok(Seen {
        p50,
        p99,
        max,
        gbits,
    })
}
