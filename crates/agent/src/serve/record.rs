//! The record of one tunnel: its metrics and its line in the log, written when it is dropped.

use std::fmt;
use std::thread;

use tokio::time::Instant;
use towline_protocol::ask::Ask;
use towline_protocol::head::RequestHead;
use towline_session::splice::CloseReason;
use towline_session::tunnel_table::TunnelStats;
use tracing::debug;

use crate::metrics::AgentMetrics;
use crate::serve::TunnelError;

/// Records a tunnel exactly once. A tunnel whose task panics or is aborted is recorded too, because
/// that happens in `Drop`.
#[derive(Debug)]
pub(super) struct Record<'a> {
    metrics: &'a AgentMetrics,
    began: Instant,
    /// Nothing until it was read.
    head: Option<RequestHead>,
    end: End,
    /// The payload that was moved.
    stats: TunnelStats,
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
    pub(super) fn new(metrics: &'a AgentMetrics) -> Self {
        Self {
            metrics,
            began: Instant::now(),
            head: None,
            end: End::Unfinished,
            stats: TunnelStats::default(),
        }
    }

    /// The head was read.
    pub(super) fn requested(&mut self, head: RequestHead) {
        self.head = Some(head);
    }

    /// What is asked for; nothing until the head was read.
    pub(super) fn ask(&self) -> Option<&Ask> {
        self.head.as_ref().map(|head| &head.ask)
    }

    /// The tunnel ended before it carried payload.
    pub(super) fn failed(mut self, error: TunnelError) {
        self.end = End::Failed(error);
    }

    /// The tunnel ended after it had moved this payload.
    pub(super) fn closed(mut self, reason: CloseReason, stats: TunnelStats) {
        self.end = End::Closed(reason);
        self.stats = stats;
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        match &self.end {
            End::Failed(TunnelError::Refused(refusal)) => self.metrics.refused(refusal.reason),
            end => self.metrics.tunnel_ended(end.label()),
        }
        // Forwarded and Traceparent are claims of the server, printable ASCII, not verified here.
        let head = self.head.as_ref();
        debug!(
            target = head.map(|head| display(&head.ask)),
            forwarded = head.and_then(|head| head.forwarded.as_deref()),
            traceparent = head.and_then(|head| head.traceparent.as_deref()),
            to_target = self.stats.to_target,
            to_client = self.stats.to_client,
            duration = ?self.began.elapsed(),
            outcome = self.end.label(),
            end = %self.end,
            "tunnel ended"
        );
    }
}

// === impl End ===

impl End {
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
        let metrics = AgentMetrics::register(&mut registry, table);
        tracing::subscriber::with_default(subscriber, || end(Record::new(&metrics)));
        let mut page = String::new();
        text::encode(&mut page, &registry).unwrap();
        let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        (log, page)
    }

    /// One record is one line and one count.
    #[track_caller]
    fn assert_recorded(outcome: &str, fields: &[&str], end: impl FnOnce(Record<'_>)) {
        let (log, page) = recorded(end);
        assert_eq!(log.lines().count(), 1, "{log}");
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
            "target=db.test:1",
            "forwarded=\"for=192.0.2.1\"",
            "traceparent=\"00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01\"",
            "to_target=8",
            "to_client=6",
        ];
        assert_recorded("finished", &fields, |mut record| {
            record.requested(head);
            let stats = TunnelStats {
                to_target: 8,
                to_client: 6,
            };
            record.closed(CloseReason::Finished, stats);
        });

        let refusal = Refusal::new(Reason::Refused, "dial db.test:1: connection refused");
        let fields = ["end=dial db.test:1: connection refused"];
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
