//! Very many tunnels on loopback: the last must be served like the first.
//!
//! Unlike in the row connect-request-close the client closes first, as most clients do. A proxy
//! that does not forward this to the target leaks a stream with every tunnel.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::cell::{Finished, latencies, memory};
use crate::cli::Cli;
use crate::client::{self, Entry};
use crate::machine;
use crate::outcome::NOTHING;
use crate::place::Stage;
use crate::stats::{figure, percentile, ratio};
use crate::subject::Subject;
use crate::target::{Service, Target};

/// Tunnels at the same time.
const WORKERS: u32 = 8;

/// The number of blocks into which the tunnels are divided.
const BLOCKS: u64 = 10;

/// Opens the tunnels of `--soak` on each subject in turn and prints a table for each; returns
/// whether Towline, or the direct connection, failed.
pub async fn run(cli: &Cli, tunnels: u64) -> Result<bool> {
    let found = cli.subjects().await?;
    let (machine, moment) = (machine::name(), machine::moment());
    writeln!(io::stdout().lock(), "- {machine}; {moment}")?;
    for line in &found.skipped {
        writeln!(io::stdout().lock(), "- SKIPPED: {line}")?;
    }
    let mut broken = false;
    for subject in &found.subjects {
        let (name, about) = (&subject.name, &subject.description);
        writeln!(
            io::stdout().lock(),
            "\n{name}: {about}; {tunnels} tunnels, each closed by the client after one exchange, \
             {WORKERS} workers\n\n\
             | tunnels | per second | p99 µs | server RSS MiB | agent RSS MiB |\n\
             |---:|---:|---:|---:|---:|"
        )?;
        let ended = soak(subject, tunnels).await;
        broken |= ended.is_err() && subject.peer.must_work();
        let verdict = match ended {
            Ok(share) => format!("all served; the last tenth at {share} the rate of the first"),
            Err(error) => format!("failed: {error:#}"),
        };
        writeln!(io::stdout().lock(), "\n{name}: {verdict}")?;
    }
    Ok(broken)
}

/// Prints a line for each block, and returns the ratio of the last rate to the first.
async fn soak(subject: &Subject, tunnels: u64) -> Result<String> {
    let stage = Stage::Loopback;
    let target = Target::start(&stage, None).await?;
    let running = subject.start(&stage, target.at).await.context("start")?;
    let pids: Vec<u32> = running.programs.iter().map(|program| program.pid).collect();
    let (finished, mut rates) = (Finished::default(), Vec::new());
    for number in 1..=BLOCKS {
        let (begin, before) = (Instant::now(), finished.count());
        let left = tunnels * number / BLOCKS - before;
        let latencies = block(running.entry(Service::Echo), left, &finished).await?;
        let rate = f64::from(u32::try_from(latencies.len())?) / begin.elapsed().as_secs_f64();
        let p99 = percentile(&latencies, 99).context("a block has tunnels")?;
        let mut cells = vec![
            finished.count().to_string(),
            figure(rate),
            figure(p99.as_secs_f64() * 1e6),
        ];
        for memory in memory(&pids)? {
            cells.push(figure(f64::from(u32::try_from(memory.rss)?) / 1024.0));
        }
        cells.resize(5, NOTHING.to_owned());
        writeln!(io::stdout().lock(), "| {} |", cells.join(" | "))?;
        rates.push(rate);
    }
    running.stop().await?;
    let ends = rates.first().zip(rates.last());
    let (first, last) = ends.context("there are blocks")?;
    Ok(ratio(*last, *first))
}

/// So many tunnels, each closed by the client once it has the answer.
async fn block(entry: Entry, tunnels: u64, finished: &Finished) -> Result<Vec<Duration>> {
    let left = Arc::new(AtomicU64::new(tunnels));
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        workers.spawn(work(entry, Arc::clone(&left), finished.clone()));
    }
    latencies(&mut workers, finished).await
}

async fn work(entry: Entry, left: Arc<AtomicU64>, finished: Finished) -> Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    let take = |left: u64| left.checked_sub(1);
    while left
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
        .is_ok()
    {
        let begin = Instant::now();
        client::exchange(&mut entry.open().await?).await?;
        finished.add();
        latencies.push(begin.elapsed());
    }
    Ok(latencies)
}
