//! UDP sockets and QUIC endpoints: where sessions begin.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, EndpointConfig, MtuDiscoveryConfig, ServerConfig, TokioRuntime, TransportConfig,
};
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tokio::time::timeout;
use tracing::warn;

use crate::knobs::{self, SessionArgs, Side};
use crate::session::{Session, SessionError, SocketBuffers};
use crate::udp::UdpSocket;
use towline_protocol::code::SessionCode;

/// Handshakes under way from which on an address must prove itself first (RFC 9000 §8.1.2).
///
/// Below it nobody pays the extra round trip; a flood of spoofed Initials gets past it at once.
const RETRY_ABOVE: usize = 64;

/// Handshakes under way at the same time; more are refused, so that strangers cannot have an
/// unbounded number of keys computed and connections kept.
const MAX_HANDSHAKES: usize = 1_024;

/// Four of these fill one send (GSO), and a jumbo frame is smaller.
const DATAGRAM: u16 = 16_368;

/// The most that any UDP send takes.
const LARGEST_DATAGRAM: i64 = 65_487;

/// What a peer may send (RFC 9000 §18.2, `max_udp_payload_size`): no bound of ours.
const LARGEST_QUIC_DATAGRAM: u16 = 65_527;

/// Flags of the UDP socket below all sessions.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "QUIC sessions")]
pub struct SocketArgs {
    /// Receive buffer to ask the kernel for; larger ones add queueing, not speed.
    #[arg(
        long,
        env = "TOWLINE_UDP_RECEIVE_BUFFER",
        value_name = "BYTES",
        default_value = "2MiB"
    )]
    pub udp_receive_buffer: ByteSize,

    /// Send buffer to ask the kernel for; larger ones add queueing, not speed.
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

/// Why no endpoint could be opened.
#[derive(Debug, Error)]
pub enum BindError {
    /// The UDP socket could not be opened or bound.
    #[error("cannot listen on udp {address}")]
    Socket {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The TLS configuration cannot carry QUIC.
    #[error("the TLS configuration does not fit QUIC")]
    Tls(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
}

/// The server's endpoint: agents arrive here.
#[derive(Debug)]
pub struct Listener {
    endpoint: quinn::Endpoint,
    local: SocketAddr,
    buffers: SocketBuffers,
    handshakes: Arc<AtomicUsize>,
    handshake_timeout: Duration,
    max_streams: u32,
}

/// How an agent dials.
#[derive(Debug, Clone)]
pub struct DialConfig {
    /// Certificates and protocols.
    pub tls: Arc<rustls::ClientConfig>,
    /// QUIC settings.
    pub session: SessionArgs,
    /// UDP settings.
    pub socket: SocketArgs,
    /// How often to ping; the server's idle timeout must be longer.
    pub keep_alive: Duration,
}

/// The agent's endpoint for one dial: a fresh socket, so that a redial leaves broken NAT or load
/// balancer state behind.
#[derive(Debug)]
pub struct Dialer {
    endpoint: quinn::Endpoint,
    buffers: SocketBuffers,
    config: ClientConfig,
    max_streams: u32,
}

/// A handshake that has begun; whoever holds it decides when to spend time on it.
pub struct Incoming {
    incoming: quinn::Incoming,
    timeout: Duration,
    max_streams: u32,
    _slot: HandshakeSlot,
}

/// Counts one handshake under way.
struct HandshakeSlot(Arc<AtomicUsize>);

// === impl Listener ===

impl Listener {
    /// Opens the UDP socket and listens for agents.
    ///
    /// # Errors
    /// When the address is taken or not ours, or the TLS configuration is not TLS 1.3.
    pub fn bind(
        address: SocketAddr,
        tls: Arc<rustls::ServerConfig>,
        session: &SessionArgs,
        socket: &SocketArgs,
    ) -> Result<Self, BindError> {
        let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
        config.transport_config(transport(session, socket, Side::Server));
        let (endpoint, buffers) = open(address, Some(config), socket)
            .map_err(|source| BindError::Socket { address, source })?;
        let local = endpoint
            .local_addr()
            .map_err(|source| BindError::Socket { address, source })?;
        Ok(Self {
            endpoint,
            local,
            buffers,
            handshakes: Arc::default(),
            handshake_timeout: session.quic_handshake_timeout,
            max_streams: session.max_tunnels_per_session,
        })
    }

    /// The address that agents dial.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// What the kernel gave for the asked buffers.
    pub fn buffers(&self) -> SocketBuffers {
        self.buffers
    }

    /// The next handshake, or nothing once the endpoint is closed.
    ///
    /// Addresses have to prove themselves when many handshakes are under way; beyond
    /// [`MAX_HANDSHAKES`] they are refused.
    pub async fn accept(&self) -> Option<Incoming> {
        loop {
            let incoming = self.endpoint.accept().await?;
            let under_way = self.handshakes.load(Ordering::Relaxed);
            if under_way >= MAX_HANDSHAKES {
                incoming.refuse();
            } else if under_way >= RETRY_ABOVE && incoming.may_retry() {
                if let Err(error) = incoming.retry() {
                    error.into_incoming().ignore();
                }
            } else {
                return Some(Incoming {
                    incoming,
                    timeout: self.handshake_timeout,
                    max_streams: self.max_streams,
                    _slot: HandshakeSlot::take(&self.handshakes),
                });
            }
        }
    }

    /// Closes every session at once and refuses new ones.
    pub fn close(&self, code: SessionCode, reason: &str) {
        self.endpoint
            .close(u32::from(code).into(), reason.as_bytes());
    }

    /// Waits until the peers know that their sessions are closed, at most `limit`.
    pub async fn wait_idle(&self, limit: Duration) {
        if timeout(limit, self.endpoint.wait_idle()).await.is_err() {
            warn!(?limit, "some agents did not acknowledge the close");
        }
    }
}

// === impl Incoming ===

impl Incoming {
    /// Who knocks; not proven before the handshake is through.
    pub fn remote_address(&self) -> SocketAddr {
        self.incoming.remote_address()
    }

    /// Finishes the handshake within its deadline.
    ///
    /// # Errors
    /// When the peer is slow, shows no valid certificate, or speaks neither dialect.
    pub async fn handshake(self) -> Result<Session, SessionError> {
        let connecting = self.incoming.accept()?;
        let connection = timeout(self.timeout, connecting)
            .await
            .map_err(|_elapsed| SessionError::HandshakeTimeout)??;
        Session::new(connection, None, self.max_streams)
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("remote", &self.remote_address())
            .finish_non_exhaustive()
    }
}

// === impl HandshakeSlot ===

impl HandshakeSlot {
    fn take(slots: &Arc<AtomicUsize>) -> Self {
        slots.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(slots))
    }
}

impl Drop for HandshakeSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Dialer ===

impl Dialer {
    /// Opens a socket of the family of `server`.
    ///
    /// # Errors
    /// When the system gives no socket, or the TLS configuration is not TLS 1.3.
    pub fn bind(server: SocketAddr, dial: &DialConfig) -> Result<Self, BindError> {
        let any = match server {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let tls = QuicClientConfig::try_from(Arc::clone(&dial.tls))?;
        let mut config = ClientConfig::new(Arc::new(tls));
        let side = Side::Agent(dial.keep_alive);
        config.transport_config(transport(&dial.session, &dial.socket, side));
        let (endpoint, buffers) =
            open(any, None, &dial.socket).map_err(|source| BindError::Socket {
                address: any,
                source,
            })?;
        let max_streams = dial.session.max_tunnels_per_session;
        Ok(Self {
            endpoint,
            buffers,
            config,
            max_streams,
        })
    }

    /// Dials the server and verifies that its certificate carries `name`.
    ///
    /// # Errors
    /// When there is no answer within `limit`, or either side's certificate is refused.
    pub async fn dial(
        self,
        server: SocketAddr,
        name: &str,
        limit: Duration,
    ) -> Result<Session, SessionError> {
        let connecting = self
            .endpoint
            .connect_with(self.config, server, name)
            .map_err(|error| SessionError::Unusable(error.to_string()))?;
        let connection = timeout(limit, connecting)
            .await
            .map_err(|_elapsed| SessionError::HandshakeTimeout)??;
        Session::new(
            connection,
            Some((self.endpoint, self.buffers)),
            self.max_streams,
        )
    }
}

/// Opens a UDP socket with the asked buffers and puts an endpoint on it.
fn open(
    address: SocketAddr,
    server: Option<ServerConfig>,
    args: &SocketArgs,
) -> io::Result<(quinn::Endpoint, SocketBuffers)> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        // `[::]` takes IPv4 agents as well, whatever the system's default is.
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    let buffers = ask_for_buffers(&socket, args)?;
    socket.bind(&address.into())?;
    let mut config = EndpointConfig::default();
    config
        .max_udp_payload_size(LARGEST_QUIC_DATAGRAM)
        .expect("RFC 9000 allows it");
    let endpoint = quinn::Endpoint::new_with_abstract_socket(
        config,
        server,
        Arc::new(UdpSocket::new(socket.into())?),
        Arc::new(TokioRuntime),
    )?;
    Ok((endpoint, buffers))
}

/// The settings of the sessions on one socket.
fn transport(session: &SessionArgs, socket: &SocketArgs, side: Side) -> Arc<TransportConfig> {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(socket.udp_max_datagram);
    let mut transport = knobs::transport(session, side);
    transport.mtu_discovery_config(Some(discovery));
    Arc::new(transport)
}

/// Asks for the buffers, reads back what was given, and says once what to set if it was less.
fn ask_for_buffers(socket: &Socket, args: &SocketArgs) -> io::Result<SocketBuffers> {
    /// Linux books its own overhead in the buffer and reports twice of what is usable.
    const BOOKED: usize = if cfg!(target_os = "linux") { 2 } else { 1 };

    let asked_receive = usize::try_from(args.udp_receive_buffer.as_u64()).unwrap_or(usize::MAX);
    let asked_send = usize::try_from(args.udp_send_buffer.as_u64()).unwrap_or(usize::MAX);
    socket.set_recv_buffer_size(asked_receive)?;
    socket.set_send_buffer_size(asked_send)?;
    let given = SocketBuffers {
        receive: socket.recv_buffer_size()? / BOOKED,
        send: socket.send_buffer_size()? / BOOKED,
    };
    warn_once_when_less(asked_receive, asked_send, given);
    Ok(given)
}

fn warn_once_when_less(asked_receive: usize, asked_send: usize, given: SocketBuffers) {
    static ONCE: std::sync::Once = std::sync::Once::new();
    if given.receive >= asked_receive && given.send >= asked_send {
        return;
    }
    ONCE.call_once(|| {
        warn!(
            receive = given.receive,
            send = given.send,
            "the kernel gives smaller UDP buffers than asked, so bursts get lost: \
             sysctl -w net.core.rmem_max={asked_receive} net.core.wmem_max={asked_send}"
        );
    });
}
