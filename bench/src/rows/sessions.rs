//! Many agents on one server: what idle sessions cost.
//!
//! The agents are the library that proxy-agent is made of, all in one process of this bench: with
//! a process for each, the memory of the programs would hide that of the sessions.

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep};

use super::{Figures, Metric, by_program, count};
use crate::cell::{Cell, cpu_seconds};
use crate::proc_fs;

pub const METRICS: [Metric; 9] = [
    Metric::higher("sessions", ""),
    Metric::lower("until all are up", "s"),
    Metric::lower("per session, server + agent (RSS)", "KiB"),
    Metric::lower("per session, server (RSS)", "KiB"),
    Metric::lower("per session, agent (RSS)", "KiB"),
    Metric::lower("idle CPU, server", "% of a core"),
    Metric::lower("idle CPU, all agents", "% of a core"),
    Metric::lower("server with them (RSS)", "MiB"),
    Metric::lower("server after closing (RSS)", "MiB"),
];

pub async fn measure(cell: &Cell<'_>) -> Result<Figures> {
    let Some(swarm) = &cell.running.swarm else {
        return Ok(vec![None; METRICS.len()]);
    };
    let agents = cell.plan.agents;
    let server = *cell.pids().first().context("a swarm needs a server")?;
    let mut swarm = swarm.start(cell.stage).await?;
    let pids = [server, swarm.pid()];
    let before = cell.memory_at_rest(&pids).await?;

    let begin = Instant::now();
    swarm.connect(agents).await?;
    let seconds = begin.elapsed().as_secs_f64();
    let with = cell.memory_at_rest(&pids).await?;

    let ticks = || {
        pids.into_iter()
            .map(proc_fs::cpu_ticks)
            .collect::<Result<Vec<u64>>>()
    };
    let (begin, idle_before) = (Instant::now(), ticks()?);
    sleep(cell.plan.idle).await;
    let cpu = cpu_seconds(&idle_before, &ticks()?);
    let idle = begin.elapsed().as_secs_f64();

    swarm.stop().await?;
    let after = cell.memory_at_rest(&[server]).await?;

    let growth = before.iter().zip(&with);
    let each = growth.map(|(before, with)| count(with.rss) - count(before.rss));
    let each: Vec<f64> = each.map(|grown| grown / f64::from(agents)).collect();
    let [both, per_server, per_agent] = by_program(&each);
    let busy = cpu.iter().map(|seconds| Some(seconds * 100.0 / idle));
    let mut figures = vec![
        Some(f64::from(agents)),
        Some(seconds),
        both,
        per_server,
        per_agent,
    ];
    figures.extend(busy);
    let server = [&with, &after].map(|all| Some(count(all.first()?.rss) / 1024.0));
    figures.extend(server);
    Ok(figures)
}
