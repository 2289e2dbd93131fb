//! Which machine a table comes from, and when.

use std::fmt;
use std::fs;
use std::thread;

use time::OffsetDateTime;

use crate::proc_fs;

/// Where and when something was measured.
#[derive(Debug, Clone)]
pub struct Machine {
    cpu: String,
    cores: usize,
    kernel: String,
    load: String,
    date: String,
}

// === impl Machine ===

impl Machine {
    /// Reads what the system says of itself now; what it does not say is `unknown`.
    pub fn read() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let cpus = read("/proc/cpuinfo");
        let load = read("/proc/loadavg");
        Self {
            cpu: known(proc_fs::field(&cpus, "model name")),
            cores: thread::available_parallelism().map_or(0, usize::from),
            kernel: known(Some(read("/proc/sys/kernel/osrelease").trim())),
            load: known(load.split_whitespace().next()),
            date: OffsetDateTime::now_utc().date().to_string(),
        }
    }

    /// Where: what is the same for every run on this machine.
    pub fn name(&self) -> String {
        let Self {
            cpu, cores, kernel, ..
        } = self;
        format!("{cpu}, {cores} cores, Linux {kernel}")
    }

    /// When: what is told of each run.
    pub fn moment(&self) -> String {
        let Self { date, load, .. } = self;
        format!("{date}, load average before the start {load}")
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, Self { load, date, .. }) = (self.name(), self);
        write!(
            formatter,
            "{date}, {name}; load average before the start {load}"
        )
    }
}

fn known(text: Option<&str>) -> String {
    let text = text.filter(|text| !text.is_empty());
    text.unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_unknown() {
        assert_eq!(known(None), "unknown");
        assert_eq!(known(Some("")), "unknown");
        assert_eq!(known(Some("6.1")), "6.1");
    }

    #[test]
    fn this_machine_says_what_it_is() {
        let machine = Machine::read();
        assert_ne!(machine.kernel, "unknown");
        assert_eq!(machine.date.len(), "2026-01-31".len());
        assert!(machine.to_string().contains(" cores, Linux "));
    }
}
