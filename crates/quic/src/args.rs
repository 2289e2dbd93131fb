//! The flags of QUIC sessions, which every program has, and the checked configuration.

use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, ValueEnum};

/// Four of these fill one send (GSO), and a jumbo frame is smaller.
const DATAGRAM: u16 = 16_368;

/// The largest payload that any UDP send takes.
const LARGEST_DATAGRAM: i64 = 65_487;

/// Flags of every QUIC session and of the UDP socket below it, on either side.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "QUIC sessions")]
pub struct QuicArgs {
    /// How long a QUIC handshake and the exchange of hello and welcome behind it may take.
    ///
    /// Raise it on paths whose round trip is a second or more.
    #[arg(
        long,
        env = "TOWLINE_QUIC_HANDSHAKE_TIMEOUT",
        value_name = "TIME",
        default_value = "5s"
    )]
    #[arg(value_parser = wait)]
    pub quic_handshake_timeout: Duration,

    /// Silence after which a peer counts as dead: its tunnels end with a reset.
    ///
    /// The smaller value of the two ends holds. A server pings after a quarter of it. Raise it where
    /// short outages of the path must not end tunnels.
    #[arg(
        long,
        env = "TOWLINE_QUIC_IDLE_TIMEOUT",
        value_name = "TIME",
        default_value = "8s"
    )]
    #[arg(value_parser = idle)]
    pub quic_idle_timeout: Duration,

    /// Bytes that one tunnel may have in flight or unread; also the most that a reader that
    /// stopped reading can pin in memory.
    ///
    /// One tunnel moves at most one window a round trip, and half of it where packets get lost: 2 MiB
    /// make 420 Mbit/s at 40 ms. The receiving end decides. Larger ones can end a session in heavy
    /// loss, when more than 1,024 gaps stand in one window: a fifth of the packets of 8 MiB, a
    /// twentieth of 32 MiB.
    #[arg(
        long,
        env = "TOWLINE_STREAM_WINDOW",
        value_name = "BYTES",
        default_value = "2MiB"
    )]
    #[arg(value_parser = window)]
    pub stream_window: ByteSize,

    /// Tunnels that one session carries at the same time; the smaller value of the two ends holds.
    ///
    /// At the limit a server tries another session, or answers 503. Lower it to bound what one agent
    /// carries.
    #[arg(
        long,
        env = "TOWLINE_MAX_TUNNELS_PER_SESSION",
        value_name = "N",
        default_value_t = 10_000
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_tunnels_per_session: u32,

    /// Congestion controller of this process, for the bytes that it sends.
    ///
    /// Each sender chooses for its own direction: a server for the bytes towards its agents, an
    /// agent for those towards its servers. Compare with your own traffic before you change it.
    #[arg(
        long,
        env = "TOWLINE_CONGESTION_CONTROL",
        value_name = "NAME",
        default_value = "delay"
    )]
    pub congestion_control: CongestionControl,

    /// Receive buffer of the UDP socket to ask the kernel for.
    ///
    /// A larger one adds queueing, not speed. 1MiB halves the wait of small tunnels beside bulk
    /// transfers at gigabits.
    #[arg(
        long,
        env = "TOWLINE_UDP_RECEIVE_BUFFER",
        value_name = "BYTES",
        default_value = "2MiB"
    )]
    pub udp_receive_buffer: ByteSize,

    /// Send buffer of the UDP socket to ask the kernel for; a larger one adds queueing, not speed.
    #[arg(
        long,
        env = "TOWLINE_UDP_SEND_BUFFER",
        value_name = "BYTES",
        default_value = "512KiB"
    )]
    pub udp_send_buffer: ByteSize,

    /// Largest datagram to try on the path to a peer (RFC 8899), by its UDP payload.
    ///
    /// Sessions begin with 1,200 bytes and find within seconds what the path takes: 1,472 on
    /// Ethernet, 8,972 with jumbo frames, all of the default on loopback. The larger, the less CPU
    /// a byte costs; above 16 KiB nothing gains.
    #[arg(
        long,
        env = "TOWLINE_UDP_MAX_DATAGRAM",
        value_name = "BYTES",
        default_value_t = DATAGRAM
    )]
    #[arg(value_parser = clap::value_parser!(u16).range(1_200..=LARGEST_DATAGRAM))]
    pub udp_max_datagram: u16,
}

/// What decides how many bytes a session may have in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CongestionControl {
    /// Keeps the queue of the path short and treats losses without a queue as random: fast on lossy
    /// paths, and small tunnels stay quick beside large ones. Where competing flows keep the queue
    /// full it competes as CUBIC does.
    Delay,
    /// CUBIC (RFC 9438), as TCP in most kernels: fills the queue of the path, and slows down with
    /// every lost packet.
    Cubic,
}

/// The settings of QUIC sessions and their sockets, all within their bounds.
#[derive(Debug, Clone)]
pub struct QuicConfig {
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// Silence after which a peer counts as dead.
    pub idle_timeout: Duration,
    /// Bytes that one stream may have in flight or unread, 64 KiB to 1 GiB.
    pub stream_window: u32,
    /// Streams that one connection carries at the same time.
    pub max_streams: u32,
    /// The congestion controller.
    pub congestion_control: CongestionControl,
    /// Receive buffer of the UDP socket, in bytes, as asked for.
    pub receive_buffer: usize,
    /// Send buffer of the UDP socket, in bytes, as asked for.
    pub send_buffer: usize,
    /// Largest UDP payload to try on a path, in bytes.
    pub max_datagram: u16,
}

// === impl QuicArgs ===

impl QuicArgs {
    /// The configuration that these flags ask for.
    pub fn config(&self) -> QuicConfig {
        let bytes = |size: ByteSize| usize::try_from(size.as_u64()).unwrap_or(usize::MAX);
        QuicConfig {
            handshake_timeout: self.quic_handshake_timeout,
            idle_timeout: self.quic_idle_timeout,
            stream_window: u32::try_from(self.stream_window.as_u64())
                .expect("`window` bounds the flag to 1 GiB"),
            max_streams: self.max_tunnels_per_session,
            congestion_control: self.congestion_control,
            receive_buffer: bytes(self.udp_receive_buffer),
            send_buffer: bytes(self.udp_send_buffer),
            max_datagram: self.udp_max_datagram,
        }
    }
}

// === impl QuicConfig ===

impl Default for QuicConfig {
    /// What the flags are without any.
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(8),
            stream_window: 2 * 1024 * 1024,
            max_streams: 10_000,
            congestion_control: CongestionControl::Delay,
            receive_buffer: 2 * 1024 * 1024,
            send_buffer: 512 * 1024,
            max_datagram: DATAGRAM,
        }
    }
}

/// Reads a wait such as `10s`, `500ms` or `1m 30s`: longer than zero, at most a day.
///
/// # Errors
/// A sentence for clap when the text is no duration or out of these bounds.
pub fn wait(text: &str) -> Result<Duration, String> {
    let wait = humantime::parse_duration(text)
        .map_err(|error| format!("{error} (write it as 10s, 500ms or 1m)"))?;
    if wait.is_zero() || wait > Duration::from_secs(24 * 60 * 60) {
        return Err("a wait must be longer than 0s and at most 24h".to_owned());
    }
    Ok(wait)
}

/// Reads an idle timeout: below a second, a busy machine would look dead.
fn idle(text: &str) -> Result<Duration, String> {
    match wait(text)? {
        idle if idle < Duration::from_secs(1) => Err("at least 1s".to_owned()),
        idle => Ok(idle),
    }
}

/// Reads a stream window: 64 KiB keep a LAN busy, and beyond 1 GiB nothing gains.
fn window(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse()?;
    if (ByteSize::kib(64)..=ByteSize::gib(1)).contains(&size) {
        Ok(size)
    } else {
        Err("a stream window is 64KiB to 1GiB".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::{wait, window};

    #[test]
    fn waits_name_their_bounds() {
        for (text, millis) in [
            ("10s", 10_000),
            ("500ms", 500),
            ("1m 30s", 90_000),
            ("24h", 86_400_000),
        ] {
            assert_eq!(wait(text).unwrap().as_millis(), millis, "{text}");
        }
        for text in ["", "0s", "10", "25h", "-1s", "soon"] {
            wait(text).unwrap_err();
        }
    }

    #[test]
    fn windows_name_their_bounds() {
        assert_eq!(window("2MiB").unwrap().as_u64(), 2 * 1024 * 1024);
        for text in ["", "0", "1KiB", "2GiB", "much"] {
            window(text).unwrap_err();
        }
    }
}
