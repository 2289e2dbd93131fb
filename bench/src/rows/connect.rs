//! Connect, one message there and back, close.
//!
//! The target closes first, right behind its answer, as a server without keep-alive does, and the
//! client closes once it has the answer. The Go reference ends a tunnel only in this order: it
//! does not tell a target that the client has finished.

use std::time::Duration;

use anyhow::Result;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Figures, Metric, by_program, count, round_trip};
use crate::cell::{Cell, Finished, Window, latencies};
use crate::client::{self, Entry};
use crate::target::Service;

pub const METRICS: [Metric; 7] = [
    Metric::higher("rate", "/s"),
    Metric::lower("p50", "µs"),
    Metric::lower("p99", "µs"),
    Metric::lower("max", "µs"),
    Metric::lower("CPU per tunnel, server + agent", "µs"),
    Metric::lower("CPU per tunnel, server", "µs"),
    Metric::lower("CPU per tunnel, agent", "µs"),
];

pub async fn measure(cell: &Cell<'_>, workers: u32) -> Result<Figures> {
    let (window, finished) = (cell.window(), Finished::default());
    let mut set = JoinSet::new();
    for _ in 0..workers {
        set.spawn(work(cell.entry(Service::Once), window, finished.clone()));
    }
    let (latencies, cpu) = tokio::try_join!(latencies(&mut set, &finished), cell.cpu_in(window))?;
    let mut figures = round_trip::figures(&latencies, cell.plan.window)?;
    let tunnels = count(u64::try_from(latencies.len())?);
    let costs = cpu.into_iter().map(|seconds| seconds * 1e6 / tunnels);
    figures.extend(by_program(&costs.collect::<Vec<_>>()));
    Ok(figures)
}

async fn work(entry: Entry, window: Window, finished: Finished) -> Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    let mut begin = Instant::now();
    while begin < window.end {
        client::exchange(&mut entry.open().await?).await?;
        finished.add();
        let end = Instant::now();
        if window.counts(begin) {
            latencies.push(end.duration_since(begin));
        }
        begin = end;
    }
    Ok(latencies)
}
