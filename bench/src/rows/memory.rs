//! Memory: what idle and busy tunnels cost, and what remains when they are closed.
//!
//! Idle ones are opened and closed twice: a process with a leak would keep more.

use anyhow::{Context, Result};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{Figures, Metric, by_program, count};
use crate::cell::{Cell, keep_working, memory};
use crate::client::{self, CHUNK, Flow, LIMIT, TimedOut};
use crate::proc_fs::Memory;
use crate::target::{ORDER, Service};

pub const METRICS: [Metric; 9] = [
    Metric::lower("per tunnel, server + agent (RSS)", "KiB"),
    Metric::lower("per tunnel, server (RSS)", "KiB"),
    Metric::lower("per tunnel, agent (RSS)", "KiB"),
    Metric::lower("per tunnel, server + agent (PSS)", "KiB"),
    Metric::lower("both before (RSS)", "MiB"),
    Metric::lower("both with them (RSS)", "MiB"),
    Metric::lower("both after closing (RSS)", "MiB"),
    Metric::lower("kept after closing, per tunnel (RSS)", "KiB"),
    Metric::lower("both after closing a second time (RSS)", "MiB"),
];

/// What the tunnels do while the memory is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tunnels {
    /// Nothing, after one exchange.
    Idle,
    /// Each carries a download.
    Busy,
}

/// Tunnels that are opened at the same time: few, because each handshake has buffers of its own.
const OPENERS: u32 = 16;

pub async fn measure(cell: &Cell<'_>, kind: Tunnels) -> Result<Figures> {
    warm_up(cell, kind).await.context("warm-up")?;
    let mib = |all: &[Memory]| {
        let all: Vec<f64> = all.iter().map(|one| count(one.rss) / 1024.0).collect();
        by_program(&all)[0]
    };
    let pids = cell.pids();
    let before = cell.memory_at_rest(&pids).await?;
    let (tunnels, with) = open_and_close(cell, kind).await?;
    let after = cell.memory_at_rest(&pids).await?;
    let again = match kind {
        Tunnels::Idle => {
            let again = open_and_close(cell, kind).await;
            again.context("a second time")?;
            mib(&cell.memory_at_rest(&pids).await?)
        }
        Tunnels::Busy => None,
    };

    let growth = |of: fn(&Memory) -> u64, until: &[Memory]| {
        let growth = before.iter().zip(until);
        let growth: Vec<f64> = growth
            .map(|(before, until)| (count(of(until)) - count(of(before))) / f64::from(tunnels))
            .collect();
        by_program(&growth)
    };
    let [both, server, agent] = growth(|memory| memory.rss, &with);
    let [both_pss, ..] = growth(|memory| memory.pss, &with);
    let [kept, ..] = growth(|memory| memory.rss, &after);
    Ok(vec![
        both,
        server,
        agent,
        both_pss,
        mib(&before),
        mib(&with),
        mib(&after),
        kept,
        again,
    ])
}

/// One tunnel of the kind, used and closed: what a process allocates once is allocated then.
async fn warm_up(cell: &Cell<'_>, kind: Tunnels) -> Result<()> {
    client::exchange(&mut cell.open(Service::Echo).await?).await?;
    if kind == Tunnels::Busy {
        let mut stream = cell.open(Service::Orders).await?;
        client::order(&mut stream, &mut [0; ORDER], u64::MAX).await?;
        let mut chunk = vec![0; CHUNK];
        let read = timeout(LIMIT, stream.read_exact(&mut chunk)).await;
        read.with_context(|| TimedOut(format!("no chunk within {LIMIT:?}")))??;
    }
    Ok(())
}

/// How many tunnels there were, and the memory with them.
async fn open_and_close(cell: &Cell<'_>, kind: Tunnels) -> Result<(u32, Vec<Memory>)> {
    match kind {
        Tunnels::Idle => idle(cell, cell.plan.idle_tunnels).await,
        Tunnels::Busy => busy(cell, cell.plan.busy_tunnels).await,
    }
}

/// The memory with so many idle tunnels, which are closed then.
async fn idle(cell: &Cell<'_>, tunnels: u32) -> Result<(u32, Vec<Memory>)> {
    let open = open(cell, tunnels).await?;
    sleep(cell.plan.settle).await;
    let with = memory(&cell.pids())?;
    drop(open);
    Ok((tunnels, with))
}

/// The memory with so many downloads.
async fn busy(cell: &Cell<'_>, tunnels: u32) -> Result<(u32, Vec<Memory>)> {
    let (flow, mut downloads) = (Flow::default(), JoinSet::new());
    for _ in 0..tunnels {
        cell.download(&mut downloads, &flow).await?;
    }
    keep_working(&mut downloads, cell.plan.warm_up + cell.plan.window).await?;
    Ok((tunnels, memory(&cell.pids())?))
}

async fn open(cell: &Cell<'_>, tunnels: u32) -> Result<Vec<TcpStream>> {
    let entry = cell.entry(Service::Echo);
    let mut openers = JoinSet::new();
    for opener in 0..OPENERS {
        let share = (opener..tunnels).step_by(usize::try_from(OPENERS)?).count();
        openers.spawn(async move {
            let mut open = Vec::with_capacity(share);
            for number in 0..share {
                let context = || format!("after {number} tunnels of {share} of an opener");
                let mut tunnel = entry.open().await.with_context(context)?;
                client::exchange(&mut tunnel).await.with_context(context)?;
                open.push(tunnel);
            }
            anyhow::Ok(open)
        });
    }
    let mut all = Vec::new();
    while let Some(ended) = openers.join_next().await {
        all.append(&mut ended??);
    }
    Ok(all)
}
