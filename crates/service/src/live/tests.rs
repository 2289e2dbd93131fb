use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use thiserror::Error;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::tasks::Tasks;

const INTERVAL: Duration = Duration::from_secs(10);

/// Longer than any interval, so that a failure ends a test instead of hanging it.
const LONG: Duration = Duration::from_secs(3600);

async fn bounded<T>(wait: impl Future<Output = T>) -> T {
    timeout(LONG, wait).await.expect("the wait ends")
}

/// Two files with one number each, which must be the same, as a certificate and its key must fit.
#[derive(Debug)]
struct Pair {
    dir: PathBuf,
    /// A condition that is not in the files, as the date is for certificates.
    is_time: Arc<AtomicBool>,
    parses: Arc<AtomicUsize>,
}

#[derive(Debug, Error)]
enum PairError {
    #[error("{path:?} is no number")]
    Number {
        path: PathBuf,
        source: std::num::ParseIntError,
    },
    #[error("the numbers {0} and {1} differ")]
    Differ(u64, u64),
    #[error("not valid yet")]
    Early,
}

// === impl Pair ===

impl Pair {
    fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            is_time: Arc::new(AtomicBool::new(true)),
            parses: Arc::default(),
        }
    }
}

impl Source for Pair {
    type Value = (u64, u64);
    type Error = PairError;

    fn files(&self) -> io::Result<Vec<PathBuf>> {
        Ok(vec![self.dir.join("first"), self.dir.join("second")])
    }

    fn parse(&self, files: &[SourceFile]) -> Result<(u64, u64), PairError> {
        self.parses.fetch_add(1, Ordering::Relaxed);
        let numbers: Vec<u64> = files.iter().map(number).collect::<Result<_, _>>()?;
        assert_ne!(numbers[0], 13, "on purpose");
        if !self.is_time.load(Ordering::Relaxed) {
            return Err(PairError::Early);
        }
        if numbers[0] != numbers[1] {
            return Err(PairError::Differ(numbers[0], numbers[1]));
        }
        Ok((numbers[0], numbers[1]))
    }
}

fn number(file: &SourceFile) -> Result<u64, PairError> {
    let text = String::from_utf8_lossy(&file.bytes);
    text.trim().parse().map_err(|source| PairError::Number {
        path: file.path.clone(),
        source,
    })
}

fn write(dir: &Path, first: &str, second: &str) {
    fs::write(dir.join("first"), first).unwrap();
    fs::write(dir.join("second"), second).unwrap();
}

/// A watcher of a [`Pair`] that runs, and what a test needs to see of it.
struct Running {
    dir: TempDir,
    is_time: Arc<AtomicBool>,
    parses: Arc<AtomicUsize>,
    live: Live<(u64, u64)>,
    updates: Updates<(u64, u64)>,
    handle: ReloadHandle,
    tasks: Tasks,
    stop: CancellationToken,
}

// === impl Running ===

impl Running {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "1", "1");
        let pair = Pair::new(dir.path());
        let (is_time, parses) = (Arc::clone(&pair.is_time), Arc::clone(&pair.parses));
        let watcher = Watcher::load("pair", pair).unwrap();
        let (live, handle) = (watcher.live(), watcher.handle());
        let (tasks, stop) = (Tasks::new(), CancellationToken::new());
        watcher.spawn(&tasks, INTERVAL, stop.clone());
        Self {
            dir,
            is_time,
            parses,
            updates: live.subscribe(),
            live,
            handle,
            tasks,
            stop,
        }
    }

    fn write(&self, first: &str, second: &str) {
        write(self.dir.path(), first, second);
    }

    async fn next(&mut self) -> (u64, u64) {
        *bounded(self.updates.next())
            .await
            .expect("the watcher runs")
    }

    /// Reloads, failures and the last error.
    fn outcomes(&self) -> (u64, u64, Option<String>) {
        let report = self.handle.report();
        (report.reloads, report.failures, report.last_error)
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_is_seen_within_the_interval_and_earlier_snapshots_stay() {
    let mut running = Running::start();
    let start = Instant::now();
    let earlier = running.live.load();
    running.write("2", "2");
    assert_eq!(running.next().await, (2, 2));
    assert_eq!(start.elapsed(), INTERVAL);
    assert_eq!((*earlier, *running.live.load()), ((1, 1), (2, 2)));
    assert_eq!(running.outcomes(), (1, 0, None));
}

#[tokio::test(start_paused = true)]
async fn unchanged_files_are_neither_parsed_nor_swapped_again() {
    let running = Running::start();
    let first = running.live.load();
    sleep(10 * INTERVAL + INTERVAL / 2).await;
    assert!(Arc::ptr_eq(&first, &running.live.load()));
    assert_eq!(running.parses.load(Ordering::Relaxed), 1);
    let report = running.handle.report();
    assert_eq!(report.age, 10 * INTERVAL + INTERVAL / 2);
    assert_eq!(report.since_check, INTERVAL / 2);
    assert_eq!(running.outcomes(), (0, 0, None));
}

#[tokio::test(start_paused = true)]
async fn bad_contents_keep_the_last_good_and_are_counted_once() {
    let mut running = Running::start();
    // The first file is good: none of it may be used.
    running.write("2", "two");
    sleep(10 * INTERVAL).await;
    assert_eq!(*running.live.load(), (1, 1));
    let (reloads, failures, error) = running.outcomes();
    assert_eq!((reloads, failures), (0, 1));
    let error = error.unwrap();
    assert!(
        error.ends_with("second\" is no number: invalid digit found in string"),
        "{error}"
    );

    // Other contents with the same fault are another failure.
    running.write("2", "zwei");
    sleep(10 * INTERVAL).await;
    assert_eq!(running.outcomes().1, 2);
    running.write("2", "3");
    sleep(10 * INTERVAL).await;
    let differ = "the numbers 2 and 3 differ".to_owned();
    assert_eq!(running.outcomes(), (0, 3, Some(differ)));

    running.write("3", "3");
    assert_eq!(running.next().await, (3, 3));
    assert_eq!(running.outcomes(), (1, 3, None));
}

#[tokio::test(start_paused = true)]
async fn the_contents_in_use_end_a_failure_when_they_come_back() {
    let mut running = Running::start();
    running.write("1", "0");
    sleep(2 * INTERVAL).await;
    assert_eq!(running.outcomes().1, 1);
    running.write("1", "1");
    assert_eq!(running.next().await, (1, 1));
    assert_eq!(running.outcomes(), (1, 1, None));
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_time_mends_needs_no_new_contents() {
    let mut running = Running::start();
    running.is_time.store(false, Ordering::Relaxed);
    running.write("2", "2");
    sleep(5 * INTERVAL).await;
    assert_eq!(running.outcomes(), (0, 1, Some("not valid yet".to_owned())));
    running.is_time.store(true, Ordering::Relaxed);
    assert_eq!(running.next().await, (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_missing_file_and_one_that_is_too_large_are_failures() {
    let mut running = Running::start();
    let second = running.dir.path().join("second");
    fs::remove_file(&second).unwrap();
    sleep(3 * INTERVAL).await;
    let missing = format!("cannot read {second:?}: No such file or directory (os error 2)");
    assert_eq!(running.outcomes(), (0, 1, Some(missing)));
    let file = fs::File::create(&second).unwrap();
    file.set_len(MAX_FILE + 1).unwrap();
    sleep(3 * INTERVAL).await;
    let large = format!("{second:?} is larger than {MAX_FILE} bytes");
    assert_eq!(running.outcomes(), (0, 2, Some(large)));
    assert_eq!(*running.live.load(), (1, 1));
    running.write("2", "2");
    assert_eq!(running.next().await, (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_panics_keeps_the_last_good() {
    let mut running = Running::start();
    running.write("13", "13");
    sleep(3 * INTERVAL).await;
    assert_eq!(
        running.outcomes(),
        (0, 1, Some("loading panicked".to_owned()))
    );
    assert_eq!((*running.live.load(), running.tasks.panics()), ((1, 1), 0));
    running.write("14", "14");
    assert_eq!(running.next().await, (14, 14));
}

#[tokio::test(start_paused = true)]
async fn a_request_is_a_check_at_once() {
    let mut running = Running::start();
    let start = Instant::now();
    running.write("2", "2");
    running.handle.request();
    assert_eq!(running.next().await, (2, 2));
    assert_eq!(start.elapsed(), Duration::ZERO);
    running.handle.request();
    sleep(Duration::from_millis(1)).await;
    assert_eq!(
        running.handle.report().since_check,
        Duration::from_millis(1)
    );
    assert_eq!(running.outcomes(), (1, 0, None));
}

#[tokio::test(start_paused = true)]
async fn a_swap_of_a_symbolic_link_replaces_all_files_at_once() {
    // As Kubernetes mounts secrets: the names are links through `..data`, which is renamed over.
    let dir = tempfile::tempdir().unwrap();
    let publish = |version: &str| {
        let folder = dir.path().join(version);
        fs::create_dir(&folder).unwrap();
        write(&folder, version, version);
        symlink(version, dir.path().join("..new")).unwrap();
        fs::rename(dir.path().join("..new"), dir.path().join("..data")).unwrap();
    };
    publish("1");
    for name in ["first", "second"] {
        symlink(Path::new("..data").join(name), dir.path().join(name)).unwrap();
    }
    let watcher = Watcher::load("pair", Pair::new(dir.path())).unwrap();
    let (live, handle) = (watcher.live(), watcher.handle());
    let mut updates = live.subscribe();
    let tasks = Tasks::new();
    watcher.spawn(&tasks, INTERVAL, CancellationToken::new());
    for version in 2..5 {
        publish(&version.to_string());
        let next = bounded(updates.next()).await.unwrap();
        assert_eq!(*next, (version, version));
    }
    assert_eq!((handle.report().reloads, handle.report().failures), (3, 0));
}

/// Changes its second file at each of the first `changes` reads after the first load.
struct Moving {
    pair: Pair,
    reads: AtomicUsize,
    changes: Arc<AtomicUsize>,
}

impl Source for Moving {
    type Value = (u64, u64);
    type Error = PairError;

    fn files(&self) -> io::Result<Vec<PathBuf>> {
        let read = self.reads.fetch_add(1, Ordering::Relaxed);
        if self.changes.load(Ordering::Relaxed) > 0 {
            self.changes.fetch_sub(1, Ordering::Relaxed);
            write(&self.pair.dir, "7", &format!("7{}", " ".repeat(read)));
        }
        self.pair.files()
    }

    fn parse(&self, files: &[SourceFile]) -> Result<(u64, u64), PairError> {
        self.pair.parse(files)
    }
}

#[test]
fn files_that_change_while_they_are_read_are_read_until_they_agree() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "7", "7");
    for (changes, is_loaded) in [(1, true), (3, true), (1000, false)] {
        let moving = Moving {
            pair: Pair::new(dir.path()),
            reads: AtomicUsize::new(1),
            changes: Arc::new(AtomicUsize::new(changes)),
        };
        match Watcher::load("moving", moving) {
            Ok(watcher) => assert!(is_loaded && *watcher.live().load() == (7, 7)),
            Err(error) => assert!(
                !is_loaded && matches!(error, SourceError::Unstable),
                "{error}"
            ),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_watcher_stops_when_asked_and_the_snapshot_stays() {
    let running = Running::start();
    running.stop.cancel();
    bounded(running.tasks.emptied()).await;
    running.write("2", "2");
    running.handle.request();
    sleep(3 * INTERVAL).await;
    assert_eq!(*running.live.load(), (1, 1));
    assert_eq!(running.outcomes(), (0, 0, None));
}

/// Blocks in each read after the first two until it is let go on.
struct Hanging {
    pair: Pair,
    reads: AtomicUsize,
    hangs: mpsc::Sender<()>,
    go_on: Mutex<mpsc::Receiver<()>>,
}

impl Source for Hanging {
    type Value = (u64, u64);
    type Error = PairError;

    fn files(&self) -> io::Result<Vec<PathBuf>> {
        if self.reads.fetch_add(1, Ordering::Relaxed) >= 2 {
            self.hangs.send(()).unwrap();
            let go_on = self.go_on.lock().unwrap_or_else(PoisonError::into_inner);
            go_on.recv().ok();
        }
        self.pair.files()
    }

    fn parse(&self, files: &[SourceFile]) -> Result<(u64, u64), PairError> {
        self.pair.parse(files)
    }
}

#[tokio::test]
async fn a_read_that_hangs_holds_up_neither_the_runtime_nor_the_end() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "1", "1");
    let (hangs, hung) = mpsc::channel();
    let (let_go, go_on) = mpsc::channel();
    let source = Hanging {
        pair: Pair::new(dir.path()),
        reads: AtomicUsize::new(0),
        hangs,
        go_on: Mutex::new(go_on),
    };
    let watcher = Watcher::load("hanging", source).unwrap();
    let (live, handle) = (watcher.live(), watcher.handle());
    let (tasks, stop) = (Tasks::new(), CancellationToken::new());
    watcher.spawn(&tasks, LONG, stop.clone());
    handle.request();
    // The thread of the runtime goes on while the read hangs.
    let begin = std::time::Instant::now();
    while hung.try_recv().is_err() {
        assert!(begin.elapsed() < Duration::from_secs(20), "the read begins");
        tokio::task::yield_now().await;
    }
    assert_eq!(*live.load(), (1, 1));
    stop.cancel();
    assert!(tasks.finish_within(Duration::from_secs(20)).await);
    drop(let_go);
}

#[test]
fn the_first_load_fails_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let error = Watcher::load("pair", Pair::new(dir.path())).unwrap_err();
    assert!(matches!(error, SourceError::Read { .. }), "{error}");
    write(dir.path(), "1", "2");
    let error = Watcher::load("pair", Pair::new(dir.path())).unwrap_err();
    assert_eq!(error.to_string(), "the numbers 1 and 2 differ");
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_sees_the_latest_swap_and_the_end() {
    let live = Live::fixed(0);
    let mut updates = live.subscribe();
    live.swap(1);
    live.swap(2);
    assert_eq!(bounded(updates.next()).await.as_deref(), Some(&2));
    let waited = timeout(LONG, updates.next()).await;
    waited.expect_err("a swap is seen once");
    let clone = live.clone();
    clone.swap(3);
    drop((live, clone));
    assert_eq!(bounded(updates.next()).await.as_deref(), Some(&3));
    assert_eq!(bounded(updates.next()).await, None);
}

#[test]
fn readers_on_other_threads_see_whole_snapshots_in_order() {
    const SWAPS: u64 = 20_000;
    let live = Live::fixed([0; 8]);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut last = 0;
                while last < SWAPS {
                    let snapshot = live.load();
                    assert!(snapshot.iter().all(|part| *part == snapshot[0]));
                    assert!(snapshot[0] >= last);
                    last = snapshot[0];
                }
            });
        }
        for number in 1..=SWAPS {
            live.swap([number; 8]);
        }
    });
    assert_eq!(Arc::strong_count(&live.load()), 2);
}
