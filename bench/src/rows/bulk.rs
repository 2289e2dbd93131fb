//! Bulk: as many bytes as go through, and what they cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Figures, Metric, by_program, count};
use crate::cell::{Cell, cpu_seconds, keep_working};
use crate::client::{CHUNK, StoodStill};
use crate::downloads::receive;

pub(super) const METRICS: [Metric; 4] = [
    Metric::higher("rate", "Gbit/s"),
    Metric::lower("CPU, server + agent", "s/GB"),
    Metric::lower("CPU, server", "s/GB"),
    Metric::lower("CPU, agent", "s/GB"),
];

/// 10^9 bytes.
const GB: f64 = 1e9;

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// From target to client.
    Down,
    /// From client to target.
    Up,
}

/// What had happened at a moment.
#[derive(Debug)]
struct Sample {
    at: Instant,
    bytes: u64,
    ticks: Vec<u64>,
}

pub(super) async fn measure(cell: &Cell<'_>, way: Direction, streams: u32) -> Result<Figures> {
    let received = Arc::new(AtomicU64::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..streams {
        match way {
            Direction::Down => {
                let stream = cell.route.download(cell.at.source).await?;
                workers.spawn(receive(stream, Arc::clone(&received)));
            }
            Direction::Up => {
                let stream = cell.route.open(cell.at.sink).await?;
                workers.spawn(send(stream));
            }
        }
    }
    keep_working(&mut workers, cell.plan.warm_up).await?;
    let before = sample(cell, way, &received).await?;
    keep_working(&mut workers, cell.plan.window).await?;
    let after = sample(cell, way, &received).await?;

    let seconds = after.at.duration_since(before.at).as_secs_f64();
    let bytes = count(after.bytes.saturating_sub(before.bytes));
    if bytes <= 0.0 {
        bail!(StoodStill(format!("no byte arrived in {seconds:.1} s")));
    }
    let costs = cpu_seconds(&before.ticks, &after.ticks)?.into_iter();
    let costs: Vec<f64> = costs.map(|seconds| seconds / (bytes / GB)).collect();
    let [both, server, agent] = by_program(&costs);
    Ok(vec![Some(bytes * 8.0 / 1e9 / seconds), both, server, agent])
}

/// Bytes are counted where they arrive: in this process, or in the target.
async fn sample(cell: &Cell<'_>, way: Direction, received: &AtomicU64) -> Result<Sample> {
    let bytes = match way {
        Direction::Down => received.load(Ordering::Relaxed),
        Direction::Up => cell.target.sunk().await?,
    };
    Ok(Sample {
        at: Instant::now(),
        bytes,
        ticks: cell.cpu_ticks()?,
    })
}

async fn send(mut stream: TcpStream) -> Result<()> {
    let buffer = vec![0x5a; CHUNK];
    loop {
        stream.write_all(&buffer).await.context("send")?;
    }
}
