//! Very many agents on one server: what sessions cost that carry nothing.
//!
//! The agents are the library that proxy-agent is made of, all in one process of this bench: with
//! a process for each, the memory of the programs themselves would be all that is seen.

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep};

use super::{Figures, Metric, count};
use crate::cell::{Cell, cpu_seconds};
use crate::proc_fs;
use crate::swarm::Swarm;

pub(super) const METRICS: [Metric; 9] = [
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

pub(super) async fn measure(cell: &Cell<'_>) -> Result<Figures> {
    let Some(place) = cell.swarm else {
        return Ok(vec![None; METRICS.len()]);
    };
    let agents = cell.plan.agents;
    let server = cell.programs.first().context("a swarm needs a server")?.pid;
    let mut swarm = Swarm::start(place).await?;
    sleep(cell.plan.settle).await;
    let before = [
        proc_fs::memory(server)?.rss,
        proc_fs::memory(swarm.pid)?.rss,
    ];

    let begin = Instant::now();
    swarm.connect(agents).await?;
    let seconds = begin.elapsed().as_secs_f64();
    sleep(cell.plan.settle).await;
    let with = [
        proc_fs::memory(server)?.rss,
        proc_fs::memory(swarm.pid)?.rss,
    ];

    let ticks = || anyhow::Ok([proc_fs::cpu_ticks(server)?, proc_fs::cpu_ticks(swarm.pid)?]);
    let (begin, idle_before) = (Instant::now(), ticks()?);
    sleep(cell.plan.idle).await;
    let cpu = cpu_seconds(&idle_before, &ticks()?)?;
    let idle = begin.elapsed().as_secs_f64();

    swarm.stop().await?;
    sleep(cell.plan.settle).await;
    let after = proc_fs::memory(server)?.rss;

    let each = |end: usize| (count(with[end]) - count(before[end])) / f64::from(agents);
    let busy = cpu.iter().map(|seconds| Some(seconds * 100.0 / idle));
    let mut figures = vec![
        Some(f64::from(agents)),
        Some(seconds),
        Some(each(0) + each(1)),
        Some(each(0)),
        Some(each(1)),
    ];
    figures.extend(busy);
    figures.extend([with[0], after].map(|kib| Some(count(kib) / 1024.0)));
    Ok(figures)
}
