//! Whether links are what they claim to be: measured with sockets from both sides.

mod traffic;

use std::io::{self, Write};
use std::time::Duration;

use anyhow::{Result, bail};

use self::traffic::Blast;
use crate::link::{Link, Loss, Way};
use crate::units::{Depth, Rate};
use crate::wan::Wan;

/// How far a round trip without other traffic may be from what the link promises.
const ROUND_TRIP_TOLERANCE: Duration = Duration::from_micros(500);

/// How far a rate may be from the link's, as a share of it.
const RATE_TOLERANCE: f64 = 0.03;

/// How much longer than the queue a packet may be under way beyond the delay: the transmission of
/// one packet, and a sleep that ends late on a machine with other work.
const QUEUE_TOLERANCE: Duration = Duration::from_millis(2);

/// What a TCP flow must reach of a clean link's rate; headers take 3.5 %, slow start the rest.
const TCP_SHARE: f64 = 0.90;

/// How long the link is loaded in each check.
const LOAD: Duration = Duration::from_secs(2);

/// A blast is so much faster than the link that its queue is full soon.
const OVERLOAD: f64 = 1.2;

/// A line of the report.
struct Line {
    what: String,
    seen: String,
    holds: bool,
}

/// Measures links of all kinds and prints a line for each.
///
/// # Errors
/// When a link is not what it claims to be, or cannot be made.
pub fn run() -> Result<()> {
    let mut failed = 0;
    let mut report = |line: Result<Line>| -> Result<()> {
        let Line { what, seen, holds } = line?;
        failed += u32::from(!holds);
        let word = if holds { "ok" } else { "WRONG" };
        Ok(writeln!(io::stdout().lock(), "{word:5} {what}: {seen}")?)
    };
    for milliseconds in [0, 5, 20, 100] {
        report(round_trip(Duration::from_millis(milliseconds)))?;
    }
    for rate in ["50Mbit", "200Mbit", "1Gbit"] {
        report(rate_and_queue(rate.parse()?))?;
    }
    for (share, burst) in [("0.1%", 1.0), ("1%", 1.0), ("3%", 1.0), ("3%", 4.0)] {
        let share = share.parse()?;
        report(losses(Loss { share, burst }))?;
    }
    for rate in ["50Mbit", "200Mbit", "1Gbit"] {
        report(tcp(rate.parse()?))?;
    }
    report(marks())?;
    if failed > 0 {
        bail!("{failed} links are not what they claim to be");
    }
    Ok(())
}

fn round_trip(delay: Duration) -> Result<Line> {
    let link = link(delay, "200Mbit".parse()?);
    let wan = Wan::up(&link)?;
    let trips = traffic::round_trips(&wan, 50)?;
    let middle = trips[trips.len() / 2];
    Ok(Line {
        what: format!("round trip at {delay:?} each way"),
        seen: format!(
            "p50 {middle:?}, min {:?}, max {:?}",
            trips[0],
            trips[trips.len() - 1]
        ),
        holds: middle.abs_diff(link.round_trip()) <= ROUND_TRIP_TOLERANCE,
    })
}

fn rate_and_queue(rate: Rate) -> Result<Line> {
    let queue = Duration::from_millis(60);
    let link = link(Duration::from_millis(20), rate);
    let wan = Wan::up(&link)?;
    let begun = wan.cpu_time()?;
    let blast = Blast::new(rate, OVERLOAD).run(&wan, LOAD)?;
    let busy = (wan.cpu_time()? - begun).as_secs_f64() / LOAD.as_secs_f64() * 100.0;
    let [there, _] = wan.counters();
    let seen_rate = blast.bits_per_second / rate_of(rate);
    let longest = link.there.delay + queue + QUEUE_TOLERANCE;
    let full = there.waited.percentile(99);
    Ok(Line {
        what: format!("UDP at {OVERLOAD} times {rate}/s, queue {queue:?}"),
        seen: format!(
            "{:.1} % of the rate, under way p99 {:?}, queued p99 {full:?}, late p99 {:?}, \
             {busy:.0} % of a core",
            seen_rate * 100.0,
            blast.under_way,
            there.late.percentile(99),
        ),
        holds: (seen_rate - 1.0).abs() <= RATE_TOLERANCE
            && blast.under_way <= longest
            && full <= queue
            && full >= queue - QUEUE_TOLERANCE
            && there.overflowed > 0
            && there.refused == 0,
    })
}

fn losses(loss: Loss) -> Result<Line> {
    let rate: Rate = "200Mbit".parse()?;
    let mut link = link(Duration::from_millis(5), rate);
    link.there.loss = loss;
    let wan = Wan::up(&link)?;
    let blast = Blast::new(rate, 0.9).run(&wan, LOAD)?;
    let [there, _] = wan.counters();
    let share = loss.share.get();
    let (sent, received) = (f64::from(blast.sent), f64::from(blast.received));
    let seen = (sent - received) / sent;
    // Five standard deviations; losses in bursts are fewer, larger events.
    let tolerance = 5.0 * (share * (1.0 - share) * (2.0 * loss.burst - 1.0) / sent).sqrt();
    Ok(Line {
        what: format!("loss of {} in bursts of {}", loss.share, loss.burst),
        seen: format!("{:.3} % of {} packets", seen * 100.0, blast.sent),
        holds: (seen - share).abs() <= tolerance && there.overflowed == 0,
    })
}

fn tcp(rate: Rate) -> Result<Line> {
    let wan = Wan::up(&link(Duration::from_millis(5), rate))?;
    let begun = wan.cpu_time()?;
    let seen = traffic::tcp(&wan, LOAD)?;
    let busy = (wan.cpu_time()? - begun).as_secs_f64() / LOAD.as_secs_f64() * 100.0;
    let share = seen / rate_of(rate);
    Ok(Line {
        what: format!("TCP at {rate}/s, 5 ms each way"),
        seen: format!(
            "{:.1} % of the rate as payload, {busy:.0} % of a core",
            share * 100.0
        ),
        holds: (TCP_SHARE..=1.0).contains(&share),
    })
}

/// Senders that understand marks leave room in the queue, and nothing is dropped.
fn marks() -> Result<Line> {
    let rate: Rate = "50Mbit".parse()?;
    let depth = Duration::from_millis(20);
    let mut link = link(Duration::from_millis(5), rate);
    link.back.mark = Some(Depth::Time(depth));
    let wan = Wan::up(&link)?;
    wan.set_tcp_ecn()?;
    let share = traffic::tcp(&wan, LOAD)? / rate_of(rate);
    let [_, back] = wan.counters();
    Ok(Line {
        what: format!("ECN from {depth:?} of queue, TCP"),
        seen: format!(
            "{} packets marked, {} dropped, {:.1} % of the rate as payload",
            back.marked,
            back.overflowed,
            share * 100.0
        ),
        holds: back.marked > 0 && back.overflowed == 0 && share >= TCP_SHARE,
    })
}

fn link(delay: Duration, rate: Rate) -> Link {
    Link::symmetric(Way::new(
        delay,
        rate,
        Depth::Time(Duration::from_millis(60)),
    ))
}

#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "rates are far below 2^53"
)]
fn rate_of(rate: Rate) -> f64 {
    rate.bits() as f64
}
