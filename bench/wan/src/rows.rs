//! The rows of the comparison: what each measures over the link.

mod bulk;
mod download;
mod fairness;
mod requests;

use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use towline_bench::cell::Window;
use towline_bench::rows::{Figures, Metric, count};

use crate::subject::{BBR, CUBIC, Running, Subject};
use crate::target::Target;
use crate::wan::Wan;

/// A kind of load, measured in a cell of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Row {
    /// 20 MB on a session that has just begun, and 20 MB more.
    Download,
    /// An endless download, and small messages beside it.
    #[value(name = "bulk-1")]
    #[serde(rename = "bulk-1")]
    Bulk1,
    /// Two endless downloads, and small messages beside them.
    #[value(name = "bulk-2")]
    #[serde(rename = "bulk-2")]
    Bulk2,
    /// Eight endless downloads, and small messages beside them.
    #[value(name = "bulk-8")]
    #[serde(rename = "bulk-8")]
    Bulk8,
    /// 16 tunnels with requests and answers of 8 KiB, one after the other.
    #[value(name = "requests-16")]
    #[serde(rename = "requests-16")]
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
            Self::Bulk1 => "1 endless download",
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
            Self::Bulk1 | Self::Bulk2 | Self::Bulk8 => &bulk::METRICS,
            Self::Requests16 => &requests::METRICS,
            Self::FairCubic | Self::FairBbr | Self::FairSelf => &fairness::METRICS,
        }
    }

    /// The congestion control of the kernel's flow that a subject is measured beside.
    pub fn beside(self) -> Option<&'static str> {
        match self {
            Self::FairCubic => Some(CUBIC),
            Self::FairBbr => Some(BBR),
            Self::Download
            | Self::Bulk1
            | Self::Bulk2
            | Self::Bulk8
            | Self::Requests16
            | Self::FairSelf => None,
        }
    }

    /// Measures it once, on a thread of the near side.
    ///
    /// # Errors
    /// Whatever keeps the figures from being true.
    pub async fn measure(self, cell: &Cell<'_>) -> Result<Figures> {
        match self {
            Self::Download => download::measure(cell).await,
            Self::Bulk1 => bulk::measure(cell, 1).await,
            Self::Bulk2 => bulk::measure(cell, 2).await,
            Self::Bulk8 => bulk::measure(cell, 8).await,
            Self::Requests16 => requests::measure(cell, 16).await,
            Self::FairCubic | Self::FairBbr => fairness::beside_kernel(cell).await,
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

fn megabits_per_second(bytes: u64, time: Duration) -> f64 {
    count(bytes) * 8.0 / 1e6 / time.as_secs_f64()
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
