//! The metrics of sessions and tunnels that every program exports under its own prefix: their
//! names, help texts and how each is read.
//!
//! A crate of its own, because `towline-session` and `towline-service` do not know each other, and
//! servers and agents must name the same figures alike.

use towline_quic::endpoint::SocketBuffers;
use towline_quic::stats::PathStats;
use towline_service::scrape::Kind::{Counter, Gauge};
use towline_service::scrape::{MetricDesc, float};
use towline_session::session::SessionStats;
use towline_session::tunnel_table::TableStats;

/// Of each session.
pub const SESSION_METRICS: [MetricDesc<SessionStats>; 1] = [MetricDesc {
    name: "session_streams",
    help: "Tunnel streams open on the session",
    kind: Gauge,
    read: |stats| float(u64::try_from(stats.open_streams).unwrap_or(u64::MAX)),
}];

/// Of each session whose transport knows its path.
pub const PATH_METRICS: [MetricDesc<PathStats>; 7] = [
    MetricDesc {
        name: "session_rtt_seconds",
        help: "Smoothed round-trip time to the peer",
        kind: Gauge,
        read: |path| path.rtt.as_secs_f64(),
    },
    MetricDesc {
        name: "session_congestion_window_bytes",
        help: "Congestion window towards the peer",
        kind: Gauge,
        read: |path| float(path.congestion_window),
    },
    MetricDesc {
        name: "session_mtu_bytes",
        help: "UDP payload that fits the path to the peer",
        kind: Gauge,
        read: |path| f64::from(path.mtu),
    },
    MetricDesc {
        name: "session_sent_packets",
        help: "Packets sent to the peer",
        kind: Counter,
        read: |path| float(path.sent_packets),
    },
    MetricDesc {
        name: "session_lost_packets",
        help: "Packets sent to the peer that got lost",
        kind: Counter,
        read: |path| float(path.lost_packets),
    },
    MetricDesc {
        name: "session_sent_bytes",
        help: "UDP payload sent to the peer",
        kind: Counter,
        read: |path| float(path.sent_bytes),
    },
    MetricDesc {
        name: "session_received_bytes",
        help: "UDP payload received from the peer",
        kind: Counter,
        read: |path| float(path.received_bytes),
    },
];

/// Of each UDP socket.
pub const SOCKET_METRICS: [MetricDesc<SocketBuffers, u64>; 2] = [
    MetricDesc {
        name: "udp_receive_buffer_bytes",
        help: "UDP receive buffer that the kernel gave",
        kind: Gauge,
        read: |buffers| u64::try_from(buffers.receive).unwrap_or(u64::MAX),
    },
    MetricDesc {
        name: "udp_send_buffer_bytes",
        help: "UDP send buffer that the kernel gave",
        kind: Gauge,
        read: |buffers| u64::try_from(buffers.send).unwrap_or(u64::MAX),
    },
];

/// Of all tunnels of the process.
pub const TUNNEL_METRICS: [MetricDesc<TableStats, u64>; 6] = [
    MetricDesc {
        name: "tunnels_open",
        help: "Tunnels open",
        kind: Gauge,
        read: |stats| u64::try_from(stats.open).unwrap_or(u64::MAX),
    },
    MetricDesc {
        name: "tunnels_stalled",
        help: "Tunnels whose reader on this side takes nothing",
        kind: Gauge,
        read: |stats| u64::try_from(stats.stalled).unwrap_or(u64::MAX),
    },
    MetricDesc {
        name: "overloads",
        help: "Tunnels reset for the stall budget",
        kind: Counter,
        read: |stats| stats.stalled_resets,
    },
    MetricDesc {
        name: "to_target_bytes",
        help: "Bytes from clients to targets",
        kind: Counter,
        read: |stats| stats.to_target,
    },
    MetricDesc {
        name: "to_client_bytes",
        help: "Bytes from targets to clients",
        kind: Counter,
        read: |stats| stats.to_client,
    },
    MetricDesc {
        name: "busy_polls",
        help: "Busy polls that found no message",
        kind: Counter,
        read: |stats| stats.busy_polls,
    },
];
