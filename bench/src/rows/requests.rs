//! Requests and answers of some kilobytes on many tunnels at once.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::{Figures, Metric, count, milliseconds};
use crate::cell::{Cell, Finished, Window, latencies};
use crate::client::{self, LIMIT, TimedOut};
use crate::stats::percentile;
use crate::target::Service;

pub const METRICS: [Metric; 4] = [
    Metric::lower("p50", "ms"),
    Metric::lower("p95", "ms"),
    Metric::lower("p99", "ms"),
    Metric::higher("rate", "/s"),
];

/// Bytes of a request, and of its answer.
const SIZE: usize = 8 * 1024;

pub async fn measure(cell: &Cell<'_>, tunnels: u32) -> Result<Figures> {
    let mut open = Vec::new();
    for _ in 0..tunnels {
        open.push(cell.open(Service::Orders).await?);
    }
    let window = cell.window();
    let mut workers = JoinSet::new();
    for tunnel in open {
        workers.spawn(exchanges(tunnel, SIZE, window));
    }
    let times = latencies(&mut workers, &Finished::default()).await?;
    ensure!(!times.is_empty(), "no request was answered");
    let at = |percent| percentile(&times, percent).map(milliseconds);
    let rate = count(u64::try_from(times.len())?) / cell.plan.window.as_secs_f64();
    Ok(vec![at(50), at(95), at(99), Some(rate)])
}

/// Sends requests of `size` bytes one after the other and returns how long each took until its
/// answer of the same size had arrived: of all that began within the window.
pub async fn exchanges(
    mut stream: TcpStream,
    size: usize,
    window: Window,
) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    loop {
        let begin = Instant::now();
        if begin >= window.end {
            return Ok(times);
        }
        let done = timeout(LIMIT, exchange(&mut stream, size)).await;
        done.with_context(|| TimedOut(format!("no answer within {LIMIT:?}")))??;
        if window.counts(begin) {
            times.push(begin.elapsed());
        }
    }
}

async fn exchange(stream: &mut TcpStream, size: usize) -> Result<()> {
    let mut message = vec![0x2e; size];
    client::order(stream, &mut message, u64::try_from(size)?).await?;
    stream
        .read_exact(&mut message)
        .await
        .context("read an answer")?;
    Ok(())
}
