//! Busy polling between the messages of an interactive tunnel, in place of sleeping.
//!
//! Where each message answers the one before, every process on the path sleeps and is woken for
//! each. The wake-ups take longer than the work itself, and cost about as much CPU as polling until
//! the message is there. So a process that sees messages follow each other quickly polls for a
//! bounded time before it sleeps, as a hypervisor does with an idle guest (Linux `halt_poll_ns`).
//!
//! Other processes have priority: between two polls the thread yields its core to them.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::Instant;

/// Changes of direction after which a tunnel is interactive: a request and its answer on a tunnel of
/// their own are not enough.
const INTERACTIVE: u8 = 8;

/// Messages that must follow each other quickly before polling pays: a lone request with a quick
/// answer makes one.
const QUICK_MESSAGES: u32 = 2;

/// A message within this many times the limit is quick: without polling it comes later by the time
/// of some wake-ups.
const WAKE_UP_ALLOWANCE: u32 = 2;

/// Finds out whether a tunnel is interactive: its bytes change direction again and again.
#[derive(Debug, Default)]
pub(crate) struct InteractiveDetector {
    from_socket: bool,
    changes: u8,
}

/// The messages of all interactive tunnels of a process.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    messages: AtomicU64,
    notify: Notify,
    polls: AtomicU64,
}

// === impl InteractiveDetector ===

impl InteractiveDetector {
    /// Notes that bytes were read, from the socket or else from the stream; says whether that was a
    /// message of an interactive tunnel.
    pub(crate) fn note_read(&mut self, from_socket: bool) -> bool {
        if self.from_socket == from_socket {
            return false;
        }
        self.from_socket = from_socket;
        self.changes = self.changes.saturating_add(1);
        self.changes >= INTERACTIVE
    }
}

// === impl Activity ===

impl Activity {
    /// Counts a message.
    pub(crate) fn note(&self) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.notify.notify_one();
    }

    /// Polls since the start that found no message.
    pub(crate) fn polls(&self) -> u64 {
        self.polls.load(Ordering::Relaxed)
    }

    /// Polls for at most `limit` after each message, while messages follow each other quickly.
    pub(crate) async fn poll_busily(&self, limit: Duration) -> Infallible {
        let (mut seen, mut last, mut quick) = (0, Instant::now(), 0);
        loop {
            while self.messages() == seen {
                self.notify.notified().await;
            }
            seen = self.messages();
            let pause = last.elapsed();
            last = Instant::now();
            quick = if pause <= limit * WAKE_UP_ALLOWANCE {
                quick + 1
            } else {
                0
            };
            if quick >= QUICK_MESSAGES {
                (seen, last) = self.spin(limit, seen).await;
                quick = 0;
            }
        }
    }

    /// Polls until no message has come for `limit`; returns how many had come, and since when none
    /// has.
    async fn spin(&self, limit: Duration, mut seen: u64) -> (u64, Instant) {
        let mut idle = None;
        loop {
            // The runtime polls all sockets, without waiting, before it resumes this task.
            yield_now().await;
            let messages = self.messages();
            if messages != seen {
                seen = messages;
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

    fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use tokio::select;
    use tokio::time::advance;

    use super::*;

    const LIMIT: Duration = Duration::from_micros(100);

    #[test]
    fn an_interactive_tunnel_changes_direction_many_times() {
        let mut detector = InteractiveDetector::default();
        for read in 1..INTERACTIVE {
            assert!(!detector.note_read(read % 2 == 1), "{read}");
        }
        assert!(detector.note_read(false));
        assert!(!detector.note_read(false), "more of the same");
        for read in 0..1_000 {
            assert!(detector.note_read(read % 2 == 0), "{read}");
        }
    }

    /// Whether it polls now.
    async fn is_spinning(activity: &Activity) -> bool {
        yield_now().await;
        let before = activity.polls();
        yield_now().await;
        yield_now().await;
        activity.polls() > before
    }

    /// Notes a message after each of `pauses`; says after which of them it polls.
    async fn spinning_after(pauses: &[Duration]) -> Vec<bool> {
        let turns = Activity::default();
        let script = async {
            let mut spinning = Vec::new();
            for pause in pauses {
                advance(*pause).await;
                turns.note();
                spinning.push(is_spinning(&turns).await);
            }
            spinning
        };
        select! {
            biased;
            never = turns.poll_busily(LIMIT) => match never {},
            spinning = script => spinning,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_messages_that_follow_quickly_make_it_poll() {
        let (quick, slow) = (LIMIT, LIMIT * 3);
        for (pauses, expected) in [
            (
                vec![slow, quick, quick, quick],
                vec![false, false, true, true],
            ),
            (vec![slow; 4], vec![false; 4]),
            // Requests now and then with quick answers.
            (vec![slow, quick, slow, quick, slow, quick], vec![false; 6]),
            // Too late for a poller; a sleeper is given longer.
            (
                vec![slow, quick, quick, slow, LIMIT * 2, LIMIT * 2],
                vec![false, false, true, false, false, true],
            ),
        ] {
            assert_eq!(spinning_after(&pauses).await, expected, "{pauses:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_sleeps_when_no_message_comes() {
        let turns = Activity::default();
        let script = async {
            for _ in 0..QUICK_MESSAGES {
                turns.note();
                yield_now().await;
            }
            assert!(is_spinning(&turns).await);
            advance(LIMIT).await;
            assert!(is_spinning(&turns).await, "at the limit");
            advance(LIMIT / 100).await;
            yield_now().await;
            assert!(!is_spinning(&turns).await, "beyond it");
        };
        select! {
            biased;
            never = turns.poll_busily(LIMIT) => match never {},
            () = script => {}
        }
    }
}
