//! The QUIC transport parameters of a session, each with the memory or the time that it bounds.

use std::sync::Arc;
use std::time::Duration;

use quinn::{IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use quinn_proto::congestion::{ControllerFactory, CubicConfig};

use crate::args::{CongestionControl, QuicConfig};
use crate::close_workaround;
use crate::congestion_adapter;

/// Unacknowledged bytes that one session may hold for sending, all its streams together.
///
/// It is shared first come, first served: a few stream windows would let two bulk transfers keep
/// every small tunnel waiting. 64 MiB bounds the memory of a session whose peer acknowledges
/// nothing.
const SEND_WINDOW: u64 = 64 * 1024 * 1024;

/// Streams that an agent may open towards the server: the control stream and nothing else.
const AGENT_STREAMS: u32 = 1;

/// The end of a session that transport parameters differ for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Dials, accepts tunnel streams, and pings at this interval.
    Agent(Duration),
    /// Listens, opens tunnel streams, and pings after a quarter of the idle timeout.
    Server,
}

/// The QUIC transport parameters of one side.
pub(crate) fn transport_config(config: &QuicConfig, side: Side) -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    // A peer's silence begins with its last packet, but the first packet sent after that one winds
    // QUIC's idle timer up again (RFC 9000 §10.1): a request that comes late to a dead peer would
    // double the wait. Pings make that packet come within a quarter of the wait, the timer gets the
    // other three.
    let ping = config.idle_timeout / 4;
    let idle = IdleTimeout::try_from(config.idle_timeout - ping)
        .expect("`wait` bounds the flag far below QUIC's 2^62 ms");
    transport
        .max_idle_timeout(Some(idle))
        .stream_receive_window(config.stream_window.into())
        // A session window of a few stream windows would let that many unread tunnels stop all
        // others (measured); the stall budget bounds the memory instead.
        .receive_window(VarInt::MAX)
        .send_window(SEND_WINDOW)
        .send_fairness(true)
        .max_concurrent_uni_streams(0u32.into())
        .datagram_receive_buffer_size(None);
    let controllers: Arc<dyn ControllerFactory + Send + Sync> = match config.congestion_control {
        CongestionControl::Delay => Arc::new(congestion_adapter::Factory),
        CongestionControl::Cubic => Arc::new(CubicConfig::default()),
    };
    transport.congestion_controller_factory(Arc::new(close_workaround::Factory(controllers)));
    match side {
        Side::Agent(keep_alive) => transport
            .keep_alive_interval(Some(keep_alive))
            .max_concurrent_bidi_streams(config.max_streams.into()),
        Side::Server => transport
            .keep_alive_interval(Some(ping))
            .max_concurrent_bidi_streams(AGENT_STREAMS.into()),
    };
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(config.max_datagram);
    transport.mtu_discovery_config(Some(discovery));
    Arc::new(transport)
}
