//! One row on one subject: what a row is given to measure with.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::cli::Plan;
use crate::client::Route;
use crate::proc_fs::{self, Memory};
use crate::subject::{Program, Running, Swarm};
use crate::target::{Addresses, Target};

/// What a row measures with.
#[derive(Debug)]
pub struct Cell<'a> {
    /// How clients reach the target.
    pub route: Route,
    /// Where they go.
    pub at: Addresses,
    /// Who knows what has arrived there.
    pub target: &'a Target,
    /// The subject's processes: the server, then the agent.
    pub programs: &'a [Program],
    /// Where further agents can come in.
    pub swarm: Option<&'a Swarm>,
    /// How much is measured.
    pub plan: &'a Plan,
}

/// How often memory is looked at again, at most, for whether it stands still.
pub const LOOKS: u32 = 3;

/// What memory that stands still may have moved by, in KiB.
const STILL: u64 = 64;

/// When the clock of a cell starts and stops.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// What begins earlier is warm-up.
    pub start: Instant,
    /// What begins later is not counted.
    pub end: Instant,
}

/// Exchanges that all workers of a cell have finished, the warm-up's included: what a failure
/// came after.
#[derive(Debug, Clone, Default)]
pub struct Finished(Arc<AtomicU64>);

/// How often somebody was woken up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WakeUps {
    /// The subject's processes, in their order.
    pub programs: Vec<u64>,
    /// This process.
    pub generator: u64,
}

// === impl Cell ===

impl<'a> Cell<'a> {
    /// A cell on a subject that runs.
    pub fn new(running: &'a Running, target: &'a Target, plan: &'a Plan) -> Self {
        Self {
            route: running.route,
            at: running.at,
            target,
            programs: &running.programs,
            swarm: running.swarm.as_ref(),
            plan,
        }
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
    ///
    /// # Errors
    /// When one has ended.
    pub fn cpu_ticks(&self) -> Result<Vec<u64>> {
        let ticks = |program: &Program| proc_fs::cpu_ticks(program.pid);
        self.programs.iter().map(ticks).collect()
    }

    /// The CPU time that each process uses in a window that has not started yet, in seconds.
    ///
    /// # Errors
    /// When one has ended.
    pub async fn cpu_in(&self, window: Window) -> Result<Vec<f64>> {
        sleep_until(window.start).await;
        let before = self.cpu_ticks()?;
        sleep_until(window.end).await;
        cpu_seconds(&before, &self.cpu_ticks()?)
    }

    /// How often each process went to sleep in a window that has not started yet, as it does to
    /// be woken up by what it waits for.
    ///
    /// # Errors
    /// When one has ended.
    pub async fn wake_ups_in(&self, window: Window) -> Result<WakeUps> {
        let read = || {
            let pids = self.pids().into_iter();
            let all = pids.chain([process::id()]).map(proc_fs::sleeps);
            all.collect::<Result<Vec<u64>>>()
        };
        sleep_until(window.start).await;
        let before = read()?;
        sleep_until(window.end).await;
        let after = read()?;
        let all = before.iter().zip(after);
        let mut all: Vec<u64> = all
            .map(|(before, after)| after.saturating_sub(*before))
            .collect();
        let generator = all.pop().context("this process was read")?;
        Ok(WakeUps {
            programs: all,
            generator,
        })
    }

    /// The process ids, in their order.
    pub fn pids(&self) -> Vec<u32> {
        self.programs.iter().map(|program| program.pid).collect()
    }

    /// The memory of processes once it has stood still for [`Plan::settle`], or as it is after
    /// [`LOOKS`] times as long.
    ///
    /// # Errors
    /// When one has ended.
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
    /// Whether what begins now and ends whenever it does is counted: were it only what ends in
    /// time, the slowest would be missing.
    pub fn counts(&self, begin: Instant) -> bool {
        (self.start..self.end).contains(&begin)
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

/// The memory of processes now, in their order.
///
/// # Errors
/// When one has ended.
pub fn memory(pids: &[u32]) -> Result<Vec<Memory>> {
    pids.iter().copied().map(proc_fs::memory).collect()
}

/// The CPU time between two readings of [`Cell::cpu_ticks`], in seconds.
///
/// # Errors
/// When `/proc` is not mounted.
pub fn cpu_seconds(before: &[u64], after: &[u64]) -> Result<Vec<f64>> {
    let per_second = f64::from(proc_fs::ticks_per_second()?);
    let ticks = before.iter().zip(after);
    let ticks = ticks.map(|(before, after)| u32::try_from(after.saturating_sub(*before)));
    let seconds = ticks.map(|ticks| Ok(f64::from(ticks?) / per_second));
    seconds.collect()
}

/// Lets `duration` pass, unless a worker ends before.
///
/// # Errors
/// The worker's.
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
///
/// # Errors
/// The first worker's that failed, with how many exchanges there had been.
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
    fn cpu_time_is_the_difference_in_seconds() {
        let per_second = u64::from(proc_fs::ticks_per_second().unwrap());
        let after = [per_second * 3, per_second];
        assert_eq!(cpu_seconds(&[per_second, 0], &after).unwrap(), [2.0, 1.0]);
        assert_eq!(cpu_seconds(&[], &[]).unwrap(), [] as [f64; 0]);
    }
}
