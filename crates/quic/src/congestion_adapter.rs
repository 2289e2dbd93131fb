//! Implements quinn's congestion controller traits for [`DelayController`].

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use quinn_proto::RttEstimator;
use quinn_proto::congestion::{Controller, ControllerFactory, ControllerMetrics};

use towline_congestion::{Ack, DelayController, INITIAL_DATAGRAMS};

/// Creates a [`DelayController`] for each new path of a session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Factory;

/// The controller of one path. Packets without payload are counted by quinn only.
#[derive(Debug, Clone)]
struct Adapter {
    state: DelayController,
    initial_window: u64,
}

// === impl Factory ===

impl ControllerFactory for Factory {
    fn build(self: Arc<Self>, _now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Adapter {
            state: DelayController::new(current_mtu),
            initial_window: INITIAL_DATAGRAMS * u64::from(current_mtu),
        })
    }
}

// === impl Adapter ===

impl Controller for Adapter {
    fn on_sent(&mut self, now: Instant, _bytes: u64, _last_packet_number: u64) {
        self.state.on_sent(now);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        _rtt: &RttEstimator,
    ) {
        self.state.on_ack(now, Ack { sent, bytes }, app_limited);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        _app_limited: bool,
        _largest_packet_num_acked: Option<u64>,
    ) {
        self.state.on_acks_end(now, in_flight);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        if is_persistent_congestion {
            self.state.on_persistent_congestion(now);
        } else if lost_bytes == 0 {
            self.state.on_mark(sent);
        } else {
            self.state.on_loss(now, sent, lost_bytes);
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.state.on_datagram_size(new_mtu);
    }

    fn window(&self) -> u64 {
        self.state.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = ControllerMetrics::default();
        metrics.congestion_window = self.window();
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.initial_window
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
