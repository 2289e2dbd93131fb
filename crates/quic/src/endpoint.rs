//! The UDP socket below an endpoint, and its buffers.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use quinn::{EndpointConfig, ServerConfig, TokioRuntime};
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tracing::warn;

use crate::args::QuicConfig;
use crate::udp::UdpSocket;

/// What a peer may send (RFC 9000 §18.2, `max_udp_payload_size`): no bound of ours.
const LARGEST_QUIC_DATAGRAM: u16 = 65_527;

/// Why no endpoint could be opened.
#[derive(Debug, Error)]
pub enum EndpointError {
    /// The UDP socket could not be opened or bound.
    #[error("cannot listen on udp {address}")]
    Socket {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The TLS configuration has no cipher suite for QUIC's Initial packets.
    #[error("the TLS configuration does not fit QUIC")]
    Tls,
}

/// What the kernel gave for the asked UDP buffers, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketBuffers {
    /// The receive buffer.
    pub receive: usize,
    /// The send buffer.
    pub send: usize,
}

/// Opens a UDP socket with the asked buffers and puts an endpoint on it.
pub(crate) fn open(
    address: SocketAddr,
    server: Option<ServerConfig>,
    config: &QuicConfig,
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
    let buffers = ask_for_buffers(&socket, config)?;
    socket.bind(&address.into())?;
    let mut endpoint = EndpointConfig::default();
    endpoint
        .max_udp_payload_size(LARGEST_QUIC_DATAGRAM)
        .expect("RFC 9000 allows it");
    let endpoint = quinn::Endpoint::new_with_abstract_socket(
        endpoint,
        server,
        Arc::new(UdpSocket::new(socket.into())?),
        Arc::new(TokioRuntime),
    )?;
    Ok((endpoint, buffers))
}

/// Asks for the buffers, reads back what the kernel gave, and warns once when it is less.
fn ask_for_buffers(socket: &Socket, config: &QuicConfig) -> io::Result<SocketBuffers> {
    /// Linux books its own overhead in the buffer and reports twice of what is usable.
    const BOOKED: usize = if cfg!(target_os = "linux") { 2 } else { 1 };

    let (asked_receive, asked_send) = (config.receive_buffer, config.send_buffer);
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
