//! The receiver of a flow: acknowledges every second packet, and at once when packets are missing.

use std::time::Duration;

use crate::simulation::record::BIN;
use crate::simulation::{Event, Simulation};

/// Maximum delay of the acknowledgement of a single packet (RFC 9000, `max_ack_delay`).
pub(super) const ACK_DELAY: Duration = Duration::from_millis(25);

impl Simulation {
    pub(super) fn arrive(&mut self, id: usize, packet: u64, marked: bool) {
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

    pub(super) fn acknowledge(&mut self, id: usize) {
        let back = self.now + self.link.one_way;
        let flow = &mut self.flows[id];
        flow.ack_timer += 1;
        let packets = std::mem::take(&mut flow.pending);
        let marked = std::mem::take(&mut flow.pending_mark);
        if !packets.is_empty() {
            self.schedule(back, Event::Acked(id, packets, marked));
        }
    }
}
