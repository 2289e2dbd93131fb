//! The record of one tunnel: its metrics and its line in the log, written when it is dropped.

use std::fmt;
use std::thread;

use tokio::time::Instant;
use towline_protocol::ask::Ask;
use towline_protocol::head::RequestHead;
use towline_session::splice::CloseReason;
use towline_session::tunnel_table::TunnelGuard;
use tracing::debug;

use crate::metrics::AgentMetrics;
use crate::serve::TunnelError;

/// Records a tunnel exactly once. A tunnel whose task panics or is aborted is recorded too, because
/// that happens in `Drop`.
#[derive(Debug)]
pub(super) struct Record<'a> {
    metrics: &'a AgentMetrics,
    guard: TunnelGuard,
    began: Instant,
    /// What is asked for; nothing until the head was read.
    ask: Option<Ask>,
    end: End,
}

/// How a tunnel ended.
#[derive(Debug)]
enum End {
    /// Its task did not get to an end.
    Unfinished,
    /// It carried no payload.
    Failed(TunnelError),
    /// It carried payload.
    Closed(CloseReason),
}

// === impl Record ===

impl<'a> Record<'a> {
    /// The record of a tunnel that begins now.
    pub(super) fn new(metrics: &'a AgentMetrics, guard: TunnelGuard) -> Self {
        Self {
            metrics,
            guard,
            began: Instant::now(),
            ask: None,
            end: End::Unfinished,
        }
    }

    /// The tunnel's entry in the table.
    pub(super) fn guard(&self) -> &TunnelGuard {
        &self.guard
    }

    /// The tunnel's entry in the table.
    pub(super) fn guard_mut(&mut self) -> &mut TunnelGuard {
        &mut self.guard
    }

    /// The head was read; returns what it asks for.
    pub(super) fn requested(&mut self, head: RequestHead) -> &Ask {
        // Forwarded and Traceparent are claims of the server, printable ASCII, not verified here.
        debug!(
            to = %head.ask,
            forwarded = head.forwarded,
            traceparent = head.traceparent,
            "tunnel requested"
        );
        self.ask.insert(head.ask)
    }

    /// The tunnel ended before it carried payload.
    pub(super) fn failed(mut self, error: TunnelError) {
        self.end = End::Failed(error);
    }

    /// The tunnel ended after it had carried payload.
    pub(super) fn closed(mut self, reason: CloseReason) {
        self.end = End::Closed(reason);
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        match &self.end {
            End::Failed(TunnelError::Refused(refusal)) => self.metrics.refused(refusal.reason),
            end => self.metrics.tunnel_ended(end.label()),
        }
        let stats = self.guard.stats();
        debug!(
            to = self.ask.as_ref().map(display),
            to_target = stats.to_target,
            to_client = stats.to_client,
            duration = ?self.began.elapsed(),
            outcome = self.end.label(),
            reason = self.end.reason(),
            end = %self.end,
            "tunnel ended"
        );
    }
}

// === impl End ===

impl End {
    /// The value of the metric label `reason`, of a refusal.
    fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Failed(TunnelError::Refused(refusal)) => Some(refusal.reason.label()),
            _ => None,
        }
    }

    /// The value of the metric label `outcome`.
    fn label(&self) -> &'static str {
        match self {
            Self::Unfinished if thread::panicking() => "internal",
            Self::Unfinished => "session_lost",
            Self::Failed(TunnelError::Refused(_)) => "refused",
            Self::Failed(TunnelError::Cancelled) => "cancelled",
            Self::Failed(TunnelError::Aborted(code)) => code.label(),
            Self::Closed(reason) => reason.label(),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unfinished if thread::panicking() => f.write_str("panicked"),
            Self::Unfinished => f.write_str("aborted with its session"),
            Self::Failed(error) => error.fmt(f),
            Self::Closed(reason) => reason.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::panic;
    use std::sync::{Arc, Mutex};

    use prometheus_client::encoding::text;
    use prometheus_client::registry::Registry;
    use towline_protocol::code::StreamCode;
    use towline_protocol::refusal::{Reason, Refusal};
    use towline_session::args::TableConfig;
    use towline_session::tunnel_table::TunnelTable;
    use tracing::Level;

    use super::*;

    /// The log of one test.
    #[derive(Debug, Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The log and the page of metrics after one record.
    fn recorded(end: impl FnOnce(Record<'_>)) -> (String, String) {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(Level::DEBUG)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        let mut registry = Registry::default();
        let table = TunnelTable::new(&TableConfig::default());
        let metrics = AgentMetrics::register(&mut registry, table.clone());
        tracing::subscriber::with_default(subscriber, || {
            end(Record::new(&metrics, table.register()));
        });
        let mut page = String::new();
        text::encode(&mut page, &registry).unwrap();
        let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        (log, page)
    }

    /// One record is one line and one count.
    #[track_caller]
    fn assert_recorded(outcome: &str, fields: &[&str], end: impl FnOnce(Record<'_>)) {
        let (log, page) = recorded(end);
        let ends = log.lines().filter(|line| line.contains("tunnel ended"));
        assert_eq!(ends.count(), 1, "{log}");
        let outcome_field = format!("outcome=\"{outcome}\"");
        for field in [&["tunnel ended", &outcome_field], fields].concat() {
            assert!(log.contains(field), "no {field} in {log}");
        }
        let sample = format!("towline_agent_tunnels_total{{outcome=\"{outcome}\"}} 1\n");
        assert!(page.contains(&sample), "{page}");
    }

    // One test: the log line is enabled for the whole process as long as a test has a subscriber.
    #[test]
    fn each_end_is_one_line_and_one_count() {
        let head = RequestHead {
            forwarded: Some("for=192.0.2.1".to_owned()),
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01".to_owned()),
            ..RequestHead::new(Ask::parse("db.test:1").unwrap())
        };
        let fields = [
            "tunnel requested to=db.test:1",
            "tunnel ended to=db.test:1",
            "forwarded=\"for=192.0.2.1\"",
            "traceparent=\"00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01\"",
            "to_target=0",
            "to_client=0",
        ];
        assert_recorded("finished", &fields, |mut record| {
            record.requested(head);
            record.closed(CloseReason::Finished);
        });

        let refusal = Refusal::new(Reason::Refused, "dial db.test:1: connection refused");
        let fields = [
            "reason=\"refused\"",
            "end=dial db.test:1: connection refused",
        ];
        assert_recorded("refused", &fields, |record| record.failed(refusal.into()));

        let fields = ["end=cancelled by the server"];
        let cancelled = |record: Record<'_>| record.failed(TunnelError::Cancelled);
        assert_recorded("cancelled", &fields, cancelled);

        let aborted =
            |record: Record<'_>| record.failed(TunnelError::Aborted(StreamCode::Overload));
        assert_recorded("overload", &["end=ended as overload"], aborted);

        let fields = ["end=aborted with its session"];
        assert_recorded("session_lost", &fields, |record| drop(record));

        assert_recorded("internal", &["end=panicked"], |record| {
            let unwound = panic::catch_unwind(panic::AssertUnwindSafe(|| {
                let _record = record;
                panic!("as asked for");
            }));
            unwound.unwrap_err();
        });
    }
}
