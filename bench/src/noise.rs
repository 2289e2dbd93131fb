//! How much of the machine others use: what makes a table worthless is part of it.

use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use crate::proc_fs;
use crate::stats::{Spread, figure};

/// How long others are watched while nothing of ours runs: 25 ticks for each core.
const WATCH: Duration = Duration::from_millis(250);

/// Above this share of the cores, in percent, a table is not to be compared with another.
const QUIET: f64 = 5.0;

/// The share of all cores that others used before each cell, in percent.
#[derive(Debug, Default)]
pub struct Noise(Vec<f64>);

// === impl Noise ===

impl Noise {
    /// Watches the machine for a moment in which nothing of ours runs.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub async fn watch(&mut self) -> Result<()> {
        let before = proc_fs::cores()?;
        sleep(WATCH).await;
        let after = proc_fs::cores()?;
        let ticks = |count: u64| u32::try_from(count).map(f64::from);
        let busy = ticks(after.busy.saturating_sub(before.busy))?;
        let all = ticks(after.all.saturating_sub(before.all))?;
        if all > 0.0 {
            self.0.push(busy / all * 100.0);
        }
        Ok(())
    }

    /// The share that others used when it was looked last, in percent; none before.
    pub fn last(&self) -> f64 {
        self.0.last().copied().unwrap_or_default()
    }

    /// One line for the table.
    pub fn describe(&self) -> String {
        let Some(Spread { median, min, max }) = Spread::of(&self.0) else {
            return "others were not watched".to_owned();
        };
        let [median_text, min, max] = [median, min, max].map(figure);
        let verdict = if median > QUIET {
            " — THE MACHINE WAS NOT QUIET: compare columns, not with other tables"
        } else {
            ""
        };
        format!(
            "others used {median_text} % [{min}–{max}] of the cores in the moments before the \
             cells{verdict}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_machine_is_called_so() {
        let text = Noise(vec![1.0, 0.0, 90.0]).describe();
        assert!(
            text.starts_with("others used 1.00 % [0.00–90.0] of the cores"),
            "{text}"
        );
        assert!(!text.contains("NOT QUIET"), "{text}");
        assert!(Noise(vec![1.0, 6.0, 90.0]).describe().contains("NOT QUIET"));
        assert_eq!(Noise::default().describe(), "others were not watched");
    }
}
