//! Carries packets between two TUN devices as two [`Shaper`]s decide, on a thread of its own.
//!
//! Packets are taken and handed over in batches, some hundred microseconds apart: each is a little
//! early or late, and the rate is exact in the long run because shapers compute with times of their
//! own. The thread sleeps between batches.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, PipeReader, PipeWriter};
use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::{process, thread as kernel};
use tappers::Tun;

use super::Link;
use super::shaper::{Fate, Shaper};

/// While packets come they are moved this often, or [`DELAY_SHARE`] of a short delay: few enough
/// wake-ups to cost a tenth of a core.
const PAUSES: RangeInclusive<Duration> = Duration::from_micros(50)..=Duration::from_micros(200);

/// A pause is this part of the delay at most, which changes no measurement.
const DELAY_SHARE: u32 = 20;

/// A packet is handed over this much before its time, but never before three quarters of the
/// delay: as long as waking up takes, twice for each packet, so that on average it is on time.
const LEAD: Duration = Duration::from_micros(200);

/// Longer sleeps end late, as a core that is idle for longer is slower to wake up: they end this
/// much early, and a short one follows.
const SHORT_SLEEP: Duration = Duration::from_micros(500);

/// Packets that are taken from a device before the other one is read.
const BATCH: usize = 256;

/// Width of a step of [`Counters::late`], which is finer than a thread can sleep, and the number of
/// steps: what is later than a second is in the last.
const STEP: Duration = Duration::from_micros(50);
const STEPS: usize = 20_000;

/// No IP packet is larger.
const MAX_PACKET: usize = 65_535;

/// The highest priority: the thread needs little time, but at once.
const NICE: i32 = -20;

/// The directions of a link, and the devices from which they start: index 0 is near to far.
const WAYS: [usize; 2] = [0, 1];

/// What a link has done so far in one direction.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    /// Packets that arrived.
    pub packets: u64,
    /// Packets that were lost at random.
    pub lost: u64,
    /// Packets that found the queue full.
    pub overflowed: u64,
    /// How many packets were handed over how much later than computed, in steps of [`STEP`].
    late: Vec<u64>,
}

/// A running link; it stops when this is dropped.
#[derive(Debug)]
pub struct Forwarder {
    counters: Arc<Mutex<[Counters; 2]>>,
    /// The thread ends when its end of this pipe is closed.
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

/// The thread's state.
struct Worker {
    devices: [Tun; 2],
    shapers: [Shaper; 2],
    /// Packets that travel, in the order of arrival.
    travelling: [VecDeque<Packet>; 2],
    /// Empty buffers for packets to come.
    spare: Vec<Vec<u8>>,
    scratch: Vec<u8>,
    pause: Duration,
    lead: Duration,
    clock: Instant,
    counters: Arc<Mutex<[Counters; 2]>>,
    stopped: PipeReader,
}

/// A packet that travels.
struct Packet {
    at: Duration,
    bytes: Vec<u8>,
}

// === impl Counters ===

impl Counters {
    /// Packets that were offered.
    pub fn offered(&self) -> u64 {
        self.packets + self.lost + self.overflowed
    }

    /// How much later than computed packets were handed over, p99 to a step: whether the thread
    /// kept up.
    pub fn late(&self) -> Duration {
        let rank = (self.packets * 99).div_ceil(100).max(1);
        let mut seen = 0;
        let mut steps = (1..).zip(&self.late);
        let step = steps.find(|(_, count)| {
            seen += *count;
            seen >= rank
        });
        step.map_or(Duration::ZERO, |(bound, _)| STEP * bound)
    }

    fn delivered(&mut self, late: Duration) {
        let step = usize::try_from(late.as_micros() / STEP.as_micros()).unwrap_or(STEPS);
        self.late.resize(STEPS, 0);
        self.late[step.min(STEPS - 1)] += 1;
        self.packets += 1;
    }
}

// === impl Forwarder ===

impl Forwarder {
    /// Starts the thread between two devices that are up: the near one and the far one.
    pub fn start(link: &Link, devices: [Tun; 2]) -> io::Result<Self> {
        let mut devices = devices;
        for device in &mut devices {
            device.set_nonblocking(true)?;
        }
        let (stopped, stop) = io::pipe()?;
        let counters = Arc::<Mutex<[Counters; 2]>>::default();
        let mut worker = Worker {
            devices,
            // Two directions, two sequences: the seeds must differ for any seed.
            shapers: [Shaper::new(link, link.seed), Shaper::new(link, !link.seed)],
            travelling: [VecDeque::new(), VecDeque::new()],
            spare: Vec::new(),
            scratch: vec![0; MAX_PACKET],
            pause: (link.delay / DELAY_SHARE).clamp(*PAUSES.start(), *PAUSES.end()),
            lead: LEAD.min(link.delay / 4),
            clock: Instant::now(),
            counters: Arc::clone(&counters),
            stopped,
        };
        let thread = thread::Builder::new().name("link".to_owned());
        let thread = thread.spawn(move || worker.run())?;
        Ok(Self {
            counters,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// What both directions have done so far: near to far, then far to near.
    pub fn counters(&self) -> [Counters; 2] {
        self.counters
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Stops the thread and waits for its end.
    pub fn stop(&mut self) -> io::Result<()> {
        drop(self.stop.take());
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(_panic)) => Err(io::Error::other("the link's thread panicked")),
            Some(Ok(ended)) => ended,
            None => Ok(()),
        }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        // `stop` was called before where the error matters.
        self.stop().unwrap_or_default();
    }
}

// === impl Worker ===

impl Worker {
    fn run(&mut self) -> io::Result<()> {
        // Linux has both for each thread.
        process::setpriority_process(None, NICE)?;
        kernel::set_current_timer_slack(NonZeroU64::new(1))?;
        loop {
            let moved = self.turn()?;
            if !self.rest(moved)? {
                return Ok(());
            }
        }
    }

    /// Hands over what is due and takes what has come; returns whether there was anything.
    fn turn(&mut self) -> io::Result<bool> {
        let counters = Arc::clone(&self.counters);
        let mut counters = counters.lock().unwrap_or_else(PoisonError::into_inner);
        let mut moved = false;
        for way in WAYS {
            moved |= self.deliver(way, &mut counters[way]);
            moved |= self.collect(way, &mut counters[way])?;
        }
        Ok(moved)
    }

    fn deliver(&mut self, way: usize, counters: &mut Counters) -> bool {
        let now = self.clock.elapsed();
        let mut moved = false;
        while let Some(packet) =
            self.travelling[way].pop_front_if(|packet| packet.at <= now + self.lead)
        {
            match self.devices[1 - way].send(&packet.bytes) {
                Ok(_) => counters.delivered(now.saturating_sub(packet.at)),
                // A device that is down, or a kernel without memory: as on a real link, the
                // packet is gone.
                Err(_) => counters.lost += 1,
            }
            self.spare.push(packet.bytes);
            moved = true;
        }
        moved
    }

    fn collect(&mut self, way: usize, counters: &mut Counters) -> io::Result<bool> {
        let now = self.clock.elapsed();
        for taken in 0..BATCH {
            let length = match self.devices[way].recv(&mut self.scratch) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(taken > 0),
                Err(error) => return Err(error),
            };
            match self.shapers[way].offer(now, length) {
                Fate::Lost => counters.lost += 1,
                Fate::Overflowed => counters.overflowed += 1,
                Fate::Arrives(at) => {
                    let mut bytes = self.spare.pop().unwrap_or_default();
                    bytes.clear();
                    bytes.extend_from_slice(&self.scratch[..length]);
                    self.travelling[way].push_back(Packet { at, bytes });
                }
            }
        }
        Ok(true)
    }

    /// Sleeps until there may be something to do; false once the pipe is closed.
    fn rest(&self, moved: bool) -> io::Result<bool> {
        let next = self.travelling.iter().filter_map(|queue| queue.front());
        let pause = next.map(|packet| self.until(packet.at)).min();
        let mut waits = vec![PollFd::new(&self.stopped, PollFlags::IN)];
        let pause = if moved {
            Some(self.pause)
        } else {
            let devices = self.devices.iter();
            waits.extend(devices.map(|device| PollFd::new(device, PollFlags::IN)));
            pause
        };
        let pause = pause.map(|pause| Timespec {
            tv_sec: pause.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: pause.subsec_nanos().into(),
        });
        match poll(&mut waits, pause.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(waits[0].revents().is_empty()),
            Err(error) => Err(error.into()),
        }
    }

    /// How long to sleep for something at that time, or for a first part of it.
    fn until(&self, at: Duration) -> Duration {
        let left = at.saturating_sub(self.clock.elapsed() + self.lead);
        match left.checked_sub(SHORT_SLEEP) {
            Some(long) if long > SHORT_SLEEP => long,
            _ => left,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lateness_is_exact_to_a_step() {
        let mut counters = Counters::default();
        assert_eq!(counters.late(), Duration::ZERO);
        for millisecond in 0..100 {
            counters.delivered(Duration::from_millis(millisecond));
        }
        assert_eq!(counters.late(), Duration::from_millis(98) + STEP);
    }
}
