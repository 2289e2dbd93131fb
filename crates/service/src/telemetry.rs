//! The log: one line per event on stderr, as text or JSON, written by its own thread.
//!
//! The queue to that thread is bounded and drops lines when stderr is slower than the program: the
//! log never delays a tunnel. A metric counts the dropped lines.

mod queue;

use std::borrow::Cow;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::panic;
use std::sync::{Mutex, PoisonError};

use clap::{Args, ValueEnum};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Registry;
use thiserror::Error;
use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, dispatcher, error};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;

use self::queue::{Flush, Queue};

/// The tracing target of access-log events, one per tunnel; `--log info,access=off` disables them.
pub const ACCESS: &str = "access";

/// Ends the thread that writes the log. Taken by the guard at the end of the program, or by the
/// second signal, which ends the process from another thread.
static FLUSH: Mutex<Option<Flush>> = Mutex::new(None);

/// The flags of the log.
#[derive(Args, Clone, Debug)]
pub struct TelemetryArgs {
    /// Format of the log lines on stderr
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT",
        env = "TOWLINE_LOG_FORMAT",
        default_value_t = LogFormat::Text
    )]
    log_format: LogFormat,

    /// Level of the log (off, error, warn, info, debug, trace), and levels of single parts, for
    /// example `info,towline_session=debug,access=off`.
    ///
    /// Release builds contain no trace events: quinn has one for each packet, which costs time
    /// even when it is disabled.
    #[arg(
        long,
        value_name = "FILTER",
        env = "TOWLINE_LOG",
        default_value = "info",
        value_parser = parse_filter
    )]
    log: Targets,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum LogFormat {
    /// Readable lines, in colour on a terminal
    Text,
    /// One flat JSON object per line, for log collectors
    Json,
}

/// A value of `--log` that is not understood.
#[derive(Debug, Error, PartialEq)]
pub enum LogFilterError {
    /// A part is neither a level nor `PART=LEVEL`.
    #[error("{0:?} is neither a level (off, error, warn, info, debug, trace) nor PART=LEVEL")]
    Directive(String),
}

/// The log could not be set up.
#[derive(Debug, Error)]
pub enum LogInitError {
    /// The process has a log already.
    #[error("the log is set up already")]
    Twice(#[source] dispatcher::SetGlobalDefaultError),
    /// The system refused the thread that writes it.
    #[error("cannot start the thread of the log")]
    Thread(#[source] io::Error),
}

/// Ends the log when dropped: writes what is still queued, for a second at most.
#[derive(Debug)]
#[must_use = "dropping the guard ends the log"]
pub struct TelemetryGuard {
    queue: Queue,
}

/// Reads the count of dropped lines at scrape time.
#[derive(Debug)]
struct DroppedLines(Queue);

/// Keeps each event on one line, also when a peer put line breaks into its fields.
#[derive(Clone, Debug)]
struct SingleLineWriter<W>(W);

/// Starts the log, and reports panics through it as events of the target `panic`.
///
/// # Errors
/// When called twice in a process, or when the system refuses the thread that writes.
pub fn init(args: &TelemetryArgs) -> Result<TelemetryGuard, LogInitError> {
    let (queue, flush) = Queue::start(io::stderr()).map_err(LogInitError::Thread)?;
    let colour = io::stderr().is_terminal();
    let dispatch = args.dispatch(queue.clone(), colour);
    dispatcher::set_global_default(dispatch).map_err(LogInitError::Twice)?;
    *FLUSH.lock().unwrap_or_else(PoisonError::into_inner) = Some(flush);
    // Not queued: a panic may abort the process, or come after the last flush.
    let direct = args.dispatch(io::stderr, colour);
    panic::set_hook(Box::new(move |panic| {
        dispatcher::with_default(&direct, || error!(target: "panic", "{panic}"));
    }));
    Ok(TelemetryGuard { queue })
}

/// Writes what is still queued, for a second at most, and ends the log: later events are lost.
pub(crate) fn flush() {
    // Dropped under the lock, so that a second caller waits until the first has flushed.
    *FLUSH.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

// === impl TelemetryArgs ===

impl TelemetryArgs {
    fn dispatch<W>(&self, writer: W, colour: bool) -> Dispatch
    where
        W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
    {
        let registry = tracing_subscriber::registry().with(self.log.clone());
        let lines = tracing_subscriber::fmt::layer();
        match self.log_format {
            LogFormat::Text => registry
                .with(
                    lines
                        .with_ansi(colour)
                        .with_writer(SingleLineWriter(writer)),
                )
                .into(),
            LogFormat::Json => {
                let objects = lines.json().flatten_event(true).with_current_span(false);
                registry.with(objects.with_writer(writer)).into()
            }
        }
    }
}

// === impl TelemetryGuard ===

impl TelemetryGuard {
    /// Registers `towline_log_lines_dropped_total`. The registry must have no prefix of its own.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(DroppedLines(self.queue.clone())));
    }
}

impl Drop for TelemetryGuard {
    fn drop(&mut self) {
        flush();
    }
}

// === impl DroppedLines ===

impl Collector for DroppedLines {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counter = ConstCounter::new(self.0.dropped());
        counter.encode(encoder.encode_descriptor(
            "towline_log_lines_dropped",
            "Log lines dropped because stderr was too slow or gone",
            None,
            counter.metric_type(),
        )?)
    }
}

// === impl SingleLineWriter ===

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for SingleLineWriter<W> {
    type Writer = SingleLineWriter<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        SingleLineWriter(self.0.make_writer())
    }
}

impl<W: Write> Write for SingleLineWriter<W> {
    /// Called with one whole event at a time, with the end of its line.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.write_all(&on_one_line(event))?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Escapes the line breaks within an event.
fn on_one_line(event: &[u8]) -> Cow<'_, [u8]> {
    let body = event.strip_suffix(b"\n").unwrap_or(event);
    if !body.contains(&b'\n') && !body.contains(&b'\r') {
        return Cow::Borrowed(event);
    }
    let mut line = Vec::with_capacity(event.len() + 16);
    for byte in body {
        match byte {
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            other => line.push(*other),
        }
    }
    line.push(b'\n');
    Cow::Owned(line)
}

/// Stricter than the library, which takes a misspelt level for the name of a part and then logs
/// that part alone.
fn parse_filter(filter: &str) -> Result<Targets, LogFilterError> {
    let mut targets = Targets::new();
    for directive in filter.split(',') {
        let unknown = || LogFilterError::Directive(directive.to_owned());
        let level = |text: &str| text.parse::<LevelFilter>().map_err(|_| unknown());
        targets = match directive.split_once('=') {
            Some(("", _) | (_, "")) => return Err(unknown()),
            Some((part, text)) => targets.with_target(part, level(text)?),
            None if directive.is_empty() => return Err(unknown()),
            None => targets.with_default(level(directive)?),
        };
    }
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use clap::Parser;
    use tracing::{info, info_span};

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        telemetry: TelemetryArgs,
    }

    fn args(flags: &[&str]) -> TelemetryArgs {
        let flags = ["test"].iter().chain(flags);
        Cli::try_parse_from(flags).unwrap().telemetry
    }

    /// What `events` logs under these flags, as one text.
    fn logged(flags: &[&str], events: impl FnOnce()) -> String {
        let output = Arc::new(Mutex::new(Vec::new()));
        let writer = Arc::clone(&output);
        let dispatch = args(flags).dispatch(Appended(writer), false);
        dispatcher::with_default(&dispatch, events);
        String::from_utf8(output.lock().unwrap().clone()).unwrap()
    }

    struct Appended(Arc<Mutex<Vec<u8>>>);

    impl MakeWriter<'_> for Appended {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            Self(Arc::clone(&self.0))
        }
    }

    impl Write for Appended {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn tunnel_event() {
        let _session = info_span!("session", id = 7).entered();
        info!(target: ACCESS, bytes = 42, target_name = "a\nb\x1b[31m\r", "tunnel\nended");
    }

    #[test]
    fn text_is_one_readable_line_per_event_whatever_the_fields_hold() {
        let log = logged(&[], || {
            tunnel_event();
            info!("second");
        });
        let lines: Vec<&str> = log.lines().collect();
        assert_eq!(lines.len(), 2, "{log}");
        assert!(!log.contains(['\x1b', '\r']), "{log}");
        for part in ["INFO session{id=7}: access: tunnel\\nended", "bytes=42"] {
            assert!(lines[0].contains(part), "{log}");
        }
        assert!(lines[1].ends_with("second"), "{log}");
    }

    #[test]
    fn json_is_one_flat_object_per_event() {
        let log = logged(&["--log-format", "json"], tunnel_event);
        assert_eq!(log.lines().count(), 1, "{log}");
        let event: serde_json::Value = serde_json::from_str(&log).unwrap();
        assert_eq!(event["message"], "tunnel\nended");
        assert_eq!(event["bytes"], 42);
        assert_eq!(event["level"], "INFO");
        assert_eq!(event["target"], "access");
        assert_eq!(event["spans"][0]["id"], 7);
    }

    #[test]
    fn the_filter_mutes_single_parts() {
        let log = logged(&["--log", "info,access=off"], || {
            tunnel_event();
            info!("kept");
            tracing::debug!("muted");
        });
        assert_eq!(log.lines().count(), 1, "{log}");
        assert!(log.contains("kept"));
    }

    #[test]
    fn a_filter_that_means_nothing_is_refused() {
        for good in ["off", "INFO", "warn,towline_session=trace", "a::b=debug"] {
            parse_filter(good).unwrap();
        }
        for bad in ["", "inof", "info,", "=info", "access=", "access=loud"] {
            let refused = parse_filter(bad).unwrap_err().to_string();
            assert!(refused.contains("is neither a level"), "{bad}: {refused}");
        }
        let flags = ["test", "--log", "inof"];
        let refused = Cli::try_parse_from(flags).err().unwrap().to_string();
        assert!(refused.contains("--log <FILTER>") && refused.contains("inof"));
    }

    #[test]
    fn line_breaks_are_escaped_and_other_events_not_copied() {
        assert!(matches!(on_one_line(b"plain\n"), Cow::Borrowed(b"plain\n")));
        let broken = on_one_line(b"a\r\nb\n\n");
        assert_eq!(broken.as_ref(), b"a\\r\\nb\\n\n");
    }
}
