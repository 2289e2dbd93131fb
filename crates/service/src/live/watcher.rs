//! The task that replaces a snapshot when the contents of its files change.
//!
//! It compares contents on an interval instead of waiting for events of the file system: mounted
//! Kubernetes secrets change by a swap of symbolic links, and network file systems send no events.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::error_chain::ErrorChain;
use crate::live::Live;
use crate::live::files::{self, Digest, Digester, Failure, Source, SourceError};
use crate::tasks::Tasks;

/// The shortest time between two reads on the interval.
pub const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// Owns the replacement of a [`Live`]: the only part that swaps it.
pub struct Watcher<S: Source> {
    name: &'static str,
    source: Arc<S>,
    live: Live<S::Value>,
    digester: Digester,
    last: Last,
    handle: ReloadHandle,
}

/// Requests a reload, and reports on those that were; clones serve the same watcher.
#[derive(Clone, Debug)]
pub struct ReloadHandle {
    requested: Arc<Notify>,
    state: Arc<Mutex<State>>,
}

/// What a watcher has done so far, for metrics and admin pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadReport {
    /// Snapshots that replaced an earlier one.
    pub reloads: u64,
    /// Contents that could not be used, and other failures; one that persists counts once.
    pub failures: u64,
    /// Why the files as they are now are not in use; nothing when they are.
    pub last_error: Option<String>,
    /// Time since the snapshot in use was loaded.
    pub age: Duration,
    /// Time since the files were last read, with success or not. It grows beyond the interval when
    /// a read hangs.
    pub since_check: Duration,
}

/// How the last load ended.
#[derive(Debug, PartialEq, Eq)]
enum Last {
    /// The snapshot in use is of these contents.
    Loaded(Digest),
    /// With this text, which has been reported, for these contents if they could be read.
    Failed(Option<Digest>, String),
}

#[derive(Debug)]
struct State {
    reloads: u64,
    failures: u64,
    last_error: Option<String>,
    loaded: Instant,
    checked: Instant,
}

// === impl Watcher ===

impl<S: Source> Watcher<S> {
    /// Loads the first snapshot. `name` says what it is in the log, for example `certificates`.
    ///
    /// Reads files on the calling thread: meant for the start of a program.
    ///
    /// # Errors
    /// When a file cannot be read or the source refuses the contents.
    pub fn load(name: &'static str, source: S) -> Result<Self, SourceError> {
        let digester = Digester::default();
        let (value, digest) = files::load(&source, &digester).map_err(|failure| failure.error)?;
        let now = Instant::now();
        let state = State {
            reloads: 0,
            failures: 0,
            last_error: None,
            loaded: now,
            checked: now,
        };
        Ok(Self {
            name,
            source: Arc::new(source),
            live: Live::fixed(value),
            digester,
            last: Last::Loaded(digest),
            handle: ReloadHandle {
                requested: Arc::default(),
                state: Arc::new(Mutex::new(state)),
            },
        })
    }

    /// The snapshot that this watcher replaces.
    pub fn live(&self) -> Live<S::Value> {
        self.live.clone()
    }

    /// Requests and reports of this watcher, while it runs and after.
    pub fn handle(&self) -> ReloadHandle {
        self.handle.clone()
    }

    /// Reads the files every `interval` (at least [`MIN_INTERVAL`]) and on request, as one of
    /// `tasks`, until `stop` is cancelled. Files are read on the runtime's blocking threads, one
    /// load at a time.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn(self, tasks: &Tasks, interval: Duration, stop: CancellationToken) {
        let work = self.run(interval.max(MIN_INTERVAL));
        tasks.spawn("reload", async move {
            stop.run_until_cancelled(work).await;
        });
    }

    async fn run(mut self, interval: Duration) {
        loop {
            tokio::select! {
                () = sleep(interval) => {}
                () = self.handle.requested.notified() => {}
            }
            let (source, digester) = (Arc::clone(&self.source), self.digester.clone());
            let known = self.last.in_use();
            let load = spawn_blocking(move || files::load_changed(&*source, &digester, known));
            match load.await {
                Ok(Ok(None)) => self.handle.state().checked = Instant::now(),
                Ok(Ok(Some((value, digest)))) => self.replace(value, digest),
                Ok(Err(failure)) => self.keep(&failure),
                Err(error) if error.is_panic() => self.keep(&SourceError::Panicked.into()),
                // The runtime shuts down.
                Err(_) => return,
            }
        }
    }

    fn replace(&mut self, value: S::Value, digest: Digest) {
        self.live.swap(value);
        self.last = Last::Loaded(digest);
        self.handle.reloaded();
        info!(source = self.name, "reloaded");
    }

    /// Keeps the snapshot in use. The files are parsed again at the next check even if they stay as
    /// they are: what fails may depend on the clock, as the dates of certificates do.
    fn keep(&mut self, Failure { error, digest }: &Failure) {
        let text = ErrorChain(error).to_string();
        let failed = Last::Failed(*digest, text.clone());
        if failed == self.last {
            self.handle.state().checked = Instant::now();
            return;
        }
        warn!(
            source = self.name,
            error = text,
            "reload failed, keeping the previous"
        );
        self.last = failed;
        self.handle.failed(text);
    }
}

impl<S: Source> fmt::Debug for Watcher<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Watcher")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

// === impl Last ===

impl Last {
    /// The contents that need no parsing because they are in use.
    fn in_use(&self) -> Option<Digest> {
        match self {
            Self::Loaded(digest) => Some(*digest),
            Self::Failed(..) => None,
        }
    }
}

// === impl ReloadHandle ===

impl ReloadHandle {
    /// Asks for a check now. One that is made during a check leads to another after it; more of
    /// them are one.
    pub fn request(&self) {
        self.requested.notify_one();
    }

    /// What the watcher has done so far.
    pub fn report(&self) -> ReloadReport {
        let state = self.state();
        ReloadReport {
            reloads: state.reloads,
            failures: state.failures,
            last_error: state.last_error.clone(),
            age: state.loaded.elapsed(),
            since_check: state.checked.elapsed(),
        }
    }

    fn reloaded(&self) {
        let now = Instant::now();
        let mut state = self.state();
        state.reloads += 1;
        state.last_error = None;
        state.loaded = now;
        state.checked = now;
    }

    fn failed(&self, error: String) {
        let mut state = self.state();
        state.failures += 1;
        state.last_error = Some(error);
        state.checked = Instant::now();
    }

    /// Nothing can panic under this lock but an allocation, so its contents are always whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
