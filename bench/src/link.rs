//! An emulated link: two network namespaces and a thread that carries packets between them.
//!
//! [`shaper`] computes what happens to each packet in one direction: pure, with the time as an
//! argument. [`forwarder`] carries real packets between two TUN devices accordingly, and
//! [`network`] puts the devices into namespaces.

mod forwarder;
mod namespace;
pub mod network;
mod shaper;
pub mod units;

use std::fmt;
use std::time::Duration;

use clap::Args;
use humantime::format_duration;

use self::units::{Rate, Share};

/// Longer delays are not measured.
const MAX_DELAY: Duration = Duration::from_millis(500);

/// The parameters of a link; both directions are alike, each with a queue and random losses of its
/// own. A packet may be lost first, then it waits in the queue, then it is sent at the rate, then
/// it travels: losses take nothing of the rate, as if they had happened before the bottleneck.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct Link {
    /// Over a link: how long a packet travels each way, up to 500ms.
    #[arg(long, value_name = "TIME", default_value = "20ms", value_parser = time)]
    pub delay: Duration,

    /// Over a link: up to this is added to each packet's delay, uniformly distributed. Packets stay
    /// in order, so on a busy link all come close to the whole.
    #[arg(long, value_name = "TIME", default_value = "0ms", value_parser = time)]
    pub jitter: Duration,

    /// Over a link: the rate each way, IP headers counted, from 12kbit to 10Gbit.
    #[arg(long, value_name = "RATE", default_value = "200Mbit")]
    pub rate: Rate,

    /// Over a link: how much may wait to be sent, as time at the rate; the rest is dropped.
    #[arg(long, value_name = "TIME", default_value = "60ms", value_parser = time)]
    pub queue: Duration,

    /// Over a link: the share of packets that are lost at random, instead of --losses.
    #[arg(long, value_name = "SHARE")]
    pub loss: Option<Share>,

    /// Over a link: how many packets are lost in a row, on average (Gilbert–Elliott with a bad
    /// state that loses everything); 1 for independent losses.
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = burst)]
    pub loss_burst: f64,

    /// Over a link: the same seed loses the same packets of the same sequence.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

// === impl Link ===

impl Link {
    /// What is lost at random, in words.
    pub fn loss_text(&self) -> String {
        let share = self.loss.unwrap_or_default();
        match self.loss_burst {
            burst if burst > 1.0 && share.get() > 0.0 => format!("{share} in bursts of {burst}"),
            _ => share.to_string(),
        }
    }
}

/// All but the losses.
impl fmt::Display for Link {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [delay, queue] = [self.delay, self.queue].map(format_duration);
        write!(
            formatter,
            "{delay} each way, {}/s, queue {queue}",
            self.rate
        )?;
        match self.jitter {
            Duration::ZERO => Ok(()),
            jitter => write!(formatter, ", jitter {}", format_duration(jitter)),
        }
    }
}

fn time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time > MAX_DELAY {
        return Err(format!("longer than {MAX_DELAY:?}"));
    }
    Ok(time)
}

fn burst(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(burst) if (1.0..=1000.0).contains(&burst) => Ok(burst),
        _ => Err("not a number from 1 to 1000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        link: Link,
    }

    fn parse(line: &str) -> Result<Link, clap::Error> {
        let flags = Flags::try_parse_from(format!("x {line}").split_whitespace());
        flags.map(|flags| flags.link)
    }

    #[test]
    fn flags_describe_a_link() {
        let plain = parse("").unwrap();
        assert_eq!(plain.to_string(), "20ms each way, 200Mbit/s, queue 60ms");
        assert_eq!(plain.loss_text(), "0%");
        let line = "--delay 50ms --rate 20Mbit --jitter 1ms --loss 3% --loss-burst 4";
        let link = parse(line).unwrap();
        let text = "50ms each way, 20Mbit/s, queue 60ms, jitter 1ms";
        assert_eq!(link.to_string(), text);
        assert_eq!(link.loss_text(), "3% in bursts of 4");
    }

    #[test]
    fn links_that_cannot_be_are_refused() {
        for flags in [
            "delay 501ms",
            "rate 0Mbit",
            "loss 101%",
            "loss-burst 0.5",
            "queue x",
        ] {
            assert!(parse(&format!("--{flags}")).is_err(), "{flags}");
        }
    }
}
