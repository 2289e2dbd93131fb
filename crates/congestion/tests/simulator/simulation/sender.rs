//! The sender of a flow: pacing, acknowledgements, loss detection and probe timeouts (RFC 9002).

use std::time::Duration;

use crate::simulation::flow::{Sent, State};
use crate::simulation::{DATAGRAM, Event, Simulation};

impl Simulation {
    pub(super) fn send(&mut self, id: usize) {
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

    pub(super) fn transmit(&mut self, id: usize, bytes: u64) {
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

    pub(super) fn acked(&mut self, id: usize, packets: &[u64], marked: bool) {
        let (now, epoch) = (self.now, self.epoch);
        let flow = &mut self.flows[id];
        let mut largest = None;
        for &packet in packets {
            // Packets declared lost have left the queue of sent packets.
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

    pub(super) fn detect_losses(&mut self, id: usize) {
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

    pub(super) fn arm_pto_timer(&mut self, id: usize) {
        let flow = &mut self.flows[id];
        flow.pto_timer += 1;
        if flow.in_flight == 0 {
            return;
        }
        let timer = flow.pto_timer;
        // A loss timer would only matter for the last packets; the probe timeout covers them here.
        let at = self.now + flow.pto() * 2u32.saturating_pow(flow.pto_count);
        self.schedule(at, Event::PtoTimer(id, timer));
    }

    pub(super) fn on_pto(&mut self, id: usize) {
        let flow = &mut self.flows[id];
        flow.pto_count = (flow.pto_count + 1).min(6);
        // A probe retransmits in QUIC; here it sends one more datagram.
        flow.available = flow.available.saturating_sub(DATAGRAM);
        self.transmit(id, DATAGRAM);
        self.arm_pto_timer(id);
    }
}
