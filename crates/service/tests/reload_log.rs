//! What the reload of files logs: one line for each outcome.
//!
//! A process of its own, since tracing caches for the whole process whether an event is wanted.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::fs;
use std::io;
use std::num::ParseIntError;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use towline_service::live::{Source, SourceFile, Watcher};
use towline_service::tasks::Tasks;
use tracing_subscriber::fmt::MakeWriter;

const INTERVAL: Duration = Duration::from_secs(10);

/// A file with a number.
struct Number(PathBuf);

/// Collects log lines.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

// === impl Number ===

impl Source for Number {
    type Value = u64;
    type Error = ParseIntError;

    fn files(&self) -> io::Result<Vec<PathBuf>> {
        Ok(vec![self.0.clone()])
    }

    fn parse(&self, files: &[SourceFile]) -> Result<u64, ParseIntError> {
        String::from_utf8_lossy(&files[0].bytes).parse()
    }
}

// === impl Lines ===

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn each_outcome_is_one_log_line() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt().with_writer(lines.clone());
    let _log = tracing::subscriber::set_default(subscriber.with_ansi(false).finish());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("number");
    fs::write(&path, "1").unwrap();
    let watcher = Watcher::load("number", Number(path.clone())).unwrap();
    let mut updates = watcher.live().subscribe();
    let tasks = Tasks::new();
    watcher.spawn(&tasks, INTERVAL, CancellationToken::new());

    fs::write(&path, "x").unwrap();
    sleep(5 * INTERVAL).await;
    fs::write(&path, "2").unwrap();
    let next = timeout(10 * INTERVAL, updates.next()).await.unwrap();
    assert_eq!(next.as_deref(), Some(&2));
    sleep(5 * INTERVAL).await;

    let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 2, "{log}");
    for part in [
        "WARN",
        "reload failed, keeping the previous",
        "number",
        "invalid digit",
    ] {
        assert!(lines[0].contains(part), "{log}");
    }
    assert!(
        lines[1].contains("INFO") && lines[1].contains("reloaded"),
        "{log}"
    );
}
