//! The command line.

use std::fs;
use std::path::PathBuf;
use std::slice;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use towline_service::build_info;

use crate::link::{Link, Loss, Way};
use crate::record::Record;
use crate::rows::{Plan, Row};
use crate::subject::{Folders, Found, Wanted};
use crate::units::{Depth, Rate, Share};
use crate::wan::Side;

/// Longer delays are no network that a proxy would be used on.
const MAX_DELAY: Duration = Duration::from_millis(500);

/// Load before the clock starts, at least.
const WARM_UP: Duration = Duration::from_secs(2);

/// The same in round trips: a window that doubles fills a gigabit of 200 ms in twelve of them.
const WARM_UP_TRIPS: u32 = 15;

const EXAMPLES: &str = "\
Examples:
  towline-wan --delay 20ms --rate 200Mbit --queue 60ms --loss 0.1%
      a link that stays until Ctrl-C; the namespaces' names are printed
  towline-wan --delay 50ms --rate 20Mbit -- sh -c 'ip netns exec $TOWLINE_WAN_FAR nc -l 9 & …'
      the same for as long as a command runs, which starts on the near side
  towline-wan compare --delay 20ms --rate 200Mbit --queue 60ms > table.md
      measures direct connections, Towline and others over the link, with losses of 0.1 and 1 %
  towline-wan --check
      measures links of all kinds and says whether they are what they claim to be

A command finds the names of both namespaces in TOWLINE_WAN_NEAR and TOWLINE_WAN_FAR and the
addresses of both sides in TOWLINE_WAN_NEAR_IP and TOWLINE_WAN_FAR_IP. `ip netns exec NAME
PROGRAM` starts a program in a namespace. Each side has a loopback of its own and sees nothing
but the other side.

A packet is lost first, then queues, then is sent at the rate, then travels: losses take nothing
of the rate, which counts IP headers. Needs root, ip (iproute2) and /dev/net/tun; no netem, no tc.
Exit status: 1 when the command or a check fails, 2 for a bad flag or without root.";

/// A wide area network on this machine, between two network namespaces.
#[derive(Debug, Parser)]
#[command(name = "towline-wan", version = build_info::long_version(), after_help = EXAMPLES)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// Measure over the link instead of only making it.
    #[command(subcommand)]
    pub action: Option<Action>,

    /// What the link is like.
    #[command(flatten)]
    pub link: LinkArgs,

    /// The side that the command starts on.
    #[arg(long, value_name = "SIDE", default_value = "near")]
    pub side: Side,

    /// Measure some links and compare them with their description, then end.
    #[arg(long)]
    pub check: bool,

    /// A program and its arguments; without one, the link stays until it is interrupted.
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// What else this program does.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Measure direct connections, Towline and others over a link, in interleaved rounds.
    Compare(CompareArgs),
}

/// What is compared.
#[derive(Debug, Clone, Args)]
pub struct CompareArgs {
    #[command(flatten)]
    link: LinkArgs,

    /// A table for each of these losses, separated by commas; --loss stands for one.
    #[arg(
        long,
        value_name = "SHARE",
        value_delimiter = ',',
        default_value = "0.1%,1%",
        conflicts_with = "loss"
    )]
    losses: Vec<Share>,

    /// Rows to measure, separated by commas; all of them by default.
    #[arg(long, value_name = "ROW", value_delimiter = ',')]
    rows: Vec<Row>,

    /// Subjects to measure, by the beginnings of their names, separated by commas.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    subjects: Vec<String>,

    /// Measure Towline once more with other flags for server and agent, as `NAME=--flag value`.
    #[arg(long = "variant", value_name = "NAME=FLAGS")]
    variants: Vec<String>,

    /// How often every cell is measured.
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=99))]
    pub rounds: u32,

    /// Seconds that rates and latencies are measured; shares are measured twice as long.
    #[arg(long, value_name = "N", default_value_t = 6)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,

    /// Folder of proxy-server and proxy-agent; that of towline-wan by default.
    #[arg(long, env = "TOWLINE_BIN_DIR", value_name = "DIR")]
    bin_dir: Option<PathBuf>,

    /// Folder of the Go reference's quic-server and quic-client, when it is not that of the peers.
    #[arg(long, env = "TOWLINE_REFERENCE_DIR", value_name = "DIR")]
    reference_dir: Option<PathBuf>,

    /// Folder of the peers that `make bench-peers` installs; without it, they are left out.
    #[arg(long, env = "TOWLINE_PEERS_DIR", value_name = "DIR")]
    peers_dir: Option<PathBuf>,

    /// Write what was measured to a file that --merge reads, after each round and when interrupted.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,

    /// Instead of measuring: put together runs that were saved, by link.
    #[arg(long, value_name = "FILE", value_delimiter = ',')]
    pub merge: Vec<PathBuf>,

    /// Write tables, figures (JSON) and charts (SVG), named after the link, to a folder in the end.
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,
}

/// What a link is like, both ways alike.
#[derive(Debug, Clone, Args)]
pub struct LinkArgs {
    /// How long a packet travels each way, up to 500ms.
    #[arg(long, value_name = "TIME", default_value = "20ms", value_parser = delay)]
    delay: Duration,

    /// Up to so much is added to each packet's delay, in order: nearly all of it on a busy link.
    #[arg(long, value_name = "TIME", default_value = "0ms", value_parser = delay)]
    jitter: Duration,

    /// How fast packets are sent each way: 12kbit to 10Gbit, above 1Gbit if the machine can.
    #[arg(long, value_name = "RATE", default_value = "200Mbit")]
    rate: Rate,

    /// How much may wait for being sent, as time at the rate or in bytes (60ms, 1500KB).
    #[arg(long, value_name = "DEPTH", default_value = "60ms")]
    queue: Depth,

    /// From how deep a queue packets are marked (ECN), if their senders understand it.
    #[arg(long, value_name = "DEPTH")]
    mark: Option<Depth>,

    /// How many packets are lost each way; none by default.
    #[arg(long, value_name = "SHARE")]
    loss: Option<Share>,

    /// How many are lost in a row, on average; 1 for losses that know nothing of each other.
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = burst)]
    loss_burst: f64,

    /// The largest IP packet.
    #[arg(long, value_name = "BYTES", default_value_t = 1500)]
    #[arg(value_parser = clap::value_parser!(u16).range(576..=9000))]
    mtu: u16,

    /// Where the dice start: the same seed loses the same packets of the same sequence.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

// === impl LinkArgs ===

impl LinkArgs {
    /// The link that is described.
    pub fn link(&self) -> Link {
        let mut way = Way::new(self.delay, self.rate, self.queue);
        way.jitter = self.jitter;
        way.mark = self.mark;
        let share = self.loss.unwrap_or(Share::NONE);
        way.loss = self.lossy(share);
        let mut link = Link::symmetric(way);
        link.mtu = self.mtu;
        link.seed = self.seed;
        link
    }

    fn lossy(&self, share: Share) -> Loss {
        // Of no losses, none come in bursts.
        let burst = if share == Share::NONE {
            1.0
        } else {
            self.loss_burst
        };
        Loss { share, burst }
    }
}

// === impl CompareArgs ===

impl CompareArgs {
    /// How long is measured.
    pub fn plan(&self) -> Plan {
        let window = Duration::from_secs(self.seconds);
        Plan {
            warm_up: WARM_UP.max(self.link().round_trip() * WARM_UP_TRIPS),
            window,
            share_window: window * 2,
        }
    }

    /// The losses, each of which has a table.
    pub fn losses(&self) -> Vec<Loss> {
        let shares = self
            .link
            .loss
            .as_ref()
            .map_or(&*self.losses, slice::from_ref);
        shares.iter().map(|share| self.link.lossy(*share)).collect()
    }

    /// A link for each loss, with the dice of this round.
    pub fn links(&self, round: u32) -> Vec<Link> {
        let links = self.losses().into_iter().map(|loss| {
            let mut link = self.link();
            link.there.loss = loss;
            link.back.loss = loss;
            link.seed += u64::from(round);
            link
        });
        links.collect()
    }

    /// The link without losses of its own.
    pub fn link(&self) -> Link {
        self.link.link().clean()
    }

    /// Saves what there is so far, if a file for it was named.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn save(&self, record: &Record) -> Result<()> {
        self.save.as_ref().map_or(Ok(()), |path| record.save(path))
    }

    /// Writes what is complete where it was asked for.
    ///
    /// # Errors
    /// When the system refuses, or there are records of several links for one file.
    pub fn publish(&self, records: &[Record]) -> Result<()> {
        match records {
            [one] => self.save(one)?,
            several if self.save.is_some() && !several.is_empty() => {
                bail!("--save takes one link, --results takes several")
            }
            _ => {}
        }
        if let Some(dir) = &self.results {
            for record in records {
                record.publish(dir)?;
            }
        }
        Ok(())
    }

    /// The rows to measure, in the table's order.
    pub fn rows(&self) -> Vec<Row> {
        let all = Row::value_variants().iter().copied();
        all.filter(|row| self.rows.is_empty() || self.rows.contains(row))
            .collect()
    }

    /// The subjects to measure, in the table's order.
    ///
    /// # Errors
    /// When programs of ours are missing, or nobody has one of the names.
    pub async fn subjects(&self) -> Result<Found> {
        let own = fs::read_link("/proc/self/exe")?;
        let own = own.parent().context("a program is in a folder")?;
        let ours = self.bin_dir.as_deref().unwrap_or(own);
        let folders = Folders {
            ours,
            reference: self.reference_dir.as_deref(),
            peers: self.peers_dir.as_deref(),
        };
        let wanted = Wanted {
            names: &self.subjects,
            variants: &self.variants,
        };
        Found::look(&folders, wanted).await
    }
}

fn delay(text: &str) -> std::result::Result<Duration, String> {
    let delay = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if delay > MAX_DELAY {
        return Err(format!("longer than {MAX_DELAY:?}"));
    }
    Ok(delay)
}

fn burst(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(burst) if (1.0..=1000.0).contains(&burst) => Ok(burst),
        _ => Err("not a number from 1 to 1000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> std::result::Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_describe_a_link() {
        let line = "towline-wan --delay 50ms --rate 20Mbit --queue 100KB --loss 3% --loss-burst 4 \
                    --jitter 1ms --mark 5ms --seed 9 --mtu 1400 -- sh -c true";
        let cli = parse(line).unwrap();
        let link = cli.link.link();
        let text = "50ms each way, 20Mbit/s, queue 100000B, jitter 1ms, ECN from 5ms, loss 3% in \
                    bursts of 4; MTU 1400";
        assert_eq!(link.to_string(), text);
        assert_eq!((link.seed, link.mtu), (9, 1400));
        assert_eq!(cli.command, ["sh", "-c", "true"]);
    }

    #[test]
    fn a_comparison_has_a_link_for_each_loss_and_dice_for_each_round() {
        let line = "towline-wan compare --loss-burst 2 --losses 0%,3% --rows bulk-8,download";
        let Some(Action::Compare(args)) = parse(line).unwrap().action else {
            panic!("no comparison");
        };
        assert_eq!(args.rows(), [Row::Download, Row::Bulk8]);
        let shares = |round| {
            args.links(round)
                .iter()
                .map(|link| link.back.loss.share.get())
                .collect::<Vec<_>>()
        };
        assert_eq!(shares(1), [0.0, 0.03]);
        assert_eq!(args.links(1)[1].there.loss.burst, 2.0);
        assert_ne!(args.links(1)[0].seed, args.links(2)[0].seed);
    }

    #[test]
    fn a_comparison_has_one_table_with_one_loss_and_takes_no_two_answers() {
        let Some(Action::Compare(args)) = parse("towline-wan compare --loss 3%").unwrap().action
        else {
            panic!("no comparison");
        };
        let losses: Vec<String> = args.losses().iter().map(Loss::to_string).collect();
        assert_eq!(losses, ["3%"]);
        assert!(parse("towline-wan compare --loss 3% --losses 1%").is_err());
        assert!(parse("towline-wan --loss 3% compare").is_err());
    }

    #[test]
    fn links_that_cannot_be_are_refused() {
        for flags in [
            "--delay 501ms",
            "--rate 0Mbit",
            "--loss 101%",
            "--loss-burst 0.5",
            "--mtu 100",
            "--queue deep",
        ] {
            assert!(parse(&format!("towline-wan {flags}")).is_err(), "{flags}");
        }
    }
}
