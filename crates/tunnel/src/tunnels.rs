//! The live tunnels of a process: how many, how many bytes, which are stalled, and who ends them.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use tracing::warn;

use crate::busy_poll::Turns;
use crate::figure::Figure;
use towline_protocol::code::StreamCode;

/// Every live tunnel of this process; clones share it.
///
/// Tunnels whose reader has stopped pin one stream window each. When they would pin more than the
/// budget, the one that has been stalled longest is reset with [`StreamCode::Overload`].
#[derive(Clone)]
pub struct Tunnels(Arc<Inner>);

struct Inner {
    table: Mutex<Table>,
    stream_window: u64,
    stall_budget: u64,
    to_target: AtomicU64,
    to_client: AtomicU64,
    overloads: AtomicU64,
    turns: Turns,
}

#[derive(Default)]
struct Table {
    next: u64,
    live: HashMap<u64, Arc<Abort>>,
    /// In the order in which they stalled: the key counts up.
    stalled: std::collections::BTreeMap<u64, Arc<Abort>>,
}

/// The way in which a tunnel is told to end.
#[derive(Default)]
struct Abort {
    /// Zero while nobody asked; otherwise a [`StreamCode`] on the wire plus one.
    code: AtomicU32,
    waker: Mutex<Option<Waker>>,
}

/// One tunnel's place among [`Tunnels`]; leaves on drop.
pub struct Seat {
    tunnels: Tunnels,
    abort: Arc<Abort>,
    key: u64,
    stalled: Option<u64>,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the target.
    ToTarget,
    /// From the target to the client.
    ToClient,
}

/// A moment's count over all tunnels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Tunnels open now.
    pub live: usize,
    /// Tunnels whose reader takes nothing at this moment.
    pub stalled: usize,
    /// Bytes from clients to targets since the start.
    pub to_target: u64,
    /// Bytes from targets to clients since the start.
    pub to_client: u64,
    /// Tunnels reset since the start because the stall budget was used up.
    pub overloads: u64,
    /// Looks for a next message since the start that found none, by [`Tunnels::poll_busily`].
    pub busy_polls: u64,
}

// === impl Traffic ===

impl Traffic {
    /// Every number there is.
    pub const FIGURES: [Figure<Self, u64>; 6] = [
        Figure {
            name: "tunnels_open",
            help: "Tunnels open",
            grows: false,
            read: |traffic| u64::try_from(traffic.live).unwrap_or(u64::MAX),
        },
        Figure {
            name: "tunnels_stalled",
            help: "Tunnels whose reader on this side takes nothing",
            grows: false,
            read: |traffic| u64::try_from(traffic.stalled).unwrap_or(u64::MAX),
        },
        Figure {
            name: "overloads",
            help: "Tunnels reset for the stall budget",
            grows: true,
            read: |traffic| traffic.overloads,
        },
        Figure {
            name: "to_target_bytes",
            help: "Bytes from clients to targets",
            grows: true,
            read: |traffic| traffic.to_target,
        },
        Figure {
            name: "to_client_bytes",
            help: "Bytes from targets to clients",
            grows: true,
            read: |traffic| traffic.to_client,
        },
        Figure {
            name: "busy_polls",
            help: "Looks for the next message of a quick conversation that found none",
            grows: true,
            read: |traffic| traffic.busy_polls,
        },
    ];
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

// === impl Tunnels ===

impl Tunnels {
    /// No tunnels yet; each may pin `stream_window` bytes, all together `stall_budget`.
    pub fn new(stream_window: u64, stall_budget: u64) -> Self {
        Self(Arc::new(Inner {
            table: Mutex::default(),
            stream_window,
            stall_budget,
            to_target: AtomicU64::new(0),
            to_client: AtomicU64::new(0),
            overloads: AtomicU64::new(0),
            turns: Turns::default(),
        }))
    }

    /// Takes a place for a new tunnel.
    pub fn take_seat(&self) -> Seat {
        let abort = Arc::<Abort>::default();
        let mut table = self.table();
        table.next += 1;
        let key = table.next;
        table.live.insert(key, Arc::clone(&abort));
        drop(table);
        Seat {
            tunnels: self.clone(),
            abort,
            key,
            stalled: None,
        }
    }

    /// Tells every live tunnel to end with `code`; returns how many there were.
    pub fn abort_all(&self, code: StreamCode) -> usize {
        let live: Vec<_> = self.table().live.values().cloned().collect();
        for abort in &live {
            abort.ask(code);
        }
        live.len()
    }

    /// The counts of this moment.
    pub fn traffic(&self) -> Traffic {
        let table = self.table();
        Traffic {
            live: table.live.len(),
            stalled: table.stalled.len(),
            to_target: self.0.to_target.load(Ordering::Relaxed),
            to_client: self.0.to_client.load(Ordering::Relaxed),
            overloads: self.0.overloads.load(Ordering::Relaxed),
            busy_polls: self.0.turns.polls(),
        }
    }

    /// While tunnels carry quick conversations, keeps the runtime of the calling task from sleeping
    /// for up to `limit` after each message: the next one finds it awake. Never ends; stops when
    /// dropped. To be polled by a task of its own, which is polled all the while.
    pub async fn poll_busily(&self, limit: Duration) -> Infallible {
        self.0.turns.poll_busily(limit).await
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // The table is never left half changed, so a panic elsewhere does not spoil it.
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Tunnels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tunnels").field(&self.traffic()).finish()
    }
}

// === impl Seat ===

impl Seat {
    /// Counts bytes that were passed on.
    pub(crate) fn count(&self, direction: Direction, bytes: u64) {
        let counter = match direction {
            Direction::ToTarget => &self.tunnels.0.to_target,
            Direction::ToClient => &self.tunnels.0.to_client,
        };
        counter.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The code with which somebody asked this tunnel to end; else the task is woken when one does.
    pub(crate) fn poll_abort(&self, cx: &Context<'_>) -> Option<StreamCode> {
        self.abort.poll(cx)
    }

    /// A turn was taken in a conversation.
    pub(crate) fn turn(&self) {
        self.tunnels.0.turns.take();
    }

    /// The local reader takes nothing: one stream window is pinned from now on.
    pub(crate) fn stall(&mut self) {
        if self.stalled.is_some() {
            return;
        }
        let mut table = self.tunnels.table();
        table.next += 1;
        let since = table.next;
        table.stalled.insert(since, Arc::clone(&self.abort));
        self.stalled = Some(since);
        let pinned = u64::try_from(table.stalled.len())
            .unwrap_or(u64::MAX)
            .saturating_mul(self.tunnels.0.stream_window);
        let victim = (pinned > self.tunnels.0.stall_budget)
            .then(|| table.stalled.pop_first())
            .flatten();
        drop(table);
        if let Some((_, abort)) = victim {
            let before = self.tunnels.0.overloads.fetch_add(1, Ordering::Relaxed);
            // The first, second, fourth … so that a flood of them is no flood of lines.
            if (before + 1).is_power_of_two() {
                warn!(
                    resets = before + 1,
                    "stalled tunnels use up the stall budget: the longest-stalled is reset"
                );
            }
            abort.ask(StreamCode::Overload);
        }
    }

    /// The local reader takes bytes again.
    pub(crate) fn unstall(&mut self) {
        if let Some(since) = self.stalled.take() {
            self.tunnels.table().stalled.remove(&since);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.unstall();
        self.tunnels.table().live.remove(&self.key);
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

// === impl Abort ===

impl Abort {
    fn ask(&self, code: StreamCode) {
        self.code
            .store(u32::from(code).saturating_add(1), Ordering::Release);
        if let Some(waker) = self.waker().take() {
            waker.wake();
        }
    }

    fn poll(&self, cx: &Context<'_>) -> Option<StreamCode> {
        let mut waker = self.waker();
        if let Some(wire) = self.code.load(Ordering::Acquire).checked_sub(1) {
            return Some(StreamCode::from_wire(wire.into()));
        }
        match &*waker {
            Some(known) if known.will_wake(cx.waker()) => {}
            _ => *waker = Some(cx.waker().clone()),
        }
        None
    }

    fn waker(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::{Traffic, Tunnels};
    use towline_protocol::code::StreamCode;

    #[test]
    fn the_longest_stalled_tunnel_pays_when_the_budget_is_used_up() {
        let cx = Context::from_waker(Waker::noop());
        let tunnels = Tunnels::new(2, 4);
        let mut seats: Vec<_> = (0..3).map(|_| tunnels.take_seat()).collect();
        seats[0].stall();
        seats[1].stall();
        seats[0].unstall();
        seats[0].stall();
        assert_eq!(tunnels.traffic().overloads, 0, "two windows fit the budget");
        seats[2].stall();
        assert_eq!(seats[1].poll_abort(&cx), Some(StreamCode::Overload));
        assert_eq!(seats[0].poll_abort(&cx), None);
        assert_eq!(seats[2].poll_abort(&cx), None);
        assert_eq!(tunnels.traffic().overloads, 1);
    }

    #[test]
    fn a_seat_leaves_nothing_behind() {
        let tunnels = Tunnels::new(2, 4);
        let mut seat = tunnels.take_seat();
        seat.stall();
        drop(seat);
        assert_eq!(tunnels.traffic(), Traffic::default());
    }

    #[test]
    fn everybody_is_told_to_end() {
        let cx = Context::from_waker(Waker::noop());
        let tunnels = Tunnels::new(2, 4);
        let seats: Vec<_> = (0..3).map(|_| tunnels.take_seat()).collect();
        assert_eq!(tunnels.abort_all(StreamCode::Draining), 3);
        for seat in &seats {
            assert_eq!(seat.poll_abort(&cx), Some(StreamCode::Draining));
        }
    }
}
