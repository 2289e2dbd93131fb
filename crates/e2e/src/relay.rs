//! A UDP relay between agents and server that loses, doubles, delays and reorders datagrams.
//!
//! Both directions pass through the same [`Impairment`]. Each agent gets a socket of its own
//! towards the server, as behind a NAT, so the server sees one peer for each agent.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Datagrams that one direction of a flow delays at a time; more are lost, as in any queue.
const QUEUE: usize = 1_024;

/// The largest datagram.
const DATAGRAM: usize = 65_535;

/// Socket buffer, large enough that only the random generator loses datagrams.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// What is done to datagrams; the rates are per thousand.
#[derive(Debug, Clone, Copy)]
pub struct Impairment {
    /// The seed; each direction of a flow has a random generator of its own.
    pub seed: u64,
    /// Lost.
    pub lost: u16,
    /// Delivered twice.
    pub doubled: u16,
    /// Delayed, so that later ones overtake.
    pub delayed: u16,
    /// The longest delay.
    pub delay: Duration,
}

/// Counts of datagrams so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Toll {
    /// Datagrams received.
    pub received: u64,
    /// Lost on purpose.
    pub lost: u64,
    /// Delivered twice.
    pub doubled: u64,
    /// Delayed.
    pub delayed: u64,
    /// Lost because the queue was full.
    pub overflowed: u64,
}

/// The relay; dropping it ends it.
#[derive(Debug)]
pub struct Relay {
    /// What agents dial instead of the server.
    pub address: SocketAddr,
    counts: Arc<Counts>,
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Counts {
    received: AtomicU64,
    lost: AtomicU64,
    doubled: AtomicU64,
    delayed: AtomicU64,
    overflowed: AtomicU64,
}

/// One direction of a flow: its random generator, and the delayed datagrams.
struct Way {
    impairment: Impairment,
    random: fastrand::Rng,
    counts: Arc<Counts>,
    /// By due time, then in the order of arrival.
    held: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>>,
    last: u64,
}

// === impl Impairment ===

impl Impairment {
    /// Two datagrams of a hundred are lost, two overtaken, one doubled.
    pub fn rough(seed: u64) -> Self {
        Self {
            seed,
            lost: 20,
            doubled: 10,
            delayed: 20,
            delay: Duration::from_millis(4),
        }
    }
}

// === impl Relay ===

impl Relay {
    /// Relays between a free port of loopback and `server`.
    ///
    /// # Panics
    /// When loopback has no port left.
    pub fn start(server: SocketAddr, impairment: Impairment) -> Self {
        let socket = Arc::new(open().expect("a free port"));
        let address = socket.local_addr().expect("an address");
        let counts = Arc::<Counts>::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(relay(socket, server, impairment, Arc::clone(&counts)));
        Self {
            address,
            counts,
            _tasks: tasks,
        }
    }

    /// The counts so far, both directions together.
    pub fn toll(&self) -> Toll {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Toll {
            received: of(&self.counts.received),
            lost: of(&self.counts.lost),
            doubled: of(&self.counts.doubled),
            delayed: of(&self.counts.delayed),
            overflowed: of(&self.counts.overflowed),
        }
    }
}

// === impl Way ===

impl Way {
    /// Decides at random what happens to one datagram.
    fn take(&mut self, datagram: &[u8], now: Instant) {
        one_more(&self.counts.received);
        if self.happens(self.impairment.lost) {
            return one_more(&self.counts.lost);
        }
        let copies = if self.happens(self.impairment.doubled) {
            one_more(&self.counts.doubled);
            2
        } else {
            1
        };
        for _ in 0..copies {
            let mut due = now;
            if self.happens(self.impairment.delayed) {
                one_more(&self.counts.delayed);
                due += self.impairment.delay.mul_f32(self.random.f32());
            }
            if self.held.len() == QUEUE {
                return one_more(&self.counts.overflowed);
            }
            self.last += 1;
            self.held.push(Reverse((due, self.last, datagram.to_vec())));
        }
    }

    fn happens(&mut self, of_a_thousand: u16) -> bool {
        self.random.u16(..1_000) < of_a_thousand
    }

    /// When the next datagram is due.
    fn next_due(&self) -> Option<Instant> {
        self.held.peek().map(|Reverse((due, ..))| *due)
    }

    /// The next datagram, if it is due.
    fn due(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.next_due().filter(|due| *due <= now)?;
        self.held.pop().map(|Reverse((.., datagram))| datagram)
    }
}

/// Gives each agent a flow of its own, by the source of its datagrams.
async fn relay(
    agents: Arc<UdpSocket>,
    server: SocketAddr,
    impairment: Impairment,
    counts: Arc<Counts>,
) {
    let mut flows: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut datagram = vec![0; DATAGRAM];
    loop {
        // An error is that of a datagram sent earlier, to an agent that is gone.
        let Ok((length, agent)) = agents.recv_from(&mut datagram).await else {
            continue;
        };
        let number = u64::try_from(flows.len()).expect("a usize fits into 64 bits");
        let flow = flows.entry(agent).or_insert_with(|| {
            let (flow, from_agent) = mpsc::channel(QUEUE);
            let way = |direction| Way {
                impairment,
                random: fastrand::Rng::with_seed(impairment.seed + 2 * number + direction),
                counts: Arc::clone(&counts),
                held: BinaryHeap::new(),
                last: 0,
            };
            let agents = Arc::clone(&agents);
            let upstream = Arc::new(open().expect("a free port"));
            tasks.spawn(towards_server(
                from_agent,
                Arc::clone(&upstream),
                server,
                way(0),
            ));
            tasks.spawn(towards_agent(upstream, agents, agent, way(1)));
            flow
        });
        if flow.try_send(datagram[..length].to_vec()).is_err() {
            one_more(&counts.overflowed);
        }
    }
}

async fn towards_server(
    mut from_agent: mpsc::Receiver<Vec<u8>>,
    upstream: Arc<UdpSocket>,
    server: SocketAddr,
    mut way: Way,
) {
    loop {
        tokio::select! {
            datagram = from_agent.recv() => match datagram {
                Some(datagram) => way.take(&datagram, Instant::now()),
                None => return,
            },
            () = until(way.next_due()) => {}
        }
        deliver(&mut way, &upstream, server).await;
    }
}

async fn towards_agent(
    upstream: Arc<UdpSocket>,
    agents: Arc<UdpSocket>,
    agent: SocketAddr,
    mut way: Way,
) {
    let mut datagram = vec![0; DATAGRAM];
    loop {
        tokio::select! {
            received = upstream.recv_from(&mut datagram) => if let Ok((length, _)) = received {
                way.take(&datagram[..length], Instant::now());
            },
            () = until(way.next_due()) => {}
        }
        deliver(&mut way, &agents, agent).await;
    }
}

/// Sends what is due; a datagram that the system refuses is lost.
async fn deliver(way: &mut Way, socket: &UdpSocket, to: SocketAddr) {
    while let Some(datagram) = way.due(Instant::now()) {
        socket.send_to(&datagram, to).await.ok();
    }
}

/// Waits for ever if nothing is delayed.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

fn open() -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    UdpSocket::from_std(socket.into())
}

fn one_more(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}
