//! How two downloads share a link: the subject's has it alone first, then another begins.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Figures, Metric, megabits_per_second};
use crate::cell::{Cell, keep_working};
use crate::client::Flow;
use crate::target::Service;

pub const METRICS: [Metric; 4] = [
    Metric::higher("its rate", "Mbit/s"),
    Metric::higher("the other's rate", "Mbit/s"),
    Metric::higher("the other's part of a fair half", "%"),
    Metric::higher("Jain's index", "of 1"),
];

/// How long the subject has the link alone.
const HEAD_START: Duration = Duration::from_secs(2);

/// How long both have to find their shares.
const SETTLE: Duration = Duration::from_secs(3);

/// Beside a connection of the kernel's, with the congestion control of the target's other listener.
pub async fn beside_kernel(cell: &Cell<'_>) -> Result<Figures> {
    let other = cell
        .target
        .other
        .context("the target has one more listener")?;
    measure(cell, async || Ok(TcpStream::connect(other).await?)).await
}

/// Beside a session of a second server and agent.
pub async fn beside_itself(cell: &Cell<'_>) -> Result<Figures> {
    let second = cell.subject.start(cell.stage, cell.target.at).await?;
    measure(cell, async || second.entry(Service::Orders).open().await).await
}

async fn measure(
    cell: &Cell<'_>,
    open_other: impl AsyncFnOnce() -> Result<TcpStream>,
) -> Result<Figures> {
    let (own, other, mut workers) = (Flow::default(), Flow::default(), JoinSet::new());
    cell.download(&mut workers, &own).await?;
    keep_working(&mut workers, HEAD_START).await?;
    workers.spawn(other.clone().receive(open_other().await?, u64::MAX));
    keep_working(&mut workers, SETTLE).await?;

    let (begin, before) = (Instant::now(), [own.bytes(), other.bytes()]);
    keep_working(&mut workers, cell.plan.share_window).await?;
    let time = begin.elapsed();
    let own = megabits_per_second(own.bytes() - before[0], time);
    let other = megabits_per_second(other.bytes() - before[1], time);
    let part = other / f64::midpoint(own, other) * 100.0;
    Ok([own, other, part, jain(own, other)].map(Some).to_vec())
}

/// Jain's fairness index of two rates: 1 when they are equal, one half when one is zero.
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
