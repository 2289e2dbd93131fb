//! The rows of the table, as data: what each measures and in which units. Every row can be
//! measured at any place; each has one at which it is measured unless rows are named.

mod beside;
mod bulk;
mod connect;
mod download;
mod fairness;
mod memory;
mod requests;
mod round_trip;
mod sessions;

use std::time::Duration;

use anyhow::Result;

use self::bulk::Direction;
use self::memory::Tunnels;
use crate::cell::Cell;
use crate::subject::{BBR, CUBIC};

/// A kind of load, measured in a cell of its own.
#[derive(Debug, PartialEq, Eq)]
pub struct Row {
    /// The name in flags and records.
    pub name: &'static str,
    /// The title in tables.
    pub title: &'static str,
    /// Whether it is measured over a link, unless it is named.
    pub over_link: bool,
    load: Load,
}

/// What a row does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Load {
    /// So many streams of bulk.
    Bulk(Direction, u32),
    /// Messages of 64 bytes there and back on so many open tunnels.
    RoundTrip(u32),
    /// The same on one tunnel while two others carry bulk.
    Beside,
    /// The same while four more are never read.
    BesideStalled,
    /// Connect, one message there and back, close, by so many workers.
    Connect(u32),
    /// Many tunnels, for their memory.
    Memory(Tunnels),
    /// Agents without tunnels, many on one server.
    Sessions,
    /// 20 MB on a session that has just begun, and 20 MB more.
    Download,
    /// So many downloads without end, and small messages beside them in this process.
    Downloads(u32),
    /// Requests and answers of 8 KiB on so many tunnels.
    Requests(u32),
    /// A download beside one of the kernel's TCP with this congestion control that begins later.
    FairTo(&'static str),
    /// A download beside that of a second session of the same subject.
    FairToItself,
}

/// All rows, in the table's order.
pub static ROWS: [Row; 24] = [
    row(
        "bulk-down-1",
        "bulk down, 1 stream",
        Load::Bulk(Direction::Down, 1),
    ),
    row(
        "bulk-down-8",
        "bulk down, 8 streams",
        Load::Bulk(Direction::Down, 8),
    ),
    row(
        "bulk-down-64",
        "bulk down, 64 streams",
        Load::Bulk(Direction::Down, 64),
    ),
    row(
        "bulk-up-1",
        "bulk up, 1 stream",
        Load::Bulk(Direction::Up, 1),
    ),
    row(
        "bulk-up-8",
        "bulk up, 8 streams",
        Load::Bulk(Direction::Up, 8),
    ),
    row(
        "bulk-up-64",
        "bulk up, 64 streams",
        Load::Bulk(Direction::Up, 64),
    ),
    row(
        "round-trip-1",
        "64-byte round trips, 1 tunnel",
        Load::RoundTrip(1),
    ),
    row(
        "round-trip-32",
        "64-byte round trips, 32 tunnels",
        Load::RoundTrip(32),
    ),
    row(
        "round-trip-64",
        "64-byte round trips, 64 tunnels",
        Load::RoundTrip(64),
    ),
    row("beside", "64-byte round trips beside 2 bulk", Load::Beside),
    row(
        "beside-stalled",
        "64-byte round trips beside 2 bulk and 4 stalled",
        Load::BesideStalled,
    ),
    row(
        "connect-8",
        "connect-request-close, 8 workers",
        Load::Connect(8),
    ),
    row(
        "connect-64",
        "connect-request-close, 64 workers",
        Load::Connect(64),
    ),
    row("memory", "idle tunnels", Load::Memory(Tunnels::Idle)),
    row("memory-busy", "busy tunnels", Load::Memory(Tunnels::Busy)),
    row("sessions", "idle sessions", Load::Sessions),
    row("download", "one download of 20 MB", Load::Download).over_link(),
    row("bulk-1", "1 endless download", Load::Downloads(1)).over_link(),
    row("bulk-2", "2 downloads", Load::Downloads(2)).over_link(),
    row("bulk-8", "8 downloads", Load::Downloads(8)).over_link(),
    row(
        "requests-16",
        "16 tunnels, 8 KiB requests",
        Load::Requests(16),
    )
    .over_link(),
    row("fair-cubic", "beside a Cubic flow", Load::FairTo(CUBIC)).over_link(),
    row("fair-bbr", "beside a BBR flow", Load::FairTo(BBR)).over_link(),
    row("fair-self", "beside a second session", Load::FairToItself).over_link(),
];

/// One figure of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// What it is, behind the row's title.
    pub what: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// Whether it is a rate, and higher is better; lower is, of a cost.
    pub is_rate: bool,
}

/// The figures of one cell, in the order of [`Row::metrics`]; none where there is nothing to
/// measure, as the CPU time of a direct connection's programs.
pub type Figures = Vec<Option<f64>>;

// === impl Row ===

const fn row(name: &'static str, title: &'static str, load: Load) -> Row {
    Row {
        name,
        title,
        over_link: false,
        load,
    }
}

impl Row {
    /// The row with this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        ROWS.iter().find(|row| row.name == name)
    }

    /// Whether programs that are built without optimization may open its tunnels too late: each is
    /// opened while those before it carry bulk.
    pub fn is_heavy(&self) -> bool {
        matches!(self.load, Load::Bulk(_, 64))
    }

    /// What the row measures.
    pub fn metrics(&self) -> &'static [Metric] {
        match self.load {
            Load::Bulk(..) => &bulk::METRICS,
            Load::RoundTrip(_) => &round_trip::METRICS,
            Load::Beside => &beside::METRICS,
            Load::BesideStalled => &beside::STALLED_METRICS,
            Load::Connect(_) => &connect::METRICS,
            Load::Memory(_) => &memory::METRICS,
            Load::Sessions => &sessions::METRICS,
            Load::Download => &download::METRICS,
            Load::Downloads(_) => &bulk::DOWNLOADS_METRICS,
            Load::Requests(_) => &requests::METRICS,
            Load::FairTo(_) | Load::FairToItself => &fairness::METRICS,
        }
    }

    /// The congestion control of the kernel's flow beside which a subject is measured.
    pub fn beside_tcp(&self) -> Option<&'static str> {
        match self.load {
            Load::FairTo(tcp) => Some(tcp),
            _ => None,
        }
    }

    /// Measures it once.
    pub async fn measure(&self, cell: &Cell<'_>) -> Result<Figures> {
        match self.load {
            Load::Bulk(direction, streams) => bulk::measure(cell, direction, streams).await,
            Load::RoundTrip(tunnels) => round_trip::measure(cell, tunnels).await,
            Load::Beside => beside::measure(cell).await,
            Load::BesideStalled => beside::measure_stalled(cell).await,
            Load::Connect(workers) => connect::measure(cell, workers).await,
            Load::Memory(tunnels) => memory::measure(cell, tunnels).await,
            Load::Sessions => sessions::measure(cell).await,
            Load::Download => download::measure(cell).await,
            Load::Downloads(streams) => bulk::measure_downloads(cell, streams).await,
            Load::Requests(tunnels) => requests::measure(cell, tunnels).await,
            Load::FairTo(_) => fairness::beside_kernel(cell).await,
            Load::FairToItself => fairness::beside_itself(cell).await,
        }
    }

    const fn over_link(self) -> Self {
        Self {
            over_link: true,
            ..self
        }
    }
}

// === impl Metric ===

impl Metric {
    const fn higher(what: &'static str, unit: &'static str) -> Self {
        Self {
            what,
            unit,
            is_rate: true,
        }
    }

    const fn lower(what: &'static str, unit: &'static str) -> Self {
        Self {
            what,
            unit,
            is_rate: false,
        }
    }

    /// What it is called in a table, with an arrow that shows which way is better.
    pub fn title(&self, row: &Row) -> String {
        let arrow = if self.is_rate { "↑" } else { "↓" };
        format!("{}: {} {arrow}", row.title, self.what)
    }
}

/// A count as a figure: exact up to 2^53, far beyond what is counted here.
#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
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

fn megabits_per_second(bytes: u64, time: Duration) -> f64 {
    count(bytes) * 8.0 / 1e6 / time.as_secs_f64()
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
