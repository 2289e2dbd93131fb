//! One download as its user sees it: from opening the tunnel to the last byte.

use anyhow::{Context, Result};
use tokio::time::{Duration, Instant, timeout};
use towline_bench::rows::{Figures, Metric};

use super::{Cell, higher, megabits_per_second};
use crate::load;

pub(super) const METRICS: [Metric; 2] = [
    higher("on a fresh session", "Mbit/s"),
    higher("again", "Mbit/s"),
];

/// Bytes of a download.
const SIZE: u64 = 20_000_000;

/// How long one may take: at 4 Mbit/s it is no figure to wait for in every round.
const LIMIT: Duration = Duration::from_secs(40);

pub(super) async fn measure(cell: &Cell<'_>) -> Result<Figures> {
    let mut figures = Figures::new();
    for _ in METRICS {
        let begin = Instant::now();
        let download = async {
            let tunnel = cell.running.open(cell.target, 0).await?;
            load::download(tunnel, SIZE).await
        };
        let done = timeout(LIMIT, download).await;
        done.with_context(|| format!("slower than {LIMIT:?}"))??;
        figures.push(Some(megabits_per_second(SIZE, begin.elapsed())));
    }
    Ok(figures)
}
