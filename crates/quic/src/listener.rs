//! The server's endpoint: agents dial it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quinn::ServerConfig;
use quinn::crypto::rustls::QuicServerConfig;
use tokio::time::timeout;
use towline_protocol::code::SessionCode;
use towline_protocol::failure::SessionError;
use towline_tls::ServerTls;
use tracing::warn;

use crate::args::QuicConfig;
use crate::connection::{QuicConnection, connection_error};
use crate::endpoint::{EndpointError, SocketBuffers, open};
use crate::transport_config::{Side, transport_config};

/// Handshakes in progress from which on an address must prove itself first (RFC 9000 §8.1.2).
///
/// Below it no agent pays the extra round trip; a flood of spoofed Initials gets past it at once.
const RETRY_ABOVE: usize = 64;

/// Handshakes in progress at the same time; more are refused, so that strangers cannot cause an
/// unbounded number of key computations and connections.
const MAX_HANDSHAKES: usize = 1_024;

/// The server's endpoint.
#[derive(Debug)]
pub struct QuicListener {
    endpoint: quinn::Endpoint,
    local: SocketAddr,
    buffers: SocketBuffers,
    handshakes: Arc<AtomicUsize>,
    handshake_timeout: Duration,
}

/// A connection attempt; its holder decides when to spend time on the handshake.
pub struct Incoming {
    incoming: quinn::Incoming,
    timeout: Duration,
    _slot: HandshakeSlot,
}

/// Counts one handshake in progress.
struct HandshakeSlot(Arc<AtomicUsize>);

// === impl QuicListener ===

impl QuicListener {
    /// Opens the UDP socket and listens for agents.
    ///
    /// # Errors
    /// When the address is taken or not ours, or the TLS configuration is not TLS 1.3.
    pub fn bind(
        address: SocketAddr,
        tls: ServerTls,
        config: &QuicConfig,
    ) -> Result<Self, EndpointError> {
        let mut server = ServerConfig::with_crypto(Arc::new(
            QuicServerConfig::try_from(tls).map_err(|_| EndpointError::Tls)?,
        ));
        server.transport_config(transport_config(config, Side::Server));
        let failed = |source| EndpointError::Socket { address, source };
        let (endpoint, buffers) = open(address, Some(server), config).map_err(failed)?;
        let local = endpoint.local_addr().map_err(failed)?;
        Ok(Self {
            endpoint,
            local,
            buffers,
            handshakes: Arc::default(),
            handshake_timeout: config.handshake_timeout,
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

    /// The next connection attempt, or nothing once the endpoint is closed. Cancel-safe.
    ///
    /// Addresses have to prove themselves when many handshakes are in progress; beyond
    /// [`MAX_HANDSHAKES`] they are refused.
    pub async fn accept(&self) -> Option<Incoming> {
        loop {
            let incoming = self.endpoint.accept().await?;
            let in_progress = self.handshakes.load(Ordering::Relaxed);
            if in_progress >= MAX_HANDSHAKES {
                incoming.refuse();
            } else if in_progress >= RETRY_ABOVE && incoming.may_retry() {
                if let Err(error) = incoming.retry() {
                    error.into_incoming().ignore();
                }
            } else {
                return Some(Incoming {
                    incoming,
                    timeout: self.handshake_timeout,
                    _slot: HandshakeSlot::take(&self.handshakes),
                });
            }
        }
    }

    /// Closes every connection at once and refuses new ones.
    pub fn close(&self, code: SessionCode, reason: &str) {
        self.endpoint
            .close(u32::from(code).into(), reason.as_bytes());
    }

    /// Waits until the peers have acknowledged that their connections are closed, at most `limit`.
    pub async fn close_acknowledged(&self, limit: Duration) {
        if timeout(limit, self.endpoint.wait_idle()).await.is_err() {
            warn!(?limit, "some agents did not acknowledge the close");
        }
    }
}

// === impl Incoming ===

impl Incoming {
    /// The peer's address; not proven before the handshake has finished.
    pub fn remote_addr(&self) -> SocketAddr {
        self.incoming.remote_address()
    }

    /// Finishes the handshake within its deadline.
    ///
    /// # Errors
    /// When the peer is slow, or shows no valid certificate.
    pub async fn handshake(self) -> Result<QuicConnection, SessionError> {
        let connecting = self.incoming.accept().map_err(connection_error)?;
        let connection = timeout(self.timeout, connecting)
            .await
            .map_err(|_elapsed| SessionError::HandshakeTimeout)?
            .map_err(connection_error)?;
        QuicConnection::new(connection, None)
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("remote", &self.remote_addr())
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
