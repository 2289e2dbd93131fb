//! The live tunnels of a process: how many there are, how many bytes they moved, which are
//! stalled; and how they are told to end.

mod abort;
mod stall_budget;

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use towline_protocol::code::StreamCode;
use tracing::warn;

use crate::args::TableConfig;
use crate::busy_poller::Activity;
use crate::tunnel_table::abort::Abort;
use crate::tunnel_table::stall_budget::StallBudget;

/// Every live tunnel of this process; clones share it.
///
/// Tunnels whose reader has stopped pin one stream window each. When they would pin more than the
/// budget, the one that has been stalled longest is reset with [`StreamCode::Overload`].
#[derive(Clone)]
pub struct TunnelTable(Arc<Inner>);

struct Inner {
    table: Mutex<Table>,
    busy_poll: Duration,
    to_target: AtomicU64,
    to_client: AtomicU64,
    stalled_resets: AtomicU64,
    activity: Activity,
}

#[derive(Default)]
struct Table {
    next: u64,
    /// Tunnels that carry payload; the others among `live` are being opened.
    open: usize,
    live: HashMap<u64, Arc<Abort>>,
    stalled: StallBudget,
}

/// One tunnel's entry in a [`TunnelTable`], from before its first wait to its end; dropping it
/// removes the entry.
pub struct TunnelGuard {
    table: TunnelTable,
    abort: Arc<Abort>,
    key: u64,
    open: bool,
    stalled: Option<u64>,
    bytes: TunnelStats,
}

/// The payload that one tunnel has moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TunnelStats {
    /// Bytes from the client to the target.
    pub to_target: u64,
    /// Bytes from the target to the client.
    pub to_client: u64,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the target.
    ToTarget,
    /// From the target to the client.
    ToClient,
}

/// The counts over all tunnels at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableStats {
    /// Tunnels registered now, those included that are being opened.
    pub live: usize,
    /// Tunnels that carry payload now.
    pub open: usize,
    /// Tunnels whose local reader takes nothing now.
    pub stalled: usize,
    /// Bytes from clients to targets since the start.
    pub to_target: u64,
    /// Bytes from targets to clients since the start.
    pub to_client: u64,
    /// Tunnels reset since the start because the stall budget was used up.
    pub stalled_resets: u64,
    /// Polls since the start that found no message, by [`TunnelTable::poll_busily`].
    pub busy_polls: u64,
}

// === impl Direction ===

impl Direction {
    /// The other way.
    pub(crate) fn opposite(self) -> Self {
        match self {
            Self::ToTarget => Self::ToClient,
            Self::ToClient => Self::ToTarget,
        }
    }
}

// === impl TunnelTable ===

impl TunnelTable {
    /// An empty table.
    pub fn new(config: &TableConfig) -> Self {
        Self(Arc::new(Inner {
            table: Mutex::new(Table {
                stalled: StallBudget::new(config.stream_window, config.stall_budget),
                ..Table::default()
            }),
            busy_poll: config.busy_poll,
            to_target: AtomicU64::new(0),
            to_client: AtomicU64::new(0),
            stalled_resets: AtomicU64::new(0),
            activity: Activity::default(),
        }))
    }

    /// Registers a new tunnel.
    pub fn register(&self) -> TunnelGuard {
        let abort = Arc::<Abort>::default();
        let mut table = self.lock();
        table.next += 1;
        let key = table.next;
        table.live.insert(key, Arc::clone(&abort));
        drop(table);
        TunnelGuard {
            table: self.clone(),
            abort,
            key,
            open: false,
            stalled: None,
            bytes: TunnelStats::default(),
        }
    }

    /// Tells every live tunnel to end with `code`; returns how many there were.
    pub fn abort_all(&self, code: StreamCode) -> usize {
        let live: Vec<_> = self.lock().live.values().cloned().collect();
        for abort in &live {
            abort.set(code);
        }
        live.len()
    }

    /// The counts of this moment.
    pub fn stats(&self) -> TableStats {
        let table = self.lock();
        TableStats {
            live: table.live.len(),
            open: table.open,
            stalled: table.stalled.len(),
            to_target: self.0.to_target.load(Ordering::Relaxed),
            to_client: self.0.to_client.load(Ordering::Relaxed),
            stalled_resets: self.0.stalled_resets.load(Ordering::Relaxed),
            busy_polls: self.0.activity.polls(),
        }
    }

    /// While interactive tunnels exchange messages, polls for as long as configured after each
    /// message in place of sleeping. Never ends unless busy polling is disabled; stops when
    /// dropped. Needs a task of its own.
    pub async fn poll_busily(&self) {
        let limit = self.0.busy_poll;
        if !limit.is_zero() {
            match self.0.activity.poll_busily(limit).await {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // The table is never left half changed, so a panic elsewhere does not spoil it.
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for TunnelTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TunnelTable").field(&self.stats()).finish()
    }
}

// === impl TunnelGuard ===

impl TunnelGuard {
    /// The tunnel carries payload from now on.
    pub(crate) fn set_open(&mut self) {
        if !std::mem::replace(&mut self.open, true) {
            self.table.lock().open += 1;
        }
    }

    /// Counts bytes that were passed on.
    pub(crate) fn count(&mut self, direction: Direction, bytes: u64) {
        let (total, own) = match direction {
            Direction::ToTarget => (&self.table.0.to_target, &mut self.bytes.to_target),
            Direction::ToClient => (&self.table.0.to_client, &mut self.bytes.to_client),
        };
        total.fetch_add(bytes, Ordering::Relaxed);
        *own += bytes;
    }

    /// The payload that this tunnel has moved so far.
    pub fn stats(&self) -> TunnelStats {
        self.bytes
    }

    /// Waits until this tunnel is told to end; returns with which code. Cancel-safe.
    pub fn aborted(&self) -> impl Future<Output = StreamCode> + Send + use<> {
        let abort = Arc::clone(&self.abort);
        poll_fn(move |cx| match abort.poll(cx) {
            Some(code) => Poll::Ready(code),
            None => Poll::Pending,
        })
    }

    /// The code with which this tunnel was told to end; else the task is woken when it is told.
    pub(crate) fn poll_abort(&self, cx: &Context<'_>) -> Option<StreamCode> {
        self.abort.poll(cx)
    }

    /// A message of an interactive tunnel was read.
    pub(crate) fn note_message(&self) {
        self.table.0.activity.note();
    }

    /// The local reader takes nothing: one stream window is pinned from now on.
    pub(crate) fn stall(&mut self) {
        if self.stalled.is_some() {
            return;
        }
        let (key, victim) = self.table.lock().stalled.stall(&self.abort);
        self.stalled = Some(key);
        if let Some(victim) = victim {
            let before = self.table.0.stalled_resets.fetch_add(1, Ordering::Relaxed);
            // The first, second, fourth … so that a flood of them is no flood of lines.
            if (before + 1).is_power_of_two() {
                warn!(
                    resets = before + 1,
                    "stall budget used up, reset the tunnel that was stalled longest"
                );
            }
            victim.set(StreamCode::Overload);
        }
    }

    /// The local reader takes bytes again.
    pub(crate) fn unstall(&mut self) {
        if let Some(key) = self.stalled.take() {
            self.table.lock().stalled.unstall(key);
        }
    }
}

impl Drop for TunnelGuard {
    fn drop(&mut self) {
        self.unstall();
        let mut table = self.table.lock();
        table.live.remove(&self.key);
        table.open -= usize::from(self.open);
    }
}

impl fmt::Debug for TunnelGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelGuard")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use towline_protocol::code::StreamCode;

    use super::{TableStats, TunnelTable};
    use crate::args::TableConfig;

    fn two_windows() -> TunnelTable {
        TunnelTable::new(&TableConfig {
            stream_window: 2,
            stall_budget: 4,
            ..TableConfig::default()
        })
    }

    #[test]
    fn the_longest_stalled_tunnel_pays_when_the_budget_is_used_up() {
        let cx = Context::from_waker(Waker::noop());
        let table = two_windows();
        let mut guards: Vec<_> = (0..3).map(|_| table.register()).collect();
        guards[0].stall();
        guards[1].stall();
        guards[0].unstall();
        guards[0].stall();
        assert_eq!(
            table.stats().stalled_resets,
            0,
            "two windows fit the budget"
        );
        guards[2].stall();
        assert_eq!(guards[1].poll_abort(&cx), Some(StreamCode::Overload));
        assert_eq!(guards[0].poll_abort(&cx), None);
        assert_eq!(guards[2].poll_abort(&cx), None);
        assert_eq!(table.stats().stalled_resets, 1);
    }

    #[test]
    fn a_guard_leaves_nothing_behind() {
        let table = two_windows();
        let mut guard = table.register();
        guard.stall();
        drop(guard);
        assert_eq!(table.stats(), TableStats::default());
    }

    #[test]
    fn every_tunnel_is_told_to_end() {
        let cx = Context::from_waker(Waker::noop());
        let table = two_windows();
        let guards: Vec<_> = (0..3).map(|_| table.register()).collect();
        assert_eq!(table.abort_all(StreamCode::Draining), 3);
        for guard in &guards {
            assert_eq!(guard.poll_abort(&cx), Some(StreamCode::Draining));
        }
    }
}
