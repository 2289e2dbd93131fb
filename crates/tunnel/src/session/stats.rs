//! What a session measures of itself, and how metrics name it.

use std::time::Duration;

use crate::figure::{Figure, float};

/// What a session knows of its path and its traffic.
#[derive(Debug, Clone, Copy)]
pub struct SessionStats {
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
    /// Tunnel streams open now.
    pub open_streams: usize,
}

// === impl SessionStats ===

impl SessionStats {
    /// Every number there is.
    pub const FIGURES: [Figure<Self>; 8] = [
        Figure {
            name: "session_streams",
            help: "Tunnel streams open on the session",
            grows: false,
            read: |stats| float(u64::try_from(stats.open_streams).unwrap_or(u64::MAX)),
        },
        Figure {
            name: "session_rtt_seconds",
            help: "Smoothed round-trip time to the peer",
            grows: false,
            read: |stats| stats.rtt.as_secs_f64(),
        },
        Figure {
            name: "session_congestion_window_bytes",
            help: "Congestion window towards the peer",
            grows: false,
            read: |stats| float(stats.congestion_window),
        },
        Figure {
            name: "session_mtu_bytes",
            help: "UDP payload that fits the path to the peer",
            grows: false,
            read: |stats| f64::from(stats.mtu),
        },
        Figure {
            name: "session_sent_packets",
            help: "Packets sent to the peer",
            grows: true,
            read: |stats| float(stats.sent_packets),
        },
        Figure {
            name: "session_lost_packets",
            help: "Packets sent to the peer that got lost",
            grows: true,
            read: |stats| float(stats.lost_packets),
        },
        Figure {
            name: "session_sent_bytes",
            help: "UDP payload sent to the peer",
            grows: true,
            read: |stats| float(stats.sent_bytes),
        },
        Figure {
            name: "session_received_bytes",
            help: "UDP payload received from the peer",
            grows: true,
            read: |stats| float(stats.received_bytes),
        },
    ];
}
