//! One row on one subject, measured once: what a row measures with.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::client::{Entry, Flow};
use crate::place::Stage;
use crate::proc_fs::{self, Memory};
use crate::process::Program;
use crate::rows::count;
use crate::subject::{Running, Subject};
use crate::target::{Service, Target};

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How often every row is measured.
    pub rounds: u32,
    /// Load before the clock starts: slow start, path MTU discovery and allocators settle.
    pub warm_up: Duration,
    /// How long rates and latencies are measured.
    pub window: Duration,
    /// How long shares of two flows are measured: flows take seconds to find them.
    pub share_window: Duration,
    /// Tunnels that are idle while the memory is read.
    pub idle_tunnels: u32,
    /// Downloads that run while the memory is read.
    pub busy_tunnels: u32,
    /// Agents on one server without tunnels.
    pub agents: u32,
    /// How long their CPU time is measured.
    pub idle: Duration,
    /// How long memory must stay the same before it is read; see [`LOOKS`].
    pub settle: Duration,
}

/// What a row measures with.
#[derive(Debug)]
pub struct Cell<'a> {
    /// The place.
    pub stage: &'a Stage<'a>,
    /// What clients reach.
    pub target: &'a Target,
    /// What is measured.
    pub subject: &'a Subject,
    /// Its processes.
    pub running: &'a Running,
    /// How much is measured.
    pub plan: &'a Plan,
}

/// How often, at most, memory is read again to see whether it stays the same.
pub const LOOKS: u32 = 3;

/// The change, in KiB, of memory that is the same.
const STILL: u64 = 64;

/// When the clock of a cell starts and stops.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// What begins earlier is warm-up.
    pub start: Instant,
    /// What begins later is not counted.
    pub end: Instant,
}

/// Exchanges that all workers of a cell have finished, those of the warm-up included; an error
/// reports them.
#[derive(Debug, Clone, Default)]
pub struct Finished(Arc<AtomicU64>);

// === impl Plan ===

impl Plan {
    /// How long a cell may take, starts and deadlines aside: each of its times at least once.
    pub fn limit(&self) -> Duration {
        let loads = (self.warm_up + self.window) * 2 + self.share_window;
        loads + self.settle * LOOKS * 4 + self.idle
    }
}

// === impl Cell ===

impl Cell<'_> {
    /// How clients reach a service of the target.
    pub fn entry(&self, service: Service) -> Entry {
        self.running.entry(service)
    }

    /// Opens a tunnel to a service of the target.
    pub async fn open(&self, service: Service) -> Result<TcpStream> {
        self.entry(service).open().await
    }

    /// Opens a tunnel on which a worker downloads without end, counted by `flow`.
    pub async fn download(&self, workers: &mut JoinSet<Result<()>>, flow: &Flow) -> Result<()> {
        let stream = self.open(Service::Orders).await?;
        workers.spawn(flow.clone().receive(stream, u64::MAX));
        Ok(())
    }

    /// The clock of a cell whose load starts now.
    pub fn window(&self) -> Window {
        let start = Instant::now() + self.plan.warm_up;
        Window {
            start,
            end: start + self.plan.window,
        }
    }

    /// The CPU time of each process so far, in clock ticks.
    pub fn cpu_ticks(&self) -> Result<Vec<u64>> {
        self.pids().into_iter().map(proc_fs::cpu_ticks).collect()
    }

    /// The CPU time that each process uses in a window that has not started yet, in seconds.
    pub async fn cpu_in(&self, window: Window) -> Result<Vec<f64>> {
        let [before, after] = window.at_ends(|| self.cpu_ticks()).await?;
        Ok(cpu_seconds(&before, &after))
    }

    /// How often each process, and then this one, went to sleep in a window that has not started
    /// yet: as often it is woken up.
    pub async fn wake_ups_in(&self, window: Window) -> Result<Vec<u64>> {
        let pids = || self.pids().into_iter().chain([process::id()]);
        let [before, after] = window
            .at_ends(|| pids().map(proc_fs::sleeps).collect())
            .await?;
        let all = before.into_iter().zip(after);
        Ok(all
            .map(|(before, after): (u64, u64)| after.saturating_sub(before))
            .collect())
    }

    /// The process ids of the server and of the agent.
    pub fn pids(&self) -> Vec<u32> {
        let programs = self.running.programs.iter();
        programs.map(|program: &Program| program.pid).collect()
    }

    /// The memory of processes once it has stayed the same for [`Plan::settle`], or as it is after
    /// [`LOOKS`] times as long.
    pub async fn memory_at_rest(&self, pids: &[u32]) -> Result<Vec<Memory>> {
        let rss = |all: &[Memory]| -> u64 { all.iter().map(|one| one.rss).sum() };
        let mut last = memory(pids)?;
        for _ in 0..LOOKS {
            sleep(self.plan.settle).await;
            let now = memory(pids)?;
            let moved = rss(&now).abs_diff(rss(&last));
            last = now;
            if moved <= STILL {
                break;
            }
        }
        Ok(last)
    }
}

// === impl Window ===

impl Window {
    /// Whether an exchange that begins now is counted, whenever it ends: if only those that end in
    /// time were, the slowest would be missing.
    pub fn counts(&self, begin: Instant) -> bool {
        (self.start..self.end).contains(&begin)
    }

    /// What is read when the window starts, and when it ends.
    async fn at_ends(self, read: impl Fn() -> Result<Vec<u64>>) -> Result<[Vec<u64>; 2]> {
        sleep_until(self.start).await;
        let before = read()?;
        sleep_until(self.end).await;
        Ok([before, read()?])
    }
}

// === impl Finished ===

impl Finished {
    /// Counts one more.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The memory of processes now.
pub fn memory(pids: &[u32]) -> Result<Vec<Memory>> {
    pids.iter().copied().map(proc_fs::memory).collect()
}

/// The CPU time between two readings of clock ticks, in seconds.
pub fn cpu_seconds(before: &[u64], after: &[u64]) -> Vec<f64> {
    let ticks = before.iter().zip(after);
    let ticks = ticks.map(|(before, after)| count(after.saturating_sub(*before)));
    ticks
        .map(|ticks| ticks / proc_fs::TICKS_PER_SECOND)
        .collect()
}

/// Lets `duration` pass, unless a worker ends before.
pub async fn keep_working(workers: &mut JoinSet<Result<()>>, duration: Duration) -> Result<()> {
    tokio::select! {
        () = sleep(duration) => Ok(()),
        Some(ended) = workers.join_next() => match ended? {
            Ok(()) => bail!("a stream ended early"),
            Err(error) => Err(error),
        },
    }
}

/// Waits for all workers and returns their latencies together, sorted.
pub async fn latencies(
    workers: &mut JoinSet<Result<Vec<Duration>>>,
    finished: &Finished,
) -> Result<Vec<Duration>> {
    let mut all = Vec::new();
    while let Some(ended) = workers.join_next().await {
        let after = || format!("failed after {} exchanges", finished.count());
        all.append(&mut ended?.with_context(after)?);
    }
    all.sort_unstable();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exchange_counts_where_it_begins() {
        let start = Instant::now();
        let (second, end) = (Duration::from_secs(1), start + Duration::from_secs(2));
        let window = Window { start, end };
        let begins = [start - second, start, start + second, end];
        assert_eq!(
            begins.map(|begin| window.counts(begin)),
            [false, true, true, false]
        );
    }
}
