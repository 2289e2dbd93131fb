//! An acknowledgement, as the controller is told of it.

use std::time::Instant;

/// One acknowledged packet.
#[derive(Debug, Clone, Copy)]
pub struct Ack {
    /// Time at which the packet was sent.
    pub sent: Instant,
    /// Size of the packet in bytes.
    pub bytes: u64,
}
