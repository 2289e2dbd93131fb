//! Very many tunnels: the last must be served like the first.
//!
//! Unlike in the row connect-request-close the client closes first, as most clients do. A proxy
//! that does not tell the target so leaks a stream here with every tunnel.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::cell::{self, Cell, Finished, latencies};
use crate::cli::Cli;
use crate::client::{self, Route};
use crate::comparison::Subjects;
use crate::machine::Machine;
use crate::proc_fs::Memory;
use crate::stats::{figure, percentile, ratio};
use crate::subject::{Kind, Subject};
use crate::target::Target;

/// Tunnels at the same time.
const WORKERS: u32 = 8;

/// Into how many blocks the tunnels are divided.
const BLOCKS: u64 = 10;

/// One tenth of the tunnels.
#[derive(Debug)]
struct Block {
    /// Tunnels so far.
    tunnels: u64,
    /// Tunnels per second in this block.
    rate: f64,
    /// Of a tunnel in this block, from connect to answer.
    p99: Duration,
    /// Memory of server and agent at its end.
    memory: Vec<Memory>,
}

/// Opens the tunnels of `--soak` on each subject in turn and prints a table for each; says
/// whether ours, or the direct connection, failed.
///
/// # Errors
/// When nothing can be measured at all.
pub async fn run(cli: &Cli) -> Result<bool> {
    let tunnels = cli.soak.unwrap_or_default();
    let subjects = Subjects::find(cli)?;
    let target = Target::start().await?;
    let description = subjects.describe().await?.join("\n- ");
    writeln!(
        io::stdout().lock(),
        "- {}\n- {description}",
        Machine::read()
    )?;
    let mut broken = false;
    for subject in &subjects.installed {
        let mut blocks = Vec::new();
        let ended = soak(cli, subject, &target, &mut blocks).await;
        broken |= ended.is_err() && subject.kind.must_work();
        let ended = ended.map_err(|error| format!("{error:#}"));
        let text = markdown(subject.kind, tunnels, &blocks, ended);
        write!(io::stdout().lock(), "\n{text}")?;
    }
    Ok(broken)
}

async fn soak(
    cli: &Cli,
    subject: &Subject,
    target: &Target,
    blocks: &mut Vec<Block>,
) -> Result<()> {
    let running = subject.start(target.at).await.context("start")?;
    let plan = cli.plan();
    let cell = Cell::new(&running, target, &plan);
    let (tunnels, finished) = (cli.soak.unwrap_or_default(), Finished::default());
    for number in 1..=BLOCKS {
        let (begin, before) = (Instant::now(), finished.count());
        let until = tunnels * number / BLOCKS;
        let latencies = block(&cell, until - before, &finished).await?;
        let seconds = begin.elapsed().as_secs_f64();
        let block = Block {
            tunnels: finished.count(),
            rate: f64::from(u32::try_from(latencies.len())?) / seconds,
            p99: percentile(&latencies, 99).context("a block has tunnels")?,
            memory: cell::memory(&cell.pids())?,
        };
        writeln!(
            io::stderr().lock(),
            "{}: {} tunnels, {}/s",
            subject.kind.name(),
            block.tunnels,
            figure(block.rate),
        )?;
        blocks.push(block);
    }
    running.stop().await
}

/// So many tunnels, each closed by the client once it has the answer.
async fn block(cell: &Cell<'_>, tunnels: u64, finished: &Finished) -> Result<Vec<Duration>> {
    let left = Arc::new(AtomicU64::new(tunnels));
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        let left = Arc::clone(&left);
        workers.spawn(work(cell.route, cell.at.echo, left, finished.clone()));
    }
    latencies(&mut workers, finished).await
}

async fn work(
    route: Route,
    target: SocketAddr,
    left: Arc<AtomicU64>,
    finished: Finished,
) -> Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    let take = |left: u64| left.checked_sub(1);
    while left
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
        .is_ok()
    {
        let begin = Instant::now();
        client::exchange(&mut route.open(target).await?).await?;
        finished.add();
        latencies.push(begin.elapsed());
    }
    Ok(latencies)
}

fn markdown(kind: Kind, tunnels: u64, blocks: &[Block], ended: Result<(), String>) -> String {
    let name = kind.name();
    let mut text = format!(
        "{name}: {tunnels} tunnels, each closed by the client after one exchange, \
         {WORKERS} workers\n\n\
         | tunnels | per second | p99 µs | server RSS MiB | agent RSS MiB |\n\
         |---:|---:|---:|---:|---:|\n"
    );
    for block in blocks {
        let cells = [
            block.tunnels.to_string(),
            figure(block.rate),
            figure(block.p99.as_secs_f64() * 1e6),
            rss(block.memory.first()),
            rss(block.memory.get(1)),
        ];
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    let verdict = match (ended, blocks) {
        (Err(why), _) => format!("failed: {why}"),
        (Ok(()), [first, .., last]) => {
            let share = ratio(last.rate, first.rate);
            format!("all served; the last tenth at {share} the rate of the first")
        }
        (Ok(()), _) => "all served".to_owned(),
    };
    format!("{text}\n{name}: {verdict}\n")
}

fn rss(memory: Option<&Memory>) -> String {
    let mib = |memory: &Memory| u32::try_from(memory.rss).map(|kib| f64::from(kib) / 1024.0);
    match memory.map(mib) {
        Some(Ok(mib)) => figure(mib),
        _ => "–".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(tunnels: u64, rate: f64) -> Block {
        Block {
            tunnels,
            rate,
            p99: Duration::from_micros(1500),
            memory: vec![Memory {
                rss: 10_240,
                pss: 1,
            }],
        }
    }

    #[test]
    fn blocks_are_lines_and_the_last_is_compared_with_the_first() {
        let blocks = [block(10, 4000.0), block(20, 3000.0)];
        let text = markdown(Kind::Towline, 20, &blocks, Ok(()));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[4], "| 10 | 4,000 | 1,500 | 10.0 | – |");
        let verdict = "towline: all served; the last tenth at 0.75 × the rate of the first";
        assert_eq!(lines.last(), Some(&verdict));
    }

    #[test]
    fn a_failure_is_told() {
        let text = markdown(Kind::Reference, 20, &[], Err("no answer".to_owned()));
        assert!(text.ends_with("\nreference: failed: no answer\n"), "{text}");
    }
}
