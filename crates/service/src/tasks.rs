//! The only module that spawns tasks: every task has an owner, and a panic is logged and counted.
//!
//! A task costs three short critical sections in its life and nothing per wake-up, and holds no
//! memory after its end: a server may start ten thousand tunnels a second.

use std::any::Any;
use std::collections::HashMap;
use std::future::Future;
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tracing::error;

/// The table keeps room for this many tasks; room beyond that is freed as tasks end.
const KEPT_CAPACITY: usize = 1024;

/// An owner of tasks; clones are the same owner. When the last clone is dropped, the tasks that
/// still run are aborted. A task that holds a clone therefore keeps the others running.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    owner: Arc<Owner>,
}

/// Shared by the clones of a [`Tasks`] and held by no task: the last clone aborts all tasks.
#[derive(Debug, Default)]
struct Owner {
    shared: Arc<Shared>,
}

/// The running tasks.
#[derive(Debug, Default)]
struct Shared {
    table: Mutex<Table>,
    /// Notified each time the table becomes empty.
    empty: Notify,
    panics: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    last_id: u64,
    running: HashMap<u64, State>,
}

#[derive(Debug)]
enum State {
    /// Spawned, and maybe already running; its handle is not stored yet.
    Starting,
    Running(AbortHandle),
    /// Aborted while it was starting.
    Aborted,
}

/// A task's entry in the table; dropped after the task's future, whether that ended, panicked or
/// was aborted.
#[derive(Debug)]
struct Entry {
    id: u64,
    name: &'static str,
    shared: Arc<Shared>,
}

pin_project! {
    /// A task's future and its entry in the table. The future is dropped first.
    struct Owned<F> {
        #[pin]
        future: F,
        entry: Entry,
    }
}

// === impl Tasks ===

impl Tasks {
    /// An owner without tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `future` as a task on the current runtime. A panic ends the task alone: it is logged
    /// as an error under `name` and counted.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place: the task is entered in the table of its owner"
    )]
    pub fn spawn<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let entry = Entry::new(&self.owner.shared, name);
        let id = entry.id;
        let handle = tokio::spawn(Owned { future, entry }).abort_handle();
        self.owner.shared.started(id, handle);
    }

    /// The number of tasks that have not ended.
    pub fn len(&self) -> usize {
        self.owner.shared.table().running.len()
    }

    /// Whether all tasks have ended.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of tasks that ended by a panic since the owner was made.
    pub fn panics(&self) -> u64 {
        self.owner.shared.panics.load(Ordering::Relaxed)
    }

    /// Waits until no task is left; with none, returns at once. Tasks may be spawned meanwhile, and
    /// then count too. Cancel-safe: a wait that is dropped and begun again misses nothing.
    pub async fn emptied(&self) {
        loop {
            // Made before the table is read: it is notified if the last task ends between the two.
            let emptied = self.owner.shared.empty.notified();
            if self.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    /// Waits until no task is left, but no longer than `limit`; returns whether none is left.
    /// The tasks that are left go on.
    pub async fn finish_within(&self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.emptied()).await.is_ok()
    }

    /// Aborts every task: its future is dropped instead of being polled again. Returns the number
    /// of tasks. New tasks may be spawned afterwards.
    pub fn abort_all(&self) -> usize {
        self.owner.shared.abort_all()
    }
}

// === impl Owner ===

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.abort_all();
    }
}

// === impl Shared ===

impl Shared {
    /// Stores the handle of a task, unless the task has ended in the meantime.
    fn started(&self, id: u64, handle: AbortHandle) {
        let aborted = match self.table().running.get_mut(&id) {
            None => return,
            Some(State::Aborted) => handle,
            Some(state) => {
                *state = State::Running(handle);
                return;
            }
        };
        aborted.abort();
    }

    fn ended(&self, id: u64) {
        let (state, empty) = {
            let mut table = self.table();
            let state = table.running.remove(&id);
            table.shrink();
            (state, table.running.is_empty())
        };
        drop(state);
        if empty {
            self.empty.notify_waiters();
        }
    }

    fn abort_all(&self) -> usize {
        let mut handles = Vec::new();
        let concerned = {
            let mut table = self.table();
            for state in table.running.values_mut() {
                match state {
                    State::Starting => *state = State::Aborted,
                    State::Running(handle) => handles.push(handle.clone()),
                    State::Aborted => {}
                }
            }
            table.running.len()
        };
        // Outside the lock: the runtime may drop a future at once, and its entry takes the lock.
        for handle in handles {
            handle.abort();
        }
        concerned
    }

    /// Every change under this lock is a single insert, remove or assignment, so a panic leaves
    /// the table consistent. No future is polled or dropped under it.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Table ===

impl Table {
    /// Halves the room that a burst has left. Rare enough to cost each task a few moves at most.
    fn shrink(&mut self) {
        let live = self.running.len();
        let capacity = self.running.capacity();
        if capacity > 2 * KEPT_CAPACITY && live < capacity / 8 {
            self.running.shrink_to(KEPT_CAPACITY.max(capacity / 4));
        }
    }
}

// === impl Entry ===

impl Entry {
    fn new(shared: &Arc<Shared>, name: &'static str) -> Self {
        let mut table = shared.table();
        table.last_id += 1;
        let id = table.last_id;
        table.running.insert(id, State::Starting);
        drop(table);
        Self {
            id,
            name,
            shared: Arc::clone(shared),
        }
    }

    fn panicked(&self, payload: &(dyn Any + Send)) {
        self.shared.panics.fetch_add(1, Ordering::Relaxed);
        let message = panic_message(payload);
        error!(task = self.name, "a task panicked: {message}");
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.shared.ended(self.id);
    }
}

// === impl Owned ===

impl<F: Future<Output = ()>> Future for Owned<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        // The runtime catches panics too, but reports them to the JoinHandle only, which is gone.
        // A future that panicked is not polled again.
        let polled = panic::catch_unwind(AssertUnwindSafe(|| this.future.poll(context)));
        polled.unwrap_or_else(|payload| {
            this.entry.panicked(&*payload);
            Poll::Ready(())
        })
    }
}

/// The message given to `panic!`, if it is text.
fn panic_message(payload: &(dyn Any + Send)) -> &str {
    match payload.downcast_ref::<&'static str>() {
        Some(message) => message,
        None => payload
            .downcast_ref::<String>()
            .map_or("no message", String::as_str),
    }
}

#[cfg(test)]
mod tests;
