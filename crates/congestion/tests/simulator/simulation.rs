//! An event-driven simulation of flows that share a link, in virtual time. Senders pace and detect
//! losses as quinn does (RFC 9002).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::simulation::flow::Flow;

pub(crate) use crate::simulation::link::{Link, Loss};

mod link;

mod flow;

mod sender;

mod receiver;

mod record;

/// Payload of a datagram in bytes.
pub(crate) const DATAGRAM: u64 = 1452;

/// A time or duration in seconds.
pub(crate) fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// A time or duration in milliseconds.
pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A congestion controller, as the simulated sender uses it.
pub(crate) trait Control {
    /// Reports a sent packet.
    fn on_sent(&mut self, _now: Instant) {}
    /// Reports one acknowledged packet.
    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool);
    /// Reports the end of an acknowledgement frame.
    fn on_acks_end(&mut self, now: Instant, in_flight: u64);
    /// Reports lost packets; the last of them was sent at `sent`.
    fn on_loss(&mut self, now: Instant, sent: Instant, bytes: u64, persistent: bool);
    /// Reports an ECN mark on packets sent up to `sent`.
    fn on_mark(&mut self, now: Instant, sent: Instant);
    /// The congestion window in bytes.
    fn window(&self) -> u64;
    /// The pacing rate in bytes per second.
    fn pace(&self, smoothed_rtt: Duration) -> f64;
    /// Whether the controller is in its competitive state.
    fn is_competing(&self) -> bool {
        false
    }
}

/// The data that an application has to send.
#[derive(Clone, Copy)]
pub(crate) enum Source {
    Endless,
    Bytes(u64),
    /// So many bytes in each interval.
    Bursts(u64, Duration),
}

/// A link, the flows on it and the events to come.
pub(crate) struct Simulation {
    now: Duration,
    epoch: Instant,
    link: Link,
    rng: Rng,
    /// Whether the link is in a run of lost packets.
    bursting: bool,
    /// Time at which the bottleneck has transmitted what it holds.
    free_at: Duration,
    last_arrival: Duration,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    /// Orders events of the same time.
    serial: u64,
    flows: Vec<Flow>,
    /// Replacements of the link.
    links: Vec<Link>,
    /// Replacements of sources, with the index of the flow.
    sources: Vec<(usize, Source)>,
    /// Times and queue delays of every eighth packet of each flow.
    queue: Vec<(Duration, Duration)>,
}

/// An event; the numbers identify a flow, and then a packet, a timer or a replacement.
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

    /// Adds a flow that starts at `start`, and returns its index.
    pub(crate) fn add_flow(
        &mut self,
        control: Box<dyn Control>,
        source: Source,
        start: Duration,
    ) -> usize {
        self.add_flow_with_extra_rtt(control, source, start, Duration::ZERO)
    }

    /// Adds a flow whose RTT is longer by `extra_rtt`, and returns its index.
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

    /// Replaces the link at the time `at`.
    pub(crate) fn set_link_at(&mut self, at: Duration, link: Link) {
        self.links.push(link);
        self.schedule(at, Event::SetLink(self.links.len() - 1));
    }

    /// Replaces the source of a flow at the time `at`.
    pub(crate) fn set_source_at(&mut self, flow: usize, at: Duration, source: Source) {
        self.sources.push((flow, source));
        self.schedule(at, Event::SetSource(self.sources.len() - 1));
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
}
