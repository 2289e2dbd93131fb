//! The queue between the program and the thread that writes its log.
//!
//! Lines are collected in one buffer that the thread takes as a whole, with a pause between two
//! writes: a busy program pays for one copy per line instead of waking a thread.

use std::io::{self, ErrorKind, Write};
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Most bytes that wait for a slow stderr, and as many that are being written: about one second of
/// access lines under full load.
pub(super) const QUEUED_BYTES: usize = 2 * 1024 * 1024;

/// Pause after a write, in which lines are collected. The first line after a pause without lines
/// is written at once.
const FLUSH_INTERVAL: Duration = Duration::from_millis(10);

/// Memory that the buffers keep between bursts.
const KEPT_BYTES: usize = 64 * 1024;

/// Most time for writing the last lines.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Accepts lines from every thread; clones are the same queue.
#[derive(Debug, Clone)]
pub(super) struct Queue(Arc<Shared>);

/// When dropped, writes what is still queued, for at most [`FLUSH_TIMEOUT`]; later lines are lost.
#[derive(Debug)]
pub(super) struct Flush(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Notified of the first line while the thread sleeps, and of the end.
    lines: Condvar,
    /// Notified when the thread has written its last line.
    ended: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    /// The thread sleeps until it is notified of a line.
    sleeping: bool,
    closed: bool,
    ended: bool,
}

// === impl Queue ===

impl Queue {
    /// Starts a thread that writes to `output`.
    ///
    /// # Errors
    /// When the system refuses the thread.
    pub(super) fn start(output: impl Write + Send + 'static) -> io::Result<(Self, Flush)> {
        let shared = Arc::<Shared>::default();
        let writer = Arc::clone(&shared);
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || writer.write(output))?;
        Ok((Self(Arc::clone(&shared)), Flush(shared)))
    }

    /// Lines that were dropped because the queue was full or stderr was closed.
    pub(super) fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

impl MakeWriter<'_> for Queue {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Write for Queue {
    /// Called with one whole line at a time, which is queued or dropped as a whole.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.0.state();
        let queued = state.waiting.len() + line.len();
        if state.closed || queued > QUEUED_BYTES {
            drop(state);
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            return Ok(line.len());
        }
        if queued > state.waiting.capacity() {
            let doubled = (2 * state.waiting.capacity()).clamp(queued, QUEUED_BYTES);
            let more = doubled - state.waiting.len();
            state.waiting.reserve_exact(more);
        }
        state.waiting.extend_from_slice(line);
        let slept = mem::take(&mut state.sleeping);
        drop(state);
        if slept {
            self.0.lines.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// === impl Flush ===

impl Drop for Flush {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.closed = true;
        self.0.lines.notify_one();
        // A blocked stderr must not delay the end of the program for longer.
        let ended = self
            .0
            .ended
            .wait_timeout_while(state, FLUSH_TIMEOUT, |state| !state.ended);
        drop(ended.unwrap_or_else(PoisonError::into_inner));
    }
}

// === impl Shared ===

impl Shared {
    /// The body of the thread: writes until the queue is closed and empty.
    fn write(&self, mut output: impl Write) {
        let mut lines = Vec::new();
        while self.take(&mut lines) {
            let lost = write_lines(&mut output, &lines);
            self.dropped.fetch_add(lost, Ordering::Relaxed);
            lines.clear();
            lines.shrink_to(KEPT_BYTES);
            let pause = self
                .lines
                .wait_timeout_while(self.state(), FLUSH_INTERVAL, |state| !state.closed);
            drop(pause.unwrap_or_else(PoisonError::into_inner));
        }
        self.state().ended = true;
        self.ended.notify_all();
    }

    /// Waits for lines and swaps them with the empty buffer; false once the queue is closed and
    /// empty.
    fn take(&self, empty: &mut Vec<u8>) -> bool {
        let mut state = self.state();
        while state.waiting.is_empty() && !state.closed {
            state.sleeping = true;
            state = self
                .lines
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.sleeping = false;
        mem::swap(&mut state.waiting, empty);
        !empty.is_empty()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is consistent after each statement under the lock, so also after a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes all lines, without a time limit; returns how many were lost because a write failed.
fn write_lines(output: &mut impl Write, mut lines: &[u8]) -> u64 {
    while !lines.is_empty() {
        match output.write(lines) {
            Ok(written) if written > 0 => lines = &lines[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Another process that shares stderr may have made it non-blocking.
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(FLUSH_INTERVAL),
            // Stderr is closed, so the loss cannot be logged; a metric counts it.
            Ok(_) | Err(_) => break,
        }
    }
    let lost = lines.iter().filter(|&&byte| byte == b'\n').count();
    u64::try_from(lost).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::mpsc::{self, Receiver, Sender};

    use super::*;

    /// Hands on what is written, and goes on once it is allowed to.
    struct Gate {
        written: Sender<Vec<u8>>,
        go_on: Receiver<()>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.written.send(bytes.to_vec()).ok();
            self.go_on.recv().ok();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated() -> (Queue, Flush, Receiver<Vec<u8>>, Sender<()>) {
        let (written, writes) = mpsc::channel();
        let (allow, go_on) = mpsc::channel();
        let (queue, flush) = Queue::start(Gate { written, go_on }).unwrap();
        (queue, flush, writes, allow)
    }

    const LIMIT: Duration = Duration::from_secs(10);

    #[test]
    fn lines_are_collected_during_a_write_and_keep_their_order() {
        let (mut queue, flush, writes, allow) = gated();
        queue.write_all(b"first\n").unwrap();
        assert_eq!(writes.recv_timeout(LIMIT).unwrap(), b"first\n");
        queue.write_all(b"second\n").unwrap();
        queue.clone().write_all(b"third\n").unwrap();
        allow.send(()).unwrap();
        assert_eq!(writes.recv_timeout(LIMIT).unwrap(), b"second\nthird\n");
        allow.send(()).unwrap();
        drop(flush);
        assert_eq!(queue.dropped(), 0);
    }

    #[test]
    fn the_end_writes_what_is_queued_and_loses_what_comes_later() {
        let (mut queue, flush, writes, allow) = gated();
        drop(allow);
        for number in 0..100 {
            writeln!(queue, "{number}").unwrap();
        }
        drop(flush);
        let written: Vec<u8> = writes.try_iter().flatten().collect();
        let lines = String::from_utf8(written).unwrap();
        assert!(lines.lines().eq((0..100).map(|number| number.to_string())));
        queue.write_all(b"late\n").unwrap();
        assert_eq!(queue.dropped(), 1);
    }

    #[test]
    fn a_blocked_output_delays_neither_the_program_nor_its_end() {
        let (mut queue, flush, writes, allow) = gated();
        queue.write_all(b"stuck\n").unwrap();
        writes.recv_timeout(LIMIT).unwrap();
        let line = [b'x'; 1024];
        for _ in 0..QUEUED_BYTES / line.len() + 3 {
            queue.write_all(&line).unwrap();
        }
        assert_eq!(queue.dropped(), 3);
        drop(flush);
        drop(allow);
    }

    /// Answers writes from a script, and keeps what was written.
    struct Scripted {
        answers: VecDeque<io::Result<usize>>,
        taken: Vec<u8>,
    }

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let length = self.answers.pop_front().unwrap_or(Ok(bytes.len()))?;
            self.taken.extend_from_slice(&bytes[..length]);
            Ok(length)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_write_leaves_is_written_later_or_counted() {
        let failed = |kind: ErrorKind| Err(io::Error::from(kind));
        for (answers, taken, lost) in [
            (vec![Ok(1), Ok(4)], "one\ntwo\nthree\n", 0),
            (vec![failed(ErrorKind::Interrupted)], "one\ntwo\nthree\n", 0),
            (
                vec![
                    Ok(2),
                    failed(ErrorKind::WouldBlock),
                    failed(ErrorKind::WouldBlock),
                ],
                "one\ntwo\nthree\n",
                0,
            ),
            (vec![failed(ErrorKind::BrokenPipe)], "", 3),
            (vec![Ok(5), failed(ErrorKind::StorageFull)], "one\nt", 2),
            (vec![Ok(8), Ok(0)], "one\ntwo\n", 1),
        ] {
            let mut output = Scripted {
                answers: answers.into(),
                taken: Vec::new(),
            };
            assert_eq!(write_lines(&mut output, b"one\ntwo\nthree\n"), lost);
            assert_eq!(output.taken, taken.as_bytes());
        }
    }

    #[test]
    fn a_full_queue_holds_no_more_than_its_bound() {
        let (mut queue, flush, writes, allow) = gated();
        queue.write_all(b"stuck\n").unwrap();
        writes.recv_timeout(LIMIT).unwrap();
        while queue.dropped() == 0 {
            queue.write_all(&[b'x'; 777]).unwrap();
        }
        assert!(queue.0.state().waiting.capacity() <= QUEUED_BYTES);
        drop((allow, flush));
    }
}
