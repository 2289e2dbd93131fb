//! The command line, and the figures that it stands for.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};
use towline_service::build_info;

use crate::downloads::DownloadsArgs;
use crate::rows::Row;
use crate::subject::Kind;
use crate::swarm::SwarmArgs;
use crate::target::TargetArgs;

/// Tunnels of a soak when no number is given: far beyond the 10,000 streams after which a peer
/// that leaks them stands still.
const SOAK_DEFAULT: &str = "200000";

const EXAMPLES: &str = "\
Examples:
  towline-bench --reference-dir DIR > table.md
  towline-bench --rows bulk-down-1,memory --rounds 5
  towline-bench --soak --reference-dir DIR
  towline-bench --rows sessions --subjects towline --agents 2000
  towline-bench --merge one.json,two.json --results DIR

The table goes to stdout as Markdown, progress to stderr. Exit status: 0 when every row of direct
and towline was measured, 1 when one failed (the table says how), 2 for a bad flag.";

/// Measures Towline beside a direct connection and its peers.
#[derive(Debug, Parser)]
#[command(name = "towline-bench", version = build_info::long_version(), after_help = EXAMPLES)]
pub struct Cli {
    /// Be a part of the measurement instead of measuring; started by the bench itself.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Seconds that each cell is measured, after a second of warm-up.
    #[arg(long, value_name = "N", default_value_t = 5)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,

    /// How often every row is measured; the table shows the medians.
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,

    /// Only show that everything runs: one round of fractions of a second, few tunnels.
    #[arg(long)]
    pub smoke: bool,

    /// Rows to measure, separated by commas; all of them by default.
    #[arg(long, value_name = "ROW", value_delimiter = ',')]
    rows: Vec<Row>,

    /// Subjects to measure, separated by commas; all of them by default.
    #[arg(long, value_name = "SUBJECT", value_delimiter = ',')]
    subjects: Vec<Kind>,

    /// Instead of the rows: N tunnels, one exchange each, with rate and memory per tenth.
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = SOAK_DEFAULT)]
    #[arg(value_parser = clap::value_parser!(u64).range(10..=100_000_000))]
    pub soak: Option<u64>,

    /// Folder of proxy-server and proxy-agent; that of towline-bench by default.
    #[arg(long, env = "TOWLINE_BIN_DIR", value_name = "DIR")]
    bin_dir: Option<PathBuf>,

    /// Flags for proxy-server and proxy-agent alike, as one argument; the table names them.
    #[arg(
        long,
        value_name = "FLAGS",
        default_value = "",
        allow_hyphen_values = true
    )]
    towline_flags: String,

    /// Write what was measured to a file that --merge reads.
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,

    /// Instead of measuring: put together the rows of runs that were saved.
    #[arg(
        long,
        value_name = "FILE",
        value_delimiter = ',',
        conflicts_with = "soak"
    )]
    pub merge: Vec<PathBuf>,

    /// Write the table, the figures (JSON) and charts (SVG) to a folder as well.
    #[arg(long, value_name = "DIR")]
    pub results: Option<PathBuf>,

    /// Agents that the row `sessions` puts on one server.
    #[arg(long, value_name = "N", default_value_t = 200)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    agents: u32,

    /// Folder of the Go reference's quic-server and quic-client, when it is not that of the peers.
    #[arg(long, env = "TOWLINE_REFERENCE_DIR", value_name = "DIR")]
    reference_dir: Option<PathBuf>,

    /// Folder of the other peers, as `make bench-peers` fills it; without it, they are left out.
    #[arg(long, env = "TOWLINE_PEERS_DIR", value_name = "DIR")]
    peers_dir: Option<PathBuf>,
}

/// What else this binary does.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Serve the bytes that are measured, until stdin ends.
    #[command(hide = true)]
    Target(TargetArgs),
    /// Be downloads beside which others are measured, until stdin ends.
    #[command(hide = true)]
    Downloads(DownloadsArgs),
    /// Be very many agents, until stdin ends.
    #[command(hide = true)]
    Swarm(SwarmArgs),
}

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// How often every row is measured.
    pub rounds: u32,
    /// Load before the clock starts: slow start, path MTU discovery and allocators settle.
    pub warm_up: Duration,
    /// How long a cell is measured.
    pub window: Duration,
    /// Tunnels that lie idle while the memory is read.
    pub idle_tunnels: u32,
    /// Downloads that run while the memory is read.
    pub busy_tunnels: u32,
    /// Agents of a swarm.
    pub agents: u32,
    /// How long a swarm's idle CPU time is watched.
    pub idle: Duration,
    /// How long memory must stand still before it is read; see [`crate::cell::LOOKS`].
    pub settle: Duration,
}

// === impl Cli ===

impl Cli {
    /// How much the flags ask to measure.
    pub fn plan(&self) -> Plan {
        if self.smoke {
            return Plan {
                rounds: 1,
                warm_up: Duration::from_millis(100),
                window: Duration::from_millis(300),
                idle_tunnels: 100,
                busy_tunnels: 8,
                agents: self.agents.min(20),
                idle: Duration::from_millis(300),
                settle: Duration::from_millis(200),
            };
        }
        Plan {
            rounds: self.rounds,
            warm_up: Duration::from_secs(1),
            window: Duration::from_secs(self.seconds),
            idle_tunnels: 2_000,
            busy_tunnels: 64,
            agents: self.agents,
            idle: Duration::from_secs(10),
            settle: Duration::from_secs(1),
        }
    }

    /// The rows to measure, in the table's order.
    pub fn rows(&self) -> Vec<Row> {
        chosen(&self.rows)
    }

    /// The subjects to measure, in the table's order.
    pub fn subjects(&self) -> Vec<Kind> {
        chosen(&self.subjects)
    }

    /// Where the programs of a subject are; nowhere when its folder was not named.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub fn binaries(&self, kind: Kind) -> io::Result<Option<PathBuf>> {
        let Some(folder) = kind.folder() else {
            return self.bin_dir().map(Some);
        };
        let peers = self.peers_dir.as_ref().map(|dir| dir.join(folder));
        Ok(match kind {
            Kind::Reference => self.reference_dir.clone().or(peers),
            _ => peers,
        })
    }

    /// The flags that the programs of a subject get besides what they need.
    pub fn flags(&self, kind: Kind) -> Vec<String> {
        let given = self.towline_flags.split_whitespace();
        let given = given.filter(|_| kind.is_ours());
        let own = kind.flags().iter().copied();
        own.chain(given).map(str::to_owned).collect()
    }

    fn bin_dir(&self) -> io::Result<PathBuf> {
        if let Some(dir) = &self.bin_dir {
            return Ok(dir.clone());
        }
        let mut own = fs::read_link("/proc/self/exe")?;
        own.pop();
        Ok(own)
    }
}

/// All values that were named, in their own order; all there are when none was.
fn chosen<T: ValueEnum + Copy + PartialEq>(named: &[T]) -> Vec<T> {
    let all = T::value_variants().iter().copied();
    all.filter(|value| named.is_empty() || named.contains(value))
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Cli {
        Cli::try_parse_from(line.split_whitespace()).unwrap()
    }

    #[test]
    fn the_command_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn everything_is_measured_by_default() {
        let cli = parse("towline-bench");
        assert_eq!(cli.rows(), Row::value_variants());
        assert_eq!(cli.subjects(), Kind::value_variants());
        assert_eq!(cli.plan().rounds, 3);
        assert_eq!(cli.soak, None);
    }

    #[test]
    fn named_rows_come_in_the_tables_order() {
        let cli = parse("towline-bench --rows memory,bulk-up-8 --subjects towline --soak");
        assert_eq!(cli.rows(), [Row::BulkUp8, Row::Memory]);
        assert_eq!(cli.subjects(), [Kind::Towline]);
        assert_eq!(cli.soak, Some(200_000));
    }

    #[test]
    fn flags_are_for_ours() {
        let cli = parse("towline-bench --towline-flags=--congestion=cubic");
        assert_eq!(cli.flags(Kind::Towline), ["--congestion=cubic"]);
        let small = ["--udp-max-datagram", "1472", "--congestion=cubic"];
        assert_eq!(cli.flags(Kind::TowlineSmall), small);
        assert!(cli.flags(Kind::FrpTls).is_empty());
    }

    #[test]
    fn smoke_is_short() {
        let plan = parse("towline-bench --smoke --seconds 60").plan();
        assert_eq!(plan.rounds, 1);
        assert!(plan.window < Duration::from_secs(1));
    }
}
