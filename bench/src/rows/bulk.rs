//! Bulk: as many bytes as go through, what they cost, and how long small messages take beside them.

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Figures, Metric, by_program, count, megabits_per_second, milliseconds, requests};
use crate::cell::{Cell, cpu_seconds, keep_working};
use crate::client::{CHUNK, Flow, TimedOut};
use crate::stats::percentile;
use crate::target::{MESSAGE, Service};

pub const METRICS: [Metric; 4] = [
    Metric::higher("rate", "Gbit/s"),
    Metric::lower("CPU, server + agent", "s/GB"),
    Metric::lower("CPU, server", "s/GB"),
    Metric::lower("CPU, agent", "s/GB"),
];

pub const DOWNLOADS_METRICS: [Metric; 4] = [
    Metric::higher("rate", "Mbit/s"),
    Metric::lower("64-byte round trip beside, p50", "ms"),
    Metric::lower("64-byte round trip beside, p99", "ms"),
    Metric::lower("dropped by the queue", "% of packets"),
];

/// 10^9 bytes.
const GB: f64 = 1e9;

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From target to client.
    Down,
    /// From client to target.
    Up,
}

/// What had happened at a moment.
struct Sample {
    at: Instant,
    bytes: u64,
    ticks: Vec<u64>,
}

pub async fn measure(cell: &Cell<'_>, way: Direction, streams: u32) -> Result<Figures> {
    let (flow, mut workers) = (Flow::default(), JoinSet::new());
    for _ in 0..streams {
        match way {
            Direction::Down => cell.download(&mut workers, &flow).await?,
            Direction::Up => {
                workers.spawn(send(cell.open(Service::Sink).await?));
            }
        }
    }
    // Bytes are counted where they arrive: in this process, or in the target.
    let sample = async || {
        let bytes = match way {
            Direction::Down => flow.bytes(),
            Direction::Up => cell.target.sunk().await?,
        };
        anyhow::Ok(Sample {
            at: Instant::now(),
            bytes,
            ticks: cell.cpu_ticks()?,
        })
    };
    keep_working(&mut workers, cell.plan.warm_up).await?;
    let before = sample().await?;
    keep_working(&mut workers, cell.plan.window).await?;
    let after = sample().await?;

    let seconds = after.at.duration_since(before.at).as_secs_f64();
    let bytes = count(after.bytes.saturating_sub(before.bytes));
    if bytes <= 0.0 {
        bail!(TimedOut(format!("no byte arrived in {seconds:.1} s")));
    }
    let costs = cpu_seconds(&before.ticks, &after.ticks).into_iter();
    let costs: Vec<f64> = costs.map(|seconds| seconds / (bytes / GB)).collect();
    let [both, server, agent] = by_program(&costs);
    Ok(vec![Some(bytes * 8.0 / 1e9 / seconds), both, server, agent])
}

async fn send(mut stream: TcpStream) -> Result<()> {
    let buffer = vec![0x5a; CHUNK];
    loop {
        stream.write_all(&buffer).await.context("send")?;
    }
}

/// Downloads, with small messages beside them from the same process.
pub async fn measure_downloads(cell: &Cell<'_>, streams: u32) -> Result<Figures> {
    let (flow, mut workers) = (Flow::default(), JoinSet::new());
    let small = cell.open(Service::Orders).await?;
    for _ in 0..streams {
        cell.download(&mut workers, &flow).await?;
    }
    let mut trips = JoinSet::new();
    trips.spawn(requests::exchanges(small, MESSAGE, cell.window()));

    let sample = || (Instant::now(), flow.bytes(), cell.stage.dropped());
    keep_working(&mut workers, cell.plan.warm_up).await?;
    let (begin, before, dropped_before) = sample();
    keep_working(&mut workers, cell.plan.window).await?;
    let (end, after, dropped_after) = sample();

    let mut trips = trips.join_next().await.context("a worker")???;
    trips.sort_unstable();
    let trip = |percent| percentile(&trips, percent).map(milliseconds);
    let dropped = dropped_before.zip(dropped_after);
    let dropped = dropped.map(|([dropped, offered], [dropped_after, offered_after])| {
        let offered = offered_after - offered;
        count(dropped_after - dropped) / count(offered.max(1)) * 100.0
    });
    let rate = megabits_per_second(after - before, end.duration_since(begin));
    Ok(vec![Some(rate), trip(50), trip(99), dropped])
}
