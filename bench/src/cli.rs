//! The command line.

use std::fs;
use std::path::PathBuf;
use std::slice;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand, ValueEnum};
use towline_service::build_info;

use crate::cell::Plan;
use crate::downloads::DownloadsArgs;
use crate::link::Link;
use crate::link::units::Share;
use crate::place::Place;
use crate::rows::{ROWS, Row};
use crate::subject::{Found, Wanted};
use crate::swarm::SwarmArgs;
use crate::target::TargetArgs;

/// Tunnels of a soak when no number is given: far beyond the 10,000 streams after which a peer
/// that leaks them serves no more.
const SOAK_DEFAULT: &str = "200000";

/// Load before the clock starts over a link, at least.
const LINK_WARM_UP: Duration = Duration::from_secs(2);

/// The same in round trips: a window that doubles fills a gigabit of 200 ms in twelve of them.
const LINK_WARM_UP_TRIPS: u32 = 15;

const EXAMPLES: &str = "\
Examples:
  towline-bench --reference-dir DIR > table.md
  towline-bench --rows bulk-down-1,memory --rounds 5
  towline-bench --soak --subjects towline
  towline-bench --place link --delay 20ms --rate 200Mbit --queue 60ms > table.md
  towline-bench --merge one.json,two.json --results DIR

The tables go to stdout as Markdown, progress to stderr. Exit status: 0 when every row of direct
and towline was measured, 1 when one failed (the table has the error), 2 for a bad flag.

An emulated link needs root, ip (iproute2) and /dev/net/tun; no netem, no tc. A packet is lost
first, then queues, then is sent at the rate, then travels.";

/// Measures Towline beside a direct connection and its peers.
#[derive(Debug, Parser)]
#[command(name = "towline-bench", version = build_info::long_version(), after_help = EXAMPLES)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// A part of the measurement, started by the bench itself.
    #[command(subcommand)]
    pub part: Option<Part>,

    /// Where to measure: on the loopback interface, or over an emulated link (root).
    #[arg(long, value_name = "PLACE", default_value = "loopback")]
    place: PlaceName,

    #[command(flatten)]
    link: Link,

    /// Instead of the rows: measure links of several rates and delays with direct connections, and
    /// compare the figures with the parameters.
    #[arg(long)]
    pub check_link: bool,

    /// Over a link: a table for each of these losses, separated by commas; --loss stands for one.
    #[arg(
        long,
        value_name = "SHARE",
        value_delimiter = ',',
        default_value = "0.1%,1%"
    )]
    #[arg(conflicts_with = "loss")]
    losses: Vec<Share>,

    /// Seconds of measurement in each cell, after the warm-up; 5 on loopback, 6 over a link.
    #[arg(long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: Option<u64>,

    /// How often every row is measured; the table shows the medians.
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,

    /// Only show that everything runs: one round of fractions of a second, few tunnels, and bulk
    /// on 64 streams only when it is named.
    #[arg(long)]
    pub smoke: bool,

    /// Rows to measure, separated by commas; by default those of the place.
    #[arg(long, value_name = "ROW", value_delimiter = ',', value_parser = row_parser())]
    rows: Vec<&'static Row>,

    /// Subjects to measure, separated by commas: names, or how names begin; all by default.
    #[arg(long, value_name = "SUBJECT", value_delimiter = ',')]
    subjects: Vec<String>,

    /// Measure Towline once more with other flags for server and agent, as `NAME=--flag value`.
    #[arg(long = "variant", value_name = "NAME=FLAGS")]
    variants: Vec<String>,

    /// Flags for all programs of Towline, as one argument; the table names them.
    #[arg(
        long,
        value_name = "FLAGS",
        default_value = "",
        allow_hyphen_values = true
    )]
    towline_flags: String,

    /// Instead of the rows: N tunnels, one exchange each, with rate and memory per tenth.
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = SOAK_DEFAULT)]
    #[arg(value_parser = clap::value_parser!(u64).range(10..=100_000_000))]
    pub soak: Option<u64>,

    /// Write what was measured to a file that --merge reads, after each round.
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,

    /// Instead of measuring: put together runs that were saved, by place.
    #[arg(
        long,
        value_name = "FILE",
        value_delimiter = ',',
        conflicts_with = "soak"
    )]
    pub merge: Vec<PathBuf>,

    /// Write tables, figures (JSON) and charts (SVG) to a folder.
    #[arg(long, value_name = "DIR")]
    pub results: Option<PathBuf>,

    /// Agents that the row `sessions` connects to one server.
    #[arg(long, value_name = "N", default_value_t = 200)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    agents: u32,

    /// Folder of proxy-server and proxy-agent; that of towline-bench by default.
    #[arg(long, env = "TOWLINE_BIN_DIR", value_name = "DIR")]
    bin_dir: Option<PathBuf>,

    /// Folder of the Go reference's quic-server and quic-client, when it is not that of the peers.
    #[arg(long, env = "TOWLINE_REFERENCE_DIR", value_name = "DIR")]
    reference_dir: Option<PathBuf>,

    /// Folder of the other peers, as `make bench-peers` fills it; without it, they are left out.
    #[arg(long, env = "TOWLINE_PEERS_DIR", value_name = "DIR")]
    peers_dir: Option<PathBuf>,
}

/// A process that the bench starts; it ends with its stdin.
#[derive(Debug, Clone, Subcommand)]
pub enum Part {
    /// A half of the target.
    #[command(hide = true)]
    Target(TargetArgs),
    /// Downloads.
    #[command(hide = true)]
    Downloads(DownloadsArgs),
    /// Many agents.
    #[command(hide = true)]
    Swarm(SwarmArgs),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PlaceName {
    Loopback,
    Link,
}

// === impl Cli ===

impl Cli {
    /// How much the flags ask to measure.
    pub fn plan(&self) -> Plan {
        let (warm_up, seconds) = match self.place {
            PlaceName::Loopback => (Duration::from_secs(1), 5),
            PlaceName::Link => {
                let trips = self.place().round_trip() * LINK_WARM_UP_TRIPS;
                (LINK_WARM_UP.max(trips), 6)
            }
        };
        let window = Duration::from_secs(self.seconds.unwrap_or(seconds));
        let plan = Plan {
            rounds: self.rounds,
            warm_up,
            window,
            share_window: window * 2,
            idle_tunnels: 2_000,
            busy_tunnels: 64,
            agents: self.agents,
            idle: Duration::from_secs(10),
            settle: Duration::from_secs(1),
        };
        if !self.smoke {
            return plan;
        }
        let moment = Duration::from_millis(300);
        Plan {
            rounds: 1,
            warm_up: warm_up / 10,
            window: moment,
            share_window: moment,
            idle_tunnels: 100,
            busy_tunnels: 8,
            agents: self.agents.min(20),
            idle: moment,
            settle: Duration::from_millis(200),
        }
    }

    /// Where to measure.
    pub fn place(&self) -> Place {
        match self.place {
            PlaceName::Loopback => Place::Loopback,
            PlaceName::Link => Place::Link(self.link.clone()),
        }
    }

    /// The places of a round with their losses: a link for each loss, which loses other packets
    /// than in the round before.
    pub fn places(&self, round: u32) -> Vec<(Place, Option<String>)> {
        if self.place == PlaceName::Loopback {
            return vec![(Place::Loopback, None)];
        }
        let losses = self
            .link
            .loss
            .as_ref()
            .map_or(&*self.losses, slice::from_ref);
        let places = losses.iter().map(|share| {
            let mut link = self.link.clone();
            link.loss = Some(*share);
            link.seed += u64::from(round);
            let loss = link.loss_text();
            (Place::Link(link), Some(loss))
        });
        places.collect()
    }

    /// The rows to measure, in the table's order.
    pub fn rows(&self) -> Vec<&'static Row> {
        let over_link = self.place == PlaceName::Link;
        let chosen = |row: &&Row| match self.rows.as_slice() {
            [] => row.over_link == over_link && !(self.smoke && row.is_heavy()),
            named => named.contains(row),
        };
        ROWS.iter().filter(chosen).collect()
    }

    /// The subjects to measure, in the table's order.
    pub async fn subjects(&self) -> Result<Found> {
        let own = fs::read_link("/proc/self/exe")?;
        let own = own.parent().context("a program is in a folder")?;
        let wanted = Wanted {
            names: &self.subjects,
            variants: &self.variants,
            flags: &self.towline_flags,
            over_link: self.place == PlaceName::Link,
            ours: self.bin_dir.as_deref().unwrap_or(own),
            reference: self.reference_dir.as_deref(),
            peers: self.peers_dir.as_deref(),
        };
        wanted.find().await
    }
}

fn row_parser() -> impl TypedValueParser<Value = &'static Row> {
    let names = PossibleValuesParser::new(ROWS.iter().map(|row| row.name));
    names.map(|name| Row::find(&name).expect("clap has compared the name with those of all rows"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(format!("towline-bench {line}").split_whitespace())
    }

    fn names(cli: &Cli) -> Vec<&str> {
        cli.rows().iter().map(|row| row.name).collect()
    }

    #[test]
    fn the_command_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn each_place_has_rows_of_its_own_and_any_row_can_be_named() {
        assert_eq!(names(&parse("").unwrap()).len(), 16);
        assert_eq!(names(&parse("--smoke").unwrap()).len(), 14);
        assert_eq!(names(&parse("--place link").unwrap()).len(), 8);
        let cli = parse("--rows fair-self,memory,bulk-up-8 --soak").unwrap();
        assert_eq!(names(&cli), ["bulk-up-8", "memory", "fair-self"]);
        assert_eq!(cli.soak, Some(200_000));
        assert_eq!(cli.places(1), [(Place::Loopback, None)]);
        assert!(parse("--rows bulk").is_err());
    }

    #[test]
    fn a_link_is_measured_with_each_loss_and_other_random_losses_in_each_round() {
        let cli = parse("--place link --loss-burst 2 --losses 0%,3%").unwrap();
        let links = |round| {
            let places = cli.places(round).into_iter();
            let links = places.map(|(place, loss)| match place {
                Place::Link(link) => (link, loss.unwrap()),
                Place::Loopback => panic!("no link"),
            });
            links.collect::<Vec<_>>()
        };
        let [(clean, none), (lossy, some)] = &links(1)[..] else {
            panic!("{:?}", links(1));
        };
        assert_eq!([&**none, some], ["0%", "3% in bursts of 2"]);
        assert_eq!(lossy.loss.unwrap().get(), 0.03);
        assert_ne!(clean.seed, links(2)[0].0.seed);
        assert_eq!(parse("--place link --loss 3%").unwrap().places(1).len(), 1);
        assert!(parse("--loss 3% --losses 1%").is_err());
    }

    #[test]
    fn smoke_is_short() {
        for place in ["loopback", "link"] {
            let plan = parse(&format!("--place {place} --smoke --seconds 60"))
                .unwrap()
                .plan();
            assert_eq!(plan.rounds, 1);
            assert!(plan.window + plan.warm_up < Duration::from_secs(1));
        }
    }
}
