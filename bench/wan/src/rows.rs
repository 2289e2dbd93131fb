//! The rows of the comparison: what each measures over the link.

mod bulk;
mod download;
mod fairness;
mod requests;

use std::time::Duration;

use anyhow::{Result, bail};
use clap::ValueEnum;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use towline_bench::cell::Window;
use towline_bench::rows::{Better, Figures, Metric};

use crate::subject::{Running, Subject};
use crate::target::Target;
use crate::wan::Wan;

/// The target's listeners: with the namespace's own congestion control, then with those of the
/// flows that a subject is measured beside.
pub const LISTENERS: [Option<&str>; 3] = [None, Some("cubic"), Some("bbr")];

/// A kind of load, measured in a cell of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub enum Row {
    /// 20 MB on a session that has just begun, and 20 MB more.
    Download,
    /// Two endless downloads, and small messages beside them.
    #[value(name = "bulk-2")]
    Bulk2,
    /// Eight endless downloads, and small messages beside them.
    #[value(name = "bulk-8")]
    Bulk8,
    /// 16 tunnels with requests and answers of 8 KiB, one after the other.
    #[value(name = "requests-16")]
    Requests16,
    /// An endless download beside one of the kernel's TCP with Cubic that begins later.
    FairCubic,
    /// The same beside one with BBR.
    FairBbr,
    /// The same beside a second session of the same subject.
    FairSelf,
}

/// What a row is measured with.
#[derive(Debug)]
pub struct Cell<'a> {
    /// The link, which nobody else uses.
    pub wan: &'a Wan,
    /// What tunnels lead to.
    pub target: &'a Target,
    /// What is measured.
    pub subject: &'a Subject,
    /// Its processes.
    pub running: &'a Running,
    /// How long.
    pub plan: &'a Plan,
}

/// How long is measured.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Load before the clock starts.
    pub warm_up: Duration,
    /// How long rates and latencies are measured.
    pub window: Duration,
    /// How long shares are measured: flows take seconds to find them.
    pub share_window: Duration,
}

// === impl Row ===

impl Row {
    /// The row's title.
    pub fn title(self) -> &'static str {
        match self {
            Self::Download => "one download of 20 MB",
            Self::Bulk2 => "2 downloads",
            Self::Bulk8 => "8 downloads",
            Self::Requests16 => "16 tunnels, 8 KiB requests",
            Self::FairCubic => "beside a Cubic flow",
            Self::FairBbr => "beside a BBR flow",
            Self::FairSelf => "beside a second session",
        }
    }

    /// What the row measures.
    pub fn metrics(self) -> &'static [Metric] {
        match self {
            Self::Download => &download::METRICS,
            Self::Bulk2 | Self::Bulk8 => &bulk::METRICS,
            Self::Requests16 => &requests::METRICS,
            Self::FairCubic | Self::FairBbr | Self::FairSelf => &fairness::METRICS,
        }
    }

    /// Measures it once, on a thread of the near side.
    ///
    /// # Errors
    /// Whatever keeps the figures from being true.
    pub async fn measure(self, cell: &Cell<'_>) -> Result<Figures> {
        match self {
            Self::Download => download::measure(cell).await,
            Self::Bulk2 => bulk::measure(cell, 2).await,
            Self::Bulk8 => bulk::measure(cell, 8).await,
            Self::Requests16 => requests::measure(cell, 16).await,
            Self::FairCubic => fairness::beside_kernel(cell, 1).await,
            Self::FairBbr => fairness::beside_kernel(cell, 2).await,
            Self::FairSelf => fairness::beside_itself(cell).await,
        }
    }
}

// === impl Plan ===

impl Plan {
    fn window(&self) -> Window {
        let start = Instant::now() + self.warm_up;
        Window {
            start,
            end: start + self.window,
        }
    }
}

/// Lets `duration` pass, unless a worker ends before.
async fn flow_for(workers: &mut JoinSet<Result<()>>, duration: Duration) -> Result<()> {
    tokio::select! {
        () = sleep(duration) => Ok(()),
        Some(ended) = workers.join_next() => match ended? {
            Ok(()) => bail!("a stream ended early"),
            Err(error) => Err(error),
        },
    }
}

const fn higher(what: &'static str, unit: &'static str) -> Metric {
    Metric {
        what,
        unit,
        better: Better::Higher,
    }
}

const fn lower(what: &'static str, unit: &'static str) -> Metric {
    Metric {
        what,
        unit,
        better: Better::Lower,
    }
}

/// A count as a figure: exact up to 2^53, far beyond what is counted here.
#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "there is no lossless conversion to f64"
)]
fn count(value: u64) -> f64 {
    value as f64
}

fn megabits_per_second(bytes: u64, time: Duration) -> f64 {
    count(bytes) * 8.0 / 1e6 / time.as_secs_f64()
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
