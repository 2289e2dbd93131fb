//! Works around quinn, which does not send `CONNECTION_CLOSE` while the congestion window is full.
//!
//! quinn holds `CONNECTION_CLOSE` back behind data that a closed session will never send, and
//! stops the timers that could make room: the peer learns nothing until its idle timeout (quinn
//! issue 2785, mended upstream after quinn-proto 0.11.19). A window that opens for good just
//! before the close lets it pass; nothing else is sent then.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use quinn_proto::RttEstimator;
use quinn_proto::congestion::{Controller, ControllerFactory, ControllerMetrics};

/// Wraps the controllers that another factory makes.
pub(crate) struct Factory(pub(crate) Arc<dyn ControllerFactory + Send + Sync>);

/// A controller whose window can be opened from outside; copies share the switch.
struct Openable {
    controller: Box<dyn Controller>,
    open: Arc<AtomicBool>,
}

/// Opens the window of a session that is about to be closed.
pub(crate) fn open_window(connection: &quinn::Connection) {
    // quinn shows a copy of the controller.
    if let Ok(copy) = connection
        .congestion_state()
        .into_any()
        .downcast::<Openable>()
    {
        copy.open.store(true, Ordering::Relaxed);
    }
}

// === impl Factory ===

impl ControllerFactory for Factory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Openable {
            controller: Arc::clone(&self.0).build(now, current_mtu),
            open: Arc::default(),
        })
    }
}

// === impl Openable ===

impl Controller for Openable {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.controller.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.controller.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.controller
            .on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.controller
            .on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.controller.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        match self.open.load(Ordering::Relaxed) {
            true => u64::MAX,
            false => self.controller.window(),
        }
    }

    fn metrics(&self) -> ControllerMetrics {
        self.controller.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            controller: self.controller.clone_box(),
            open: Arc::clone(&self.open),
        })
    }

    fn initial_window(&self) -> u64 {
        self.controller.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
