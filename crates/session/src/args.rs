//! The flags of the tunnels of a process, which every program has, and the checked configuration.

use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;

/// Polling longer than this for a message costs more than a wake-up.
const LONGEST_BUSY_POLL: Duration = Duration::from_millis(10);

/// Flags of all tunnels of a process together.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "QUIC sessions")]
pub struct TableArgs {
    /// Memory that stalled tunnels may pin in this process; a tunnel whose reader takes nothing at
    /// the moment counts as one stream window.
    ///
    /// At the limit the tunnel that has been stalled longest is reset, counted and logged: with the
    /// defaults when 1,024 readers are slower than their senders at one moment.
    #[arg(
        long,
        env = "TOWLINE_STALL_BUDGET",
        value_name = "BYTES",
        default_value = "2GiB"
    )]
    pub stall_budget: ByteSize,

    /// Busy-poll this long after each message of a request/response tunnel; 0s disables.
    ///
    /// Only tunnels whose messages answer each other within a fraction of a millisecond cause it. A
    /// message then takes half the time; a process that carries thousands of messages a second may
    /// show up to a whole core in use, which it yields to other processes that need it. Set 0s where
    /// CPU time is billed or limited.
    #[arg(
        long,
        env = "TOWLINE_BUSY_POLL",
        value_name = "TIME",
        default_value = "100us"
    )]
    #[arg(value_parser = busy_poll)]
    pub busy_poll: Duration,
}

/// The settings of all tunnels of a process together.
#[derive(Debug, Clone, Copy)]
pub struct TableConfig {
    /// Bytes that one stalled tunnel pins.
    pub stream_window: u64,
    /// Bytes that all stalled tunnels may pin.
    pub stall_budget: u64,
    /// How long to poll after each message of an interactive tunnel; zero disables.
    pub busy_poll: Duration,
}

// === impl TableArgs ===

impl TableArgs {
    /// The configuration that these flags ask for, with streams of this window.
    ///
    /// # Errors
    /// A sentence that names the flags when the budget is less than one window.
    pub fn config(&self, stream_window: u32) -> Result<TableConfig, String> {
        let window = ByteSize(stream_window.into());
        if self.stall_budget < window {
            return Err(format!(
                "--stall-budget {} is less than one --stream-window {window}",
                self.stall_budget
            ));
        }
        Ok(TableConfig {
            stream_window: stream_window.into(),
            stall_budget: self.stall_budget.as_u64(),
            busy_poll: self.busy_poll,
        })
    }
}

// === impl TableConfig ===

impl Default for TableConfig {
    /// What the flags are without any.
    fn default() -> Self {
        Self {
            stream_window: 2 * 1024 * 1024,
            stall_budget: 2 * 1024 * 1024 * 1024,
            busy_poll: Duration::from_micros(100),
        }
    }
}

/// Reads how long to busy-poll.
fn busy_poll(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(limit) if limit <= LONGEST_BUSY_POLL => Ok(limit),
        Ok(_) => Err("at most 10ms".to_owned()),
        Err(error) => Err(format!("{error} (write it as 50us or 0s)")),
    }
}

#[cfg(test)]
mod tests {
    use super::busy_poll;

    #[test]
    fn busy_polling_may_be_disabled() {
        for (text, micros) in [("0s", 0), ("100us", 100), ("10ms", 10_000)] {
            assert_eq!(busy_poll(text).unwrap().as_micros(), micros, "{text}");
        }
        for text in ["", "100", "11ms", "-1us"] {
            busy_poll(text).unwrap_err();
        }
    }
}
