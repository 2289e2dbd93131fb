//! Measures emulated links with direct connections, and compares the figures with the links'
//! parameters: whether this machine is fast enough to emulate them.

use std::io::{self, Write};
use std::ops::RangeInclusive;

use anyhow::{Result, ensure};
use clap::Parser;
use towline_service::shutdown::Shutdown;

use crate::cli::Cli;
use crate::comparison;
use crate::rows::Row;
use crate::stats::figure;

/// What is the same for all links.
const FLAGS: &str = "towline-bench --place link --losses 0% --queue 60ms --rounds 1 --seconds 2 \
                     --subjects direct+cubic";

/// How far a round trip without other traffic may be from twice the delay, in µs.
const ROUND_TRIP: f64 = 500.0;

/// The payload that TCP reaches of a link's rate: headers take 3.5 %, slow start the rest.
const TCP: RangeInclusive<f64> = 0.90..=1.0;

/// What a full queue, the transmission of a packet and a late sleep add to a round trip, in ms.
const QUEUE: f64 = 60.0 + 2.0;

/// Measures each link and prints a line for each figure.
pub async fn run(shutdown: &Shutdown) -> Result<()> {
    let mut failed = 0;
    for milliseconds in [0.0, 5.0, 20.0, 100.0] {
        let trip = milliseconds * 2_000.0;
        let flags = format!("--rate 200Mbit --delay {milliseconds}ms --rows round-trip-1");
        let expected = [(1, trip - ROUND_TRIP..=trip + ROUND_TRIP)];
        failed += check(&flags, &expected, shutdown).await?;
    }
    for rate in [50.0, 200.0, 1_000.0] {
        let flags = format!("--rate {rate}Mbit --delay 5ms --rows bulk-1");
        let expected = [
            (0, TCP.start() * rate..=TCP.end() * rate),
            (2, 10.0..=10.0 + QUEUE),
        ];
        failed += check(&flags, &expected, shutdown).await?;
    }
    ensure!(
        failed == 0,
        "{failed} figures differ from the links' parameters"
    );
    Ok(())
}

/// Measures one row, and returns how many of its metrics are not in their ranges.
async fn check(
    flags: &str,
    expected: &[(usize, RangeInclusive<f64>)],
    shutdown: &Shutdown,
) -> Result<u32> {
    let cli = Cli::try_parse_from(format!("{FLAGS} {flags}").split_whitespace())?;
    let record = Box::pin(comparison::record(&cli, shutdown)).await?;
    let mut failed = 0;
    for (outcome, (index, range)) in record
        .outcomes
        .iter()
        .flat_map(|one| expected.iter().map(move |range| (one, range)))
    {
        let value = outcome
            .figures
            .as_ref()
            .ok()
            .and_then(|figures| figures[*index]);
        let holds = value.is_some_and(|value| range.contains(&value));
        let what = Row::find(&outcome.row).map_or("", |row| row.metrics()[*index].what);
        let [low, high] = [range.start(), range.end()].map(|bound| figure(*bound));
        let (word, value) = (
            if holds { "ok" } else { "WRONG" },
            value.map_or_else(String::new, figure),
        );
        writeln!(
            io::stdout().lock(),
            "{word:5} {flags}: {what} {value}, expected {low} to {high}"
        )?;
        failed += u32::from(!holds);
    }
    Ok(failed)
}
