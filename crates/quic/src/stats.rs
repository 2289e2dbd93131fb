//! What a QUIC connection measures of its path and its traffic.

use std::time::Duration;

/// The path to a peer and the traffic on it, since the connection began.
#[derive(Debug, Clone, Copy)]
pub struct PathStats {
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// Congestion window in bytes.
    pub congestion_window: u64,
    /// UDP payload that fits the path, in bytes.
    pub mtu: u16,
    /// Packets sent.
    pub sent_packets: u64,
    /// Packets sent that count as lost.
    pub lost_packets: u64,
    /// UDP payload sent, in bytes.
    pub sent_bytes: u64,
    /// UDP payload received, in bytes.
    pub received_bytes: u64,
}
