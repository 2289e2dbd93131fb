//! Busy polling: the process stays awake between the messages of a quick conversation.
//!
//! Where a message answers the one before, every process on its way sleeps and is woken for each.
//! That takes longer than the work itself, and costs about as much CPU as looking again and again
//! until the message is there. So whoever sees turns follow each other quickly looks again for a
//! bounded time before it sleeps, as a hypervisor does with an idle guest (Linux `halt_poll_ns`).
//!
//! Other processes come first: between two looks the thread offers its core to them.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::Instant;

/// Changes of direction after which a tunnel carries a conversation: a request and its answer on a
/// tunnel of their own do not.
const CONVERSATION: u8 = 8;

/// Turns that must follow each other quickly before it is worth to stay awake: a lone request with
/// a quick answer makes one.
const QUICK_TURNS: u32 = 2;

/// A turn that came within this many times the limit is quick: one that nobody stayed awake for
/// comes later by the time of some wake-ups.
const ASLEEP: u32 = 2;

/// Whose turn it is in one tunnel.
#[derive(Debug, Default)]
pub(crate) struct Conversation {
    from_socket: bool,
    turns: u8,
}

/// The turns of all tunnels of a process.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    taken: AtomicU64,
    one_taken: Notify,
    polls: AtomicU64,
}

// === impl Conversation ===

impl Conversation {
    /// Notes that bytes came, from the socket or else from the stream; says whether that was a
    /// turn of a conversation.
    pub(crate) fn takes_turn(&mut self, from_socket: bool) -> bool {
        if self.from_socket == from_socket {
            return false;
        }
        self.from_socket = from_socket;
        self.turns = self.turns.saturating_add(1);
        self.turns >= CONVERSATION
    }
}

// === impl Turns ===

impl Turns {
    /// Counts a turn.
    pub(crate) fn take(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
        self.one_taken.notify_one();
    }

    /// Looks for a next message that found none, since the start.
    pub(crate) fn polls(&self) -> u64 {
        self.polls.load(Ordering::Relaxed)
    }

    /// Keeps the runtime of the calling task awake for at most `limit` after each turn, while
    /// turns follow each other quickly.
    pub(crate) async fn poll_busily(&self, limit: Duration) -> Infallible {
        let (mut seen, mut last, mut quick) = (0, Instant::now(), 0);
        loop {
            while self.taken() == seen {
                self.one_taken.notified().await;
            }
            seen = self.taken();
            let pause = last.elapsed();
            last = Instant::now();
            quick = if pause <= limit * ASLEEP {
                quick + 1
            } else {
                0
            };
            if quick >= QUICK_TURNS {
                (seen, last) = self.stay_awake(limit, seen).await;
                quick = 0;
            }
        }
    }

    /// Until no turn was taken for `limit`; returns how many were then, and since when.
    async fn stay_awake(&self, limit: Duration, mut seen: u64) -> (u64, Instant) {
        let mut idle = None;
        loop {
            // The runtime looks at all sockets, without waiting, before it goes on here.
            yield_now().await;
            let taken = self.taken();
            if taken != seen {
                seen = taken;
                idle = None;
                continue;
            }
            self.polls.fetch_add(1, Ordering::Relaxed);
            let since = *idle.get_or_insert_with(Instant::now);
            if since.elapsed() > limit {
                return (seen, since);
            }
            thread::yield_now();
        }
    }

    fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use tokio::select;
    use tokio::time::advance;

    use super::*;

    const LIMIT: Duration = Duration::from_micros(100);

    #[test]
    fn a_conversation_is_many_changes_of_direction() {
        let mut conversation = Conversation::default();
        for turn in 1..CONVERSATION {
            assert!(!conversation.takes_turn(turn % 2 == 1), "{turn}");
        }
        assert!(conversation.takes_turn(false));
        assert!(!conversation.takes_turn(false), "more of the same");
        for turn in 0..1_000 {
            assert!(conversation.takes_turn(turn % 2 == 0), "{turn}");
        }
    }

    /// Whether the runtime is kept awake.
    async fn is_awake(turns: &Turns) -> bool {
        yield_now().await;
        let before = turns.polls();
        yield_now().await;
        yield_now().await;
        turns.polls() > before
    }

    /// Takes a turn after each of `pauses`; says after which of them the runtime is kept awake.
    async fn awake_after(pauses: &[Duration]) -> Vec<bool> {
        let turns = Turns::default();
        let script = async {
            let mut awake = Vec::new();
            for pause in pauses {
                advance(*pause).await;
                turns.take();
                awake.push(is_awake(&turns).await);
            }
            awake
        };
        select! {
            biased;
            never = turns.poll_busily(LIMIT) => match never {},
            awake = script => awake,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_turns_that_follow_quickly_keep_it_awake() {
        let (quick, slow) = (LIMIT, LIMIT * 3);
        for (pauses, expected) in [
            (
                vec![slow, quick, quick, quick],
                vec![false, false, true, true],
            ),
            (vec![slow; 4], vec![false; 4]),
            // Requests now and then with quick answers.
            (vec![slow, quick, slow, quick, slow, quick], vec![false; 6]),
            // Too late for those who stayed awake; those who sleep are given longer.
            (
                vec![slow, quick, quick, slow, LIMIT * 2, LIMIT * 2],
                vec![false, false, true, false, false, true],
            ),
        ] {
            assert_eq!(awake_after(&pauses).await, expected, "{pauses:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_sleeps_when_no_turn_comes() {
        let turns = Turns::default();
        let script = async {
            for _ in 0..QUICK_TURNS {
                turns.take();
                yield_now().await;
            }
            assert!(is_awake(&turns).await);
            advance(LIMIT).await;
            assert!(is_awake(&turns).await, "at the limit");
            advance(LIMIT / 100).await;
            yield_now().await;
            assert!(!is_awake(&turns).await, "beyond it");
        };
        select! {
            biased;
            never = turns.poll_busily(LIMIT) => match never {},
            () = script => {}
        }
    }
}
