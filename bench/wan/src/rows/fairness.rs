//! How two downloads share the link: the subject's has it for itself first, then another begins.

use std::time::Duration;

use anyhow::Result;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;
use towline_bench::cell::keep_working;
use towline_bench::rows::{Figures, Metric};

use super::{Cell, megabits_per_second};
use crate::load::Flow;

pub(super) const METRICS: [Metric; 4] = [
    Metric::higher("its rate", "Mbit/s"),
    Metric::higher("the other's rate", "Mbit/s"),
    Metric::higher("the other's part of a fair half", "%"),
    Metric::higher("Jain's index", "of 1"),
];

/// How long the subject has the link for itself.
const HEAD_START: Duration = Duration::from_secs(2);

/// How long both get to find their shares.
const SETTLE: Duration = Duration::from_secs(3);

/// Beside a connection of the kernel's to the target's second listener.
pub(super) async fn beside_kernel(cell: &Cell<'_>) -> Result<Figures> {
    let other = async || Ok(TcpStream::connect(cell.target.at(1)).await?);
    measure(cell, other).await
}

/// Beside a session of a second server and agent.
pub(super) async fn beside_itself(cell: &Cell<'_>) -> Result<Figures> {
    let second = cell.subject.start(cell.wan, cell.target).await?;
    measure(cell, async || second.open().await).await
}

async fn measure(
    cell: &Cell<'_>,
    open_other: impl AsyncFnOnce() -> Result<TcpStream>,
) -> Result<Figures> {
    let mut workers = JoinSet::new();
    let own = cell.running.open().await?;
    let own = Flow::start(own, &mut workers);
    keep_working(&mut workers, HEAD_START).await?;
    let other = Flow::start(open_other().await?, &mut workers);
    keep_working(&mut workers, SETTLE).await?;

    let (begin, before) = (Instant::now(), [own.bytes(), other.bytes()]);
    keep_working(&mut workers, cell.plan.share_window).await?;
    let time = begin.elapsed();
    let rate = |flow: &Flow, before| megabits_per_second(flow.bytes() - before, time);
    let (own, other) = (rate(&own, before[0]), rate(&other, before[1]));
    Ok(vec![
        Some(own),
        Some(other),
        Some(other / f64::midpoint(own, other) * 100.0),
        Some(jain(own, other)),
    ])
}

/// Jain's fairness index of two rates: 1 when they are equal, one half when one has everything.
fn jain(one: f64, other: f64) -> f64 {
    let sum = one + other;
    sum * sum / (2.0 * (one * one + other * other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jains_index_goes_from_a_half_to_one() {
        for (one, other, index) in [(90.0, 90.0, 1.0), (180.0, 0.0, 0.5), (30.0, 10.0, 0.8)] {
            assert!((jain(one, other) - index).abs() < 1e-9, "{one}, {other}");
        }
    }
}
