//! Every number that shapes a QUIC session, each with the memory or the time that it bounds.

use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use quinn::{IdleTimeout, TransportConfig, VarInt};
use quinn_proto::congestion::{ControllerFactory, CubicConfig};

use crate::congestion_adapter::Factory;
use crate::farewell;

/// Unacknowledged bytes that one session may hold for sending, all its streams together.
///
/// It is shared first come, first served: a few stream windows would let two bulk transfers keep
/// every small tunnel waiting. 64 MiB bounds the memory of a session whose peer acknowledges
/// nothing.
const SEND_WINDOW: u64 = 64 * 1024 * 1024;

/// Streams that an agent may open towards the server: the control stream and nothing else.
const AGENT_STREAMS: u32 = 1;

/// Whoever waits longer than this is better asleep.
const LONGEST_BUSY_POLL: Duration = Duration::from_millis(10);

/// Flags of every QUIC session, on either side.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "QUIC sessions")]
pub struct SessionArgs {
    /// How long a QUIC handshake and the greeting behind it may take.
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
    /// The smaller value of the two ends holds. A server pings after a quarter of it.
    #[arg(
        long,
        env = "TOWLINE_QUIC_IDLE_TIMEOUT",
        value_name = "TIME",
        default_value = "8s"
    )]
    #[arg(value_parser = idle)]
    pub quic_idle_timeout: Duration,

    /// Bytes that one tunnel may have on the way or unread; also the most that a reader who
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

    /// Memory that stalled tunnels may pin in this process; a tunnel whose reader takes nothing at
    /// the moment counts as one stream window.
    ///
    /// At the limit the tunnel that has been stalled longest is reset, counted and logged: with the
    /// defaults when 1,024 readers are slower than their senders at one moment.
    #[arg(
        long,
        env = "TOWLINE_STALL_BUDGET",
        value_name = "BYTES",
        default_value = "2GiB"
    )]
    pub stall_budget: ByteSize,

    /// Tunnels that one session carries at the same time; the smaller value of the two ends holds,
    /// and a server tries another session, or answers 503, when they are used up.
    #[arg(
        long,
        env = "TOWLINE_MAX_TUNNELS_PER_SESSION",
        value_name = "N",
        default_value_t = 10_000
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_tunnels_per_session: u32,

    /// How long to stay awake for the next message of a quick conversation, in place of sleeping
    /// at once; 0s never does.
    ///
    /// Only tunnels with messages to and fro in a fraction of a millisecond cause it. A message then
    /// takes half the time; a process that carries thousands of messages a second may show up to a
    /// whole core in use, which it leaves to others when they need it.
    #[arg(
        long,
        env = "TOWLINE_BUSY_POLL",
        value_name = "TIME",
        default_value = "100us"
    )]
    #[arg(value_parser = busy_poll)]
    pub busy_poll: Duration,

    /// How this process finds out how fast it may send.
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
}

/// What decides how much a session may have on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CongestionControl {
    /// Keeps the queue of the path short and takes lost packets for the medium's while there is no
    /// queue: fast on lossy paths, and small tunnels stay quick beside large ones. Where others
    /// keep the queue full it competes as CUBIC does.
    Delay,
    /// CUBIC (RFC 9438), as TCP in most kernels: fills the queue of the path, and slows down with
    /// every lost packet.
    Cubic,
}

impl SessionArgs {
    /// Checks what one flag alone cannot tell.
    ///
    /// # Errors
    /// A sentence that names the flags.
    pub fn check(&self) -> Result<(), String> {
        if self.stall_budget < self.stream_window {
            return Err(format!(
                "--stall-budget {} is less than one --stream-window {}",
                self.stall_budget, self.stream_window
            ));
        }
        Ok(())
    }
}

/// Reads a wait such as `10s`, `500ms` or `1m 30s`: more than nothing, at most a day.
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

/// The end of a session that QUIC settings differ for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Dials, accepts tunnel streams, and pings so often.
    Agent(Duration),
    /// Listens, opens tunnel streams, and pings as its idle timeout asks for.
    Server,
}

/// The QUIC transport of one side.
pub(crate) fn transport(args: &SessionArgs, side: Side) -> TransportConfig {
    let mut transport = TransportConfig::default();
    // A peer's silence begins with its last packet, but the first packet sent after that one winds
    // QUIC's idle timer up again (RFC 9000 §10.1): a request that comes late to a dead peer would
    // double the wait. Pings make that packet come within a quarter of the wait, the timer gets the
    // other three.
    let ping = args.quic_idle_timeout / 4;
    let idle = IdleTimeout::try_from(args.quic_idle_timeout - ping)
        .expect("`wait` bounds the flag far below QUIC's 2^62 ms");
    let window =
        u32::try_from(args.stream_window.as_u64()).expect("`window` bounds the flag to 1 GiB");
    transport
        .max_idle_timeout(Some(idle))
        .stream_receive_window(window.into())
        // A session window of a few stream windows would let that many unread tunnels stop all
        // others (measured); the stall budget bounds the memory instead.
        .receive_window(VarInt::MAX)
        .send_window(SEND_WINDOW)
        .send_fairness(true)
        .max_concurrent_uni_streams(0u32.into())
        .datagram_receive_buffer_size(None);
    let controllers: Arc<dyn ControllerFactory + Send + Sync> = match args.congestion_control {
        CongestionControl::Delay => Arc::new(Factory),
        CongestionControl::Cubic => Arc::new(CubicConfig::default()),
    };
    transport.congestion_controller_factory(Arc::new(farewell::Factory(controllers)));
    match side {
        Side::Agent(keep_alive) => transport
            .keep_alive_interval(Some(keep_alive))
            .max_concurrent_bidi_streams(args.max_tunnels_per_session.into()),
        Side::Server => transport
            .keep_alive_interval(Some(ping))
            .max_concurrent_bidi_streams(AGENT_STREAMS.into()),
    };
    transport
}

/// Reads an idle timeout: below a second, a busy machine would look dead.
fn idle(text: &str) -> Result<Duration, String> {
    match wait(text)? {
        idle if idle < Duration::from_secs(1) => Err("at least 1s".to_owned()),
        idle => Ok(idle),
    }
}

/// Reads a time to stay awake: one that the core could be asleep for is a mistake.
fn busy_poll(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(limit) if limit <= LONGEST_BUSY_POLL => Ok(limit),
        Ok(_) => Err("at most 10ms".to_owned()),
        Err(error) => Err(format!("{error} (write it as 50us or 0s)")),
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
    use super::{busy_poll, wait, window};

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
    fn times_to_stay_awake_may_be_nothing() {
        for (text, micros) in [("0s", 0), ("100us", 100), ("10ms", 10_000)] {
            assert_eq!(busy_poll(text).unwrap().as_micros(), micros, "{text}");
        }
        for text in ["", "100", "11ms", "-1us"] {
            busy_poll(text).unwrap_err();
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
