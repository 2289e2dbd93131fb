//! Which machine a table comes from, when, and how much of it others used.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use time::OffsetDateTime;
use tokio::time::sleep;

use crate::proc_fs;
use crate::stats::{Spread, figure};

/// How long others are watched while nothing of the bench runs: 25 ticks for each core.
const WATCH: Duration = Duration::from_millis(250);

/// Above this share of the cores, in percent, a table cannot be compared with another.
const QUIET: f64 = 5.0;

/// The share of all cores that others used before each cell, in percent.
#[derive(Debug, Default)]
pub struct Noise(Vec<f64>);

/// What is the same for every run on this machine; what the system does not say is `unknown`.
pub fn name() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let (cpus, kernel) = (read("/proc/cpuinfo"), read("/proc/sys/kernel/osrelease"));
    let cpu = known(proc_fs::field(&cpus, "model name"));
    let cores = thread::available_parallelism().map_or(0, usize::from);
    format!("{cpu}, {cores} cores, Linux {}", known(Some(kernel.trim())))
}

/// The date, and the load average now.
pub fn moment() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = known(load.split_whitespace().next());
    let date = OffsetDateTime::now_utc().date();
    format!("{date}, load average before the start {load}")
}

fn known(text: Option<&str>) -> &str {
    text.filter(|text| !text.is_empty()).unwrap_or("unknown")
}

// === impl Noise ===

impl Noise {
    /// Watches the machine while nothing of the bench runs, and returns the share in percent.
    pub async fn watch(&mut self) -> Result<f64> {
        let before = proc_fs::cores()?;
        sleep(WATCH).await;
        let after = proc_fs::cores()?;
        let ticks = |after: u64, before| u32::try_from(after.saturating_sub(before)).map(f64::from);
        let (busy, all) = (
            ticks(after.busy, before.busy)?,
            ticks(after.all, before.all)?,
        );
        let share = if all > 0.0 { busy / all * 100.0 } else { 0.0 };
        self.0.push(share);
        Ok(share)
    }

    /// One line for the table.
    pub fn describe(&self) -> String {
        let Some(Spread { median, min, max }) = Spread::of(&self.0) else {
            return "others were not watched".to_owned();
        };
        let verdict = match median > QUIET {
            true => " — THE MACHINE WAS NOT QUIET: compare columns, not with other tables",
            false => "",
        };
        let [median, min, max] = [median, min, max].map(figure);
        format!("others used {median} % [{min}–{max}] of the cores before the cells{verdict}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_machine_is_called_so() {
        let text = Noise(vec![1.0, 0.0, 90.0]).describe();
        assert_eq!(
            text,
            "others used 1.00 % [0.00–90.0] of the cores before the cells"
        );
        assert!(Noise(vec![1.0, 6.0, 90.0]).describe().contains("NOT QUIET"));
        assert_eq!(Noise::default().describe(), "others were not watched");
    }

    #[test]
    fn what_the_system_does_not_say_is_unknown() {
        assert_eq!(
            [known(None), known(Some("")), known(Some("6.1"))],
            ["unknown", "unknown", "6.1"]
        );
        assert!(name().contains(" cores, Linux "));
    }
}
