//! A path and its senders as events in virtual time: a bottleneck with a queue, delay, loss, marks and
//! changes of the route; senders that pace, count and detect losses as quinn does (RFC 9002).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use fastrand::Rng;

/// Payload of a datagram, in every test but those of the MTU.
pub(crate) const DATAGRAM: u64 = 1452;

/// How long a receiver may hold back the acknowledgement of a single packet.
const ACK_DELAY: Duration = Duration::from_millis(25);

/// A time or a span of it.
pub(crate) fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// A time or a span of it.
pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What a sender asks its congestion controller.
pub(crate) trait Control {
    /// A packet was just sent.
    fn on_sent(&mut self, _now: Instant) {}
    /// One packet was acknowledged.
    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool);
    /// All packets of one acknowledgement are told.
    fn on_acks_end(&mut self, now: Instant, in_flight: u64);
    /// Packets were lost.
    fn on_loss(&mut self, now: Instant, sent: Instant, bytes: u64, persistent: bool);
    /// Packets were marked by the queue.
    fn on_mark(&mut self, now: Instant, sent: Instant);
    /// Bytes that may be on their way.
    fn window(&self) -> u64;
    /// Bytes a second at which to send.
    fn pace(&self, smoothed_rtt: Duration) -> f64;
    /// Whether it gave up on a short queue; ours only.
    fn is_competing(&self) -> bool {
        false
    }
}

/// How a medium loses packets.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Loss {
    None,
    /// Each packet alone, with this probability.
    Random(f64),
    /// Whole runs of packets: the share that is lost, and the mean length of a run.
    Bursts(f64, f64),
}

/// A bottleneck and the way to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    pub(crate) mbit: f64,
    pub(crate) one_way: Duration,
    /// The longest delay that the queue makes before it drops.
    pub(crate) queue: Duration,
    pub(crate) loss: Loss,
    /// The delay of the queue from which it marks packets.
    pub(crate) mark: Option<Duration>,
    /// The most that a packet is delayed beyond, by chance, without changing the order.
    pub(crate) jitter: Duration,
}

/// What a sender has to send.
#[derive(Clone, Copy)]
pub(crate) enum Source {
    Endless,
    Bytes(u64),
    /// So many bytes every so often.
    Bursts(u64, Duration),
}

/// A simulation.
pub(crate) struct Simulation {
    now: Duration,
    epoch: Instant,
    link: Link,
    rng: Rng,
    bursting: bool,
    free_at: Duration,
    last_arrival: Duration,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    serial: u64,
    flows: Vec<Flow>,
    links: Vec<Link>,
    sources: Vec<(usize, Source)>,
    queue: Vec<(Duration, Duration)>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive(usize, u64, bool),
    AckTimer(usize, u64),
    Acked(usize, Vec<u64>, bool),
    Pace(usize, u64),
    PtoTimer(usize, u64),
    Produce(usize, u32),
    SetLink(usize),
    SetSource(usize),
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    InFlight,
    Settled,
}

struct Sent {
    at: Duration,
    bytes: u64,
    state: State,
}

struct Flow {
    control: Box<dyn Control>,
    source: Source,
    available: u64,
    /// How often the source was replaced.
    source_changes: u32,
    extra_rtt: Duration,
    // Sender.
    sent: VecDeque<Sent>,
    first: u64,
    in_flight: u64,
    largest_acked: Option<u64>,
    smoothed_rtt: Option<Duration>,
    rtt_var: Duration,
    latest_rtt: Duration,
    app_limited: bool,
    pacing_tokens: f64,
    paced_at: Duration,
    pace_timer: u64,
    pto_timer: u64,
    pto_count: u32,
    // Receiver.
    expected: u64,
    pending: Vec<u64>,
    pending_mark: bool,
    ack_timer: u64,
    // Record.
    delivered: Vec<u64>,
    finished: Option<Duration>,
    lost: u64,
    sent_packets: u64,
    windows: Vec<(Duration, u64)>,
    /// When it began to compete, and when it ceased, in turns.
    competing_since: Vec<Duration>,
}

/// The grain of the record of throughput.
const BIN: Duration = Duration::from_millis(50);

impl Link {
    pub(crate) fn new(mbit: f64, one_way: u64, queue: u64) -> Self {
        Self {
            mbit,
            one_way: Duration::from_millis(one_way),
            queue: Duration::from_millis(queue),
            loss: Loss::None,
            mark: None,
            jitter: Duration::ZERO,
        }
    }

    pub(crate) fn loss(self, loss: Loss) -> Self {
        Self { loss, ..self }
    }
}

impl Simulation {
    pub(crate) fn new(link: Link, seed: u64) -> Self {
        Self {
            now: Duration::ZERO,
            epoch: Instant::now(),
            link,
            rng: Rng::with_seed(seed),
            bursting: false,
            free_at: Duration::ZERO,
            last_arrival: Duration::ZERO,
            events: BinaryHeap::new(),
            serial: 0,
            flows: Vec::new(),
            links: Vec::new(),
            sources: Vec::new(),
            queue: Vec::new(),
        }
    }

    /// Adds a sender that begins at `start`.
    pub(crate) fn add_flow(
        &mut self,
        control: Box<dyn Control>,
        source: Source,
        start: Duration,
    ) -> usize {
        self.add_flow_with_extra_rtt(control, source, start, Duration::ZERO)
    }

    /// Adds a sender whose round trip is longer by `extra_rtt`.
    pub(crate) fn add_flow_with_extra_rtt(
        &mut self,
        control: Box<dyn Control>,
        source: Source,
        start: Duration,
        extra_rtt: Duration,
    ) -> usize {
        let flow = self.flows.len();
        self.flows.push(Flow::new(control, source, extra_rtt));
        self.schedule(start, Event::Produce(flow, 0));
        flow
    }

    /// Changes the path at a time.
    pub(crate) fn set_link_at(&mut self, at: Duration, link: Link) {
        self.links.push(link);
        self.schedule(at, Event::SetLink(self.links.len() - 1));
    }

    /// Gives a sender something else to send from a time on.
    pub(crate) fn set_source_at(&mut self, flow: usize, at: Duration, source: Source) {
        self.sources.push((flow, source));
        self.schedule(at, Event::SetSource(self.sources.len() - 1));
    }

    /// Jain's index of the shares of all senders: 1 if they are equal, 1/n if one has it all.
    pub(crate) fn fairness(&self, from: Duration, to: Duration) -> f64 {
        let rates: Vec<f64> = (0..self.flows.len())
            .map(|flow| self.mbit(flow, from, to))
            .collect();
        let squares: f64 = rates.iter().map(|rate| rate * rate).sum();
        rates.iter().sum::<f64>().powi(2) / (rates.len() as f64 * squares)
    }

    /// The window of a sender at a time, in datagrams.
    pub(crate) fn window(&self, flow: usize, at: Duration) -> u64 {
        let windows = &self.flows[flow].windows;
        let before = windows.partition_point(|(set, _)| *set <= at);
        before
            .checked_sub(1)
            .map_or(0, |last| windows[last].1 / DATAGRAM)
    }

    pub(crate) fn run(&mut self, until: Duration) {
        while let Some(Reverse((at, serial, event))) = self.events.pop() {
            if at > until {
                self.events.push(Reverse((at, serial, event)));
                break;
            }
            self.now = at;
            self.step(event);
        }
        self.now = until;
    }

    /// Megabits a second that arrived in a span of time.
    pub(crate) fn mbit(&self, flow: usize, from: Duration, to: Duration) -> f64 {
        let bin = |at: Duration| (at.as_nanos() / BIN.as_nanos()) as usize;
        let delivered = &self.flows[flow].delivered;
        let bytes: u64 = (bin(from)..bin(to))
            .filter_map(|bin| delivered.get(bin))
            .sum();
        bytes as f64 * 8.0 / 1e6 / (to - from).as_secs_f64()
    }

    /// The share of a span of time in which a sender competed.
    pub(crate) fn competing(&self, flow: usize, from: Duration, to: Duration) -> f64 {
        let spent: Duration = self.flows[flow]
            .competing_since
            .chunks(2)
            .map(|interval| {
                let end = interval.get(1).copied().unwrap_or(to);
                end.clamp(from, to) - interval[0].clamp(from, to)
            })
            .sum();
        spent.as_secs_f64() / (to - from).as_secs_f64()
    }

    /// How often a window changed in a span of time.
    pub(crate) fn window_changes(&self, flow: usize, from: Duration, to: Duration) -> usize {
        let within = |&&(at, _): &&(Duration, u64)| (from..to).contains(&at);
        self.flows[flow].windows.iter().filter(within).count()
    }

    /// When everything had been acknowledged.
    pub(crate) fn finished(&self, flow: usize) -> Option<Duration> {
        self.flows[flow].finished
    }

    pub(crate) fn lost(&self, flow: usize) -> u64 {
        self.flows[flow].lost
    }

    pub(crate) fn sent(&self, flow: usize) -> u64 {
        self.flows[flow].sent_packets
    }

    /// The delay of the queue that a share of the packets did not exceed, in milliseconds.
    pub(crate) fn queue_delay_ms(&self, share: f64, from: Duration, to: Duration) -> f64 {
        let mut delays: Vec<Duration> = self
            .queue
            .iter()
            .filter(|(at, _)| (from..to).contains(at))
            .map(|(_, delay)| *delay)
            .collect();
        delays.sort();
        let at = ((delays.len() as f64 * share) as usize).min(delays.len().saturating_sub(1));
        delays
            .get(at)
            .map_or(0.0, |delay| delay.as_secs_f64() * 1e3)
    }

    fn schedule(&mut self, at: Duration, event: Event) {
        self.serial += 1;
        self.events.push(Reverse((at, self.serial, event)));
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Arrive(flow, packet, marked) => self.arrive(flow, packet, marked),
            Event::AckTimer(flow, timer) => {
                if self.flows[flow].ack_timer == timer {
                    self.acknowledge(flow);
                }
            }
            Event::Acked(flow, packets, marked) => {
                self.acked(flow, &packets, marked);
                self.send(flow);
            }
            Event::Pace(flow, timer) => {
                if self.flows[flow].pace_timer == timer {
                    self.send(flow);
                }
            }
            Event::PtoTimer(flow, timer) => {
                if self.flows[flow].pto_timer == timer {
                    self.on_pto(flow);
                }
            }
            Event::Produce(flow, change) => {
                self.produce(flow, change);
                self.send(flow);
            }
            Event::SetLink(change) => self.link = self.links[change],
            Event::SetSource(change) => {
                let (flow, source) = self.sources[change];
                self.flows[flow].source = source;
                self.flows[flow].available = 0;
                self.flows[flow].source_changes += 1;
                self.produce(flow, self.flows[flow].source_changes);
                self.send(flow);
            }
        }
    }

    fn produce(&mut self, id: usize, change: u32) {
        let flow = &mut self.flows[id];
        if change != flow.source_changes {
            return;
        }
        match flow.source {
            Source::Endless => flow.available = u64::MAX / 2,
            Source::Bytes(bytes) => flow.available = bytes,
            Source::Bursts(bytes, every) => {
                flow.available += bytes;
                self.schedule(self.now + every, Event::Produce(id, change));
            }
        }
    }

    fn send(&mut self, id: usize) {
        loop {
            let now = self.now;
            let flow = &mut self.flows[id];
            if flow.available == 0 {
                flow.app_limited = true;
                break;
            }
            let window = flow.control.window();
            flow.app_limited = false;
            if flow.in_flight + DATAGRAM >= window {
                break;
            }
            let rtt = flow.smoothed_rtt.unwrap_or(Duration::from_millis(100));
            let rate = flow.control.pace(rtt);
            let burst =
                (rate / 1.25 * 0.002).clamp(10.0 * DATAGRAM as f64, 256.0 * DATAGRAM as f64);
            let refill = rate * (now - flow.paced_at).as_secs_f64();
            flow.pacing_tokens = (flow.pacing_tokens + refill).min(burst);
            flow.paced_at = now;
            if flow.pacing_tokens < DATAGRAM as f64 {
                let wait = Duration::from_secs_f64((burst - flow.pacing_tokens) / rate);
                flow.pace_timer += 1;
                let timer = flow.pace_timer;
                self.schedule(
                    now + wait.max(Duration::from_micros(1)),
                    Event::Pace(id, timer),
                );
                break;
            }
            let bytes = flow.available.min(DATAGRAM);
            flow.pacing_tokens -= bytes as f64;
            flow.available -= bytes;
            self.transmit(id, bytes);
        }
        let flow = &mut self.flows[id];
        let last = flow.windows.last().map_or(0, |(_, window)| *window);
        if last != flow.control.window() {
            flow.windows.push((self.now, flow.control.window()));
        }
        if flow.control.is_competing() == flow.competing_since.len().is_multiple_of(2) {
            flow.competing_since.push(self.now);
        }
        self.arm_pto_timer(id);
    }

    fn transmit(&mut self, id: usize, bytes: u64) {
        let now = self.now;
        let flow = &mut self.flows[id];
        let packet = flow.first + flow.sent.len() as u64;
        flow.sent.push_back(Sent {
            at: now,
            bytes,
            state: State::InFlight,
        });
        flow.in_flight += bytes;
        flow.sent_packets += 1;
        flow.control.on_sent(self.epoch + now);
        let extra_rtt = flow.extra_rtt;
        if self.is_lost_at_random() {
            return;
        }
        let backlog = self.free_at.saturating_sub(now);
        if packet.is_multiple_of(8) {
            self.queue.push((now, backlog));
        }
        if backlog > self.link.queue {
            return;
        }
        let marked = self.link.mark.is_some_and(|mark| backlog > mark);
        let serialized =
            Duration::from_secs_f64((bytes + 28) as f64 * 8.0 / (self.link.mbit * 1e6));
        self.free_at = self.free_at.max(now) + serialized;
        let jitter = self.link.jitter.mul_f64(self.rng.f64());
        let arrival = (self.free_at + self.link.one_way + jitter).max(self.last_arrival);
        self.last_arrival = arrival;
        self.schedule(arrival + extra_rtt, Event::Arrive(id, packet, marked));
    }

    fn is_lost_at_random(&mut self) -> bool {
        match self.link.loss {
            Loss::None => false,
            Loss::Random(share) => self.rng.f64() < share,
            Loss::Bursts(share, run) => {
                let leave = 1.0 / run;
                let enter = share * leave / (1.0 - share);
                let change = if self.bursting { leave } else { enter };
                self.bursting ^= self.rng.f64() < change;
                self.bursting
            }
        }
    }

    fn arrive(&mut self, id: usize, packet: u64, marked: bool) {
        let flow = &mut self.flows[id];
        let in_order = packet == flow.expected;
        flow.expected = flow.expected.max(packet + 1);
        flow.pending.push(packet);
        flow.pending_mark |= marked;
        let bin = (self.now.as_nanos() / BIN.as_nanos()) as usize;
        if flow.delivered.len() <= bin {
            flow.delivered.resize(bin + 1, 0);
        }
        flow.delivered[bin] += flow.sent[(packet - flow.first) as usize].bytes;
        if !in_order || flow.pending.len() >= 2 {
            self.acknowledge(id);
        } else {
            flow.ack_timer += 1;
            let timer = flow.ack_timer;
            self.schedule(self.now + ACK_DELAY, Event::AckTimer(id, timer));
        }
    }

    fn acknowledge(&mut self, id: usize) {
        let back = self.now + self.link.one_way;
        let flow = &mut self.flows[id];
        flow.ack_timer += 1;
        let packets = std::mem::take(&mut flow.pending);
        let marked = std::mem::take(&mut flow.pending_mark);
        if !packets.is_empty() {
            self.schedule(back, Event::Acked(id, packets, marked));
        }
    }

    fn acked(&mut self, id: usize, packets: &[u64], marked: bool) {
        let (now, epoch) = (self.now, self.epoch);
        let flow = &mut self.flows[id];
        let mut largest = None;
        for &packet in packets {
            // What was taken for lost has left the record.
            let Some(index) = packet.checked_sub(flow.first) else {
                continue;
            };
            let sent = &mut flow.sent[index as usize];
            if sent.state == State::Settled {
                continue;
            }
            sent.state = State::Settled;
            flow.in_flight -= sent.bytes;
            largest = Some(sent.at);
            flow.control
                .on_ack(epoch + now, epoch + sent.at, sent.bytes, flow.app_limited);
        }
        let Some(largest_sent) = largest else { return };
        flow.control.on_acks_end(epoch + now, flow.in_flight);
        flow.largest_acked = flow.largest_acked.max(packets.iter().max().copied());
        flow.on_rtt(now - largest_sent);
        flow.pto_count = 0;
        self.detect_losses(id);
        let flow = &mut self.flows[id];
        if marked {
            flow.control.on_mark(epoch + now, epoch + largest_sent);
        }
        if flow.available == 0 && flow.in_flight == 0 && flow.finished.is_none() {
            flow.finished = Some(now);
        }
    }

    fn detect_losses(&mut self, id: usize) {
        let (now, epoch) = (self.now, self.epoch);
        let flow = &mut self.flows[id];
        let Some(largest) = flow.largest_acked else {
            return;
        };
        let loss_delay = flow.latest_rtt.max(flow.smoothed_rtt.unwrap_or_default()) * 9 / 8;
        let persistent_duration = flow.pto() * 3;
        let (mut bytes, mut last, mut run, mut persistent) = (0, None, None, false);
        for index in 0..=(largest.saturating_sub(flow.first) as usize) {
            let Some(sent) = flow.sent.get_mut(index) else {
                break;
            };
            let packet = flow.first + index as u64;
            if sent.state == State::Settled {
                run = None;
                continue;
            }
            if packet + 3 <= largest || now - sent.at >= loss_delay {
                sent.state = State::Settled;
                bytes += sent.bytes;
                last = Some(sent.at);
                let start = *run.get_or_insert(sent.at);
                persistent |= sent.at - start > persistent_duration;
                flow.lost += 1;
            }
        }
        while flow
            .sent
            .front()
            .is_some_and(|sent| sent.state == State::Settled)
        {
            flow.sent.pop_front();
            flow.first += 1;
        }
        if let Some(last) = last {
            flow.in_flight -= bytes;
            flow.available = flow.available.saturating_add(bytes);
            flow.control
                .on_loss(epoch + now, epoch + last, bytes, persistent);
        }
    }

    fn arm_pto_timer(&mut self, id: usize) {
        let flow = &mut self.flows[id];
        flow.pto_timer += 1;
        if flow.in_flight == 0 {
            return;
        }
        let timer = flow.pto_timer;
        // An early loss timer matters for the tail only, and the tail waits for the timeout here.
        let at = self.now + flow.pto() * 2u32.saturating_pow(flow.pto_count);
        self.schedule(at, Event::PtoTimer(id, timer));
    }

    fn on_pto(&mut self, id: usize) {
        let flow = &mut self.flows[id];
        flow.pto_count = (flow.pto_count + 1).min(6);
        // A probe carries what was sent before; here it is one datagram more.
        flow.available = flow.available.saturating_sub(DATAGRAM);
        self.transmit(id, DATAGRAM);
        self.arm_pto_timer(id);
    }
}

impl Flow {
    fn new(control: Box<dyn Control>, source: Source, extra_rtt: Duration) -> Self {
        Self {
            control,
            source,
            available: 0,
            source_changes: 0,
            extra_rtt,
            sent: VecDeque::new(),
            first: 0,
            in_flight: 0,
            largest_acked: None,
            smoothed_rtt: None,
            rtt_var: Duration::ZERO,
            latest_rtt: Duration::ZERO,
            app_limited: false,
            pacing_tokens: 0.0,
            paced_at: Duration::ZERO,
            pace_timer: 0,
            pto_timer: 0,
            pto_count: 0,
            expected: 0,
            pending: Vec::new(),
            pending_mark: false,
            ack_timer: 0,
            delivered: Vec::new(),
            finished: None,
            lost: 0,
            sent_packets: 0,
            windows: Vec::new(),
            competing_since: Vec::new(),
        }
    }

    fn on_rtt(&mut self, rtt: Duration) {
        self.latest_rtt = rtt;
        if let Some(smoothed_rtt) = self.smoothed_rtt {
            self.rtt_var = (self.rtt_var * 3 + smoothed_rtt.abs_diff(rtt)) / 4;
            self.smoothed_rtt = Some((smoothed_rtt * 7 + rtt) / 8);
        } else {
            self.rtt_var = rtt / 2;
            self.smoothed_rtt = Some(rtt);
        }
    }

    fn pto(&self) -> Duration {
        self.smoothed_rtt.unwrap_or(Duration::from_millis(333)) + self.rtt_var * 4 + ACK_DELAY
    }
}
