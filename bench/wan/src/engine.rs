//! Carries packets between two TUN devices as two [`Lane`]s say, on a thread of its own.
//!
//! Packets are taken and handed over in batches, some hundred microseconds apart: each is a little
//! early or late, and the rate is exact in the long run because lanes compute in moments of their
//! own. The thread sleeps between batches, it never spins.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, ErrorKind, PipeReader, PipeWriter};
use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::{process, thread as kernel};
use tappers::Tun;

use crate::counters::Counters;
use crate::lane::{Fate, Lane};
use crate::link::Link;
use crate::packet;

/// While packets come they are moved this often, or [`DELAY_SHARE`] of a short delay: few enough
/// wake-ups to cost a tenth of a core.
const PAUSES: RangeInclusive<Duration> = Duration::from_micros(50)..=Duration::from_micros(200);

/// A pause is so small a part of the delay that nobody notices it.
const DELAY_SHARE: u32 = 20;

/// A packet is handed over this much before its time, but never before three quarters of the
/// delay: what waking up takes here, twice for each packet, so that on average it is on time.
const LEAD: Duration = Duration::from_micros(200);

/// Longer sleeps end late, as a core that has nothing to do for longer is slower to wake up: they
/// end this much early, and a short one follows.
const DOZE: Duration = Duration::from_micros(500);

/// Packets that are taken from a device before the other one has its turn.
const BATCH: usize = 256;

/// No IP packet is larger.
const MAX_PACKET: usize = 65_535;

/// The best that a thread may have: it needs little, but at once.
const NICE: i32 = -20;

/// The ends of a link, and the ways between them: index 0 is from near to far.
const WAYS: [usize; 2] = [0, 1];

/// A running link; it stops when this is dropped.
#[derive(Debug)]
pub struct Engine {
    counters: Arc<Mutex<[Counters; 2]>>,
    /// The thread ends when its end of this pipe is closed.
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<io::Result<()>>>,
    /// The thread's number, as `/proc` knows it.
    number: i32,
}

/// The thread's own.
struct Courier {
    devices: [Tun; 2],
    lanes: [Lane; 2],
    /// What is under way, in the order of arrival.
    flights: [VecDeque<Parcel>; 2],
    /// Empty buffers for packets to come.
    spare: Vec<Vec<u8>>,
    scratch: Vec<u8>,
    pause: Duration,
    lead: Duration,
    clock: Instant,
    counters: Arc<Mutex<[Counters; 2]>>,
    stopped: PipeReader,
}

/// A packet under way.
struct Parcel {
    at: Duration,
    bytes: Vec<u8>,
}

// === impl Engine ===

impl Engine {
    /// Links two devices that are up: the near one and the far one.
    ///
    /// # Errors
    /// When the devices cannot be asked without waiting, or the thread cannot be started.
    pub fn start(link: &Link, devices: [Tun; 2]) -> io::Result<Self> {
        let mut devices = devices;
        for device in &mut devices {
            device.set_nonblocking(true)?;
        }
        let (stopped, stop) = io::pipe()?;
        let delay = link.there.delay.min(link.back.delay);
        let counters = Arc::<Mutex<[Counters; 2]>>::default();
        let mut courier = Courier {
            devices,
            // Two ways, two sequences: the seeds must differ for any seed.
            lanes: [
                Lane::new(link.there, link.seed),
                Lane::new(link.back, !link.seed),
            ],
            flights: [VecDeque::new(), VecDeque::new()],
            spare: Vec::new(),
            scratch: vec![0; MAX_PACKET],
            pause: (delay / DELAY_SHARE).clamp(*PAUSES.start(), *PAUSES.end()),
            lead: LEAD.min(delay / 4),
            clock: Instant::now(),
            counters: Arc::clone(&counters),
            stopped,
        };
        let (tell, told) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name("wan".to_owned())
            .spawn(move || {
                tell.send(kernel::gettid().as_raw_nonzero().get())
                    .map_err(io::Error::other)?;
                courier.run()
            })?;
        Ok(Self {
            counters,
            stop: Some(stop),
            thread: Some(thread),
            number: told.recv().map_err(io::Error::other)?,
        })
    }

    /// The CPU time that the link has taken so far. What the receiving kernel does with a packet
    /// is part of it, as it is done on this thread.
    ///
    /// # Errors
    /// When the thread has ended.
    pub fn cpu_time(&self) -> io::Result<Duration> {
        let text = fs::read_to_string(format!("/proc/self/task/{}/schedstat", self.number))?;
        let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
        let nanos = nanos.ok_or_else(|| io::Error::other("schedstat has no number"))?;
        Ok(Duration::from_nanos(nanos))
    }

    /// What both ways have done so far: near to far, then far to near.
    pub fn counters(&self) -> [Counters; 2] {
        self.counters
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Stops the thread and waits for its end.
    ///
    /// # Errors
    /// What the thread had ended with before.
    pub fn stop(&mut self) -> io::Result<()> {
        drop(self.stop.take());
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(_panic)) => Err(io::Error::other("the link's thread panicked")),
            Some(Ok(ended)) => ended,
            None => Ok(()),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Whoever wants to know how it ended has called `stop`.
        self.stop().unwrap_or_default();
    }
}

// === impl Courier ===

impl Courier {
    fn run(&mut self) -> io::Result<()> {
        // Linux keeps both for each thread. Root may have them; late wake-ups are counted anyway.
        process::setpriority_process(None, NICE)?;
        kernel::set_current_timer_slack(NonZeroU64::new(1))?;
        loop {
            let moved = self.turn()?;
            if !self.rest(moved)? {
                return Ok(());
            }
        }
    }

    /// Hands over what is due and takes what has come, and says whether there was anything.
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
        while let Some(parcel) =
            self.flights[way].pop_front_if(|parcel| parcel.at <= now + self.lead)
        {
            match self.devices[1 - way].send(&parcel.bytes) {
                Ok(length) => {
                    counters.packets += 1;
                    counters.bytes += u64::try_from(length).unwrap_or(0);
                    counters.late.add(now.saturating_sub(parcel.at));
                }
                // A device that is down, or a kernel without memory: as on a real link, the
                // packet is gone.
                Err(_) => counters.refused += 1,
            }
            self.spare.push(parcel.bytes);
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
            let packet = &mut self.scratch[..length];
            match self.lanes[way].offer(now, length) {
                Fate::Lost => counters.lost += 1,
                Fate::Overflowed => counters.overflowed += 1,
                Fate::Delivered { at, waited, marked } => {
                    counters.waited.add(waited);
                    counters.marked += u64::from(marked && packet::mark(packet));
                    let mut bytes = self.spare.pop().unwrap_or_default();
                    bytes.clear();
                    bytes.extend_from_slice(packet);
                    self.flights[way].push_back(Parcel { at, bytes });
                }
            }
        }
        Ok(true)
    }

    /// Sleeps until there may be something to do; false when it is time to stop.
    fn rest(&self, moved: bool) -> io::Result<bool> {
        let next = self.flights.iter().filter_map(|flight| flight.front());
        let pause = next.map(|parcel| self.until(parcel.at)).min();
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

    /// How long to sleep for something at that moment, or for a first part of it.
    fn until(&self, at: Duration) -> Duration {
        let left = at.saturating_sub(self.clock.elapsed() + self.lead);
        match left.checked_sub(DOZE) {
            Some(deep) if deep > DOZE => deep,
            _ => left,
        }
    }
}
