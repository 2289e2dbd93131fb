//! The rows of the table: what each measures and in which units.

mod beside;
mod bulk;
mod connect;
mod memory;
mod round_trip;
mod sessions;

use anyhow::Result;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use self::bulk::Direction;
use self::memory::Tunnels;
use crate::cell::Cell;

/// A kind of load, measured in a cell of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum, Serialize, Deserialize)]
pub enum Row {
    /// One stream from target to client.
    #[value(name = "bulk-down-1")]
    #[serde(rename = "bulk-down-1")]
    BulkDown1,
    /// Eight streams from target to client.
    #[value(name = "bulk-down-8")]
    #[serde(rename = "bulk-down-8")]
    BulkDown8,
    /// 64 streams from target to client.
    #[value(name = "bulk-down-64")]
    #[serde(rename = "bulk-down-64")]
    BulkDown64,
    /// One stream from client to target.
    #[value(name = "bulk-up-1")]
    #[serde(rename = "bulk-up-1")]
    BulkUp1,
    /// Eight streams from client to target.
    #[value(name = "bulk-up-8")]
    #[serde(rename = "bulk-up-8")]
    BulkUp8,
    /// 64 streams from client to target.
    #[value(name = "bulk-up-64")]
    #[serde(rename = "bulk-up-64")]
    BulkUp64,
    /// Messages of 64 bytes there and back on one tunnel.
    #[value(name = "round-trip-1")]
    #[serde(rename = "round-trip-1")]
    RoundTrip1,
    /// The same on 32 tunnels in parallel.
    #[value(name = "round-trip-32")]
    #[serde(rename = "round-trip-32")]
    RoundTrip32,
    /// The same on 64 tunnels in parallel.
    #[value(name = "round-trip-64")]
    #[serde(rename = "round-trip-64")]
    RoundTrip64,
    /// Messages on one tunnel while two others carry bulk.
    #[value(name = "beside")]
    #[serde(rename = "beside")]
    Beside,
    /// The same while four more are stalled.
    #[value(name = "beside-stalled")]
    #[serde(rename = "beside-stalled")]
    BesideStalled,
    /// Connect, one message there and back, close: eight workers.
    #[value(name = "connect-8")]
    #[serde(rename = "connect-8")]
    Connect8,
    /// The same with 64 workers.
    #[value(name = "connect-64")]
    #[serde(rename = "connect-64")]
    Connect64,
    /// Tunnels that lie idle after one exchange.
    #[value(name = "memory")]
    #[serde(rename = "memory")]
    Memory,
    /// Tunnels that carry a download each.
    #[value(name = "memory-busy")]
    #[serde(rename = "memory-busy")]
    MemoryBusy,
    /// Agents without tunnels, very many on one server.
    #[value(name = "sessions")]
    #[serde(rename = "sessions")]
    Sessions,
}

/// One figure of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// What it is, behind the row's title.
    pub what: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// Which way is better.
    pub better: Better,
}

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// A rate.
    Higher,
    /// A cost.
    Lower,
}

/// The figures of one cell, in the order of [`Row::metrics`]; none where a subject has no
/// processes to ask.
pub type Figures = Vec<Option<f64>>;

// === impl Row ===

impl Row {
    /// The row's title.
    pub fn title(self) -> &'static str {
        match self {
            Self::BulkDown1 => "bulk down, 1 stream",
            Self::BulkDown8 => "bulk down, 8 streams",
            Self::BulkDown64 => "bulk down, 64 streams",
            Self::BulkUp1 => "bulk up, 1 stream",
            Self::BulkUp8 => "bulk up, 8 streams",
            Self::BulkUp64 => "bulk up, 64 streams",
            Self::RoundTrip1 => "64-byte round trips, 1 tunnel",
            Self::RoundTrip32 => "64-byte round trips, 32 tunnels",
            Self::RoundTrip64 => "64-byte round trips, 64 tunnels",
            Self::Beside => "64-byte round trips beside 2 bulk",
            Self::BesideStalled => "64-byte round trips beside 2 bulk and 4 stalled",
            Self::Connect8 => "connect-request-close, 8 workers",
            Self::Connect64 => "connect-request-close, 64 workers",
            Self::Memory => "idle tunnels",
            Self::MemoryBusy => "busy tunnels",
            Self::Sessions => "idle sessions",
        }
    }

    /// Where the row stands in the table.
    pub fn place(self) -> Option<usize> {
        Self::value_variants().iter().position(|row| *row == self)
    }

    /// What the row measures.
    pub fn metrics(self) -> &'static [Metric] {
        match self {
            Self::BulkDown1
            | Self::BulkDown8
            | Self::BulkDown64
            | Self::BulkUp1
            | Self::BulkUp8
            | Self::BulkUp64 => &bulk::METRICS,
            Self::RoundTrip1 | Self::RoundTrip32 | Self::RoundTrip64 => &round_trip::METRICS,
            Self::Beside => &beside::METRICS,
            Self::BesideStalled => &beside::STALLED_METRICS,
            Self::Connect8 | Self::Connect64 => &connect::METRICS,
            Self::Memory | Self::MemoryBusy => &memory::METRICS,
            Self::Sessions => &sessions::METRICS,
        }
    }

    /// Measures it once.
    ///
    /// # Errors
    /// Whatever keeps the figures from being true.
    pub async fn measure(self, cell: &Cell<'_>) -> Result<Figures> {
        match self {
            Self::BulkDown1 => bulk::measure(cell, Direction::Down, 1).await,
            Self::BulkDown8 => bulk::measure(cell, Direction::Down, 8).await,
            Self::BulkDown64 => bulk::measure(cell, Direction::Down, 64).await,
            Self::BulkUp1 => bulk::measure(cell, Direction::Up, 1).await,
            Self::BulkUp8 => bulk::measure(cell, Direction::Up, 8).await,
            Self::BulkUp64 => bulk::measure(cell, Direction::Up, 64).await,
            Self::RoundTrip1 => round_trip::measure(cell, 1).await,
            Self::RoundTrip32 => round_trip::measure(cell, 32).await,
            Self::RoundTrip64 => round_trip::measure(cell, 64).await,
            Self::Beside => beside::measure(cell).await,
            Self::BesideStalled => beside::measure_stalled(cell).await,
            Self::Connect8 => connect::measure(cell, 8).await,
            Self::Connect64 => connect::measure(cell, 64).await,
            Self::Memory => memory::measure(cell, Tunnels::Idle).await,
            Self::MemoryBusy => memory::measure(cell, Tunnels::Busy).await,
            Self::Sessions => sessions::measure(cell).await,
        }
    }
}

// === impl Metric ===

impl Metric {
    /// A rate.
    pub const fn higher(what: &'static str, unit: &'static str) -> Self {
        Self {
            what,
            unit,
            better: Better::Higher,
        }
    }

    /// A cost.
    pub const fn lower(what: &'static str, unit: &'static str) -> Self {
        Self {
            what,
            unit,
            better: Better::Lower,
        }
    }
}

/// A count as a figure: exact up to 2^53, far beyond what is counted here.
#[expect(
    clippy::as_conversions,
    reason = "there is no lossless conversion to f64"
)]
pub fn count(value: u64) -> f64 {
    value as f64
}

/// The figure of both processes together, of the server and of the agent; none when direct.
fn by_program(values: &[f64]) -> [Option<f64>; 3] {
    let both = (!values.is_empty()).then(|| values.iter().sum());
    [both, values.first().copied(), values.get(1).copied()]
}
