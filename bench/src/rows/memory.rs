//! Memory: what tunnels cost that lie idle after one exchange, and what stays when they are gone.

use anyhow::{Context, Result};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Figures, Metric, by_program, count};
use crate::cell::Cell;
use crate::client;
use crate::proc_fs::Memory;

pub(super) const METRICS: [Metric; 7] = [
    Metric::lower("per tunnel, server + agent (RSS)", "KiB"),
    Metric::lower("per tunnel, server (RSS)", "KiB"),
    Metric::lower("per tunnel, agent (RSS)", "KiB"),
    Metric::lower("per tunnel, server + agent (PSS)", "KiB"),
    Metric::lower("both before (RSS)", "MiB"),
    Metric::lower("both with them (RSS)", "MiB"),
    Metric::lower("both after closing (RSS)", "MiB"),
];

/// Tunnels that are opened at the same time: few, because each handshake has buffers of its own.
const OPENERS: u32 = 16;

pub(super) async fn measure(cell: &Cell<'_>) -> Result<Figures> {
    let tunnels = cell.plan.idle_tunnels;
    sleep(cell.plan.settle).await;
    let before = cell.memory()?;
    let open = open(cell, tunnels).await?;
    sleep(cell.plan.settle).await;
    let with = cell.memory()?;
    drop(open);
    sleep(cell.plan.settle).await;
    let after = cell.memory()?;

    let per_tunnel = |of: fn(&Memory) -> u64| {
        let growth = before.iter().zip(&with);
        let growth: Vec<f64> = growth
            .map(|(before, with)| (count(of(with)) - count(of(before))) / f64::from(tunnels))
            .collect();
        by_program(&growth)
    };
    let mib = |all: &[Memory]| {
        let all: Vec<f64> = all.iter().map(|one| count(one.rss) / 1024.0).collect();
        by_program(&all)[0]
    };
    let [both, server, agent] = per_tunnel(|memory| memory.rss);
    let [both_pss, ..] = per_tunnel(|memory| memory.pss);
    Ok(vec![
        both,
        server,
        agent,
        both_pss,
        mib(&before),
        mib(&with),
        mib(&after),
    ])
}

async fn open(cell: &Cell<'_>, tunnels: u32) -> Result<Vec<TcpStream>> {
    let (route, target) = (cell.route, cell.target.echo);
    let mut openers = JoinSet::new();
    for opener in 0..OPENERS {
        let share = (opener..tunnels).step_by(usize::try_from(OPENERS)?).count();
        openers.spawn(async move {
            let mut open = Vec::with_capacity(share);
            for number in 0..share {
                let context = || format!("after {number} tunnels of {share} of an opener");
                let mut tunnel = route.open(target).await.with_context(context)?;
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
