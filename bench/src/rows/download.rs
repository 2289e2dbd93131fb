//! One download as its user sees it: from opening the tunnel to the last byte.

use anyhow::Result;
use tokio::time::{Duration, Instant, timeout};

use super::{Figures, Metric, megabits_per_second};
use crate::cell::Cell;
use crate::client::Flow;
use crate::target::Service;

pub const METRICS: [Metric; 2] = [
    Metric::higher("on a fresh session", "Mbit/s"),
    Metric::higher("again", "Mbit/s"),
];

/// Bytes of a download.
const SIZE: u64 = 20_000_000;

/// A download that takes longer is cut off, and its rate is that until then: below 20 Mbit/s.
const LIMIT: Duration = Duration::from_secs(8);

pub async fn measure(cell: &Cell<'_>) -> Result<Figures> {
    let mut figures = Figures::new();
    for _ in METRICS {
        let flow = Flow::default();
        let begin = Instant::now();
        let download = async {
            let tunnel = cell.open(Service::Orders).await?;
            flow.clone().receive(tunnel, SIZE).await
        };
        // The bytes tell whether it was cut off.
        timeout(LIMIT, download).await.unwrap_or(Ok(()))?;
        figures.push(Some(megabits_per_second(flow.bytes(), begin.elapsed())));
    }
    Ok(figures)
}
