//! One QUIC connection whose handshake has finished.

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use quinn::ConnectionError;
use quinn::crypto::rustls::HandshakeData;
use rustls::pki_types::CertificateDer;
use towline_protocol::code::SessionCode;
use towline_protocol::failure::{OpenError, SessionError};
use towline_tls::identity::Identity;

use crate::close_workaround;
use crate::endpoint::SocketBuffers;
use crate::stats::PathStats;
use crate::stream::QuicStream;

/// A QUIC connection. An agent's owns its UDP socket; a server's connections share the listener's.
pub struct QuicConnection {
    connection: quinn::Connection,
    identity: Identity,
    endpoint: Option<(quinn::Endpoint, SocketBuffers)>,
}

// === impl QuicConnection ===

impl QuicConnection {
    /// Reads the peer's identity off a finished handshake.
    pub(crate) fn new(
        connection: quinn::Connection,
        endpoint: Option<(quinn::Endpoint, SocketBuffers)>,
    ) -> Result<Self, SessionError> {
        let identity = identity(connection.peer_identity())?;
        Ok(Self {
            connection,
            identity,
            endpoint,
        })
    }

    /// The application protocol (ALPN, RFC 7301) that both ends agreed on.
    pub fn alpn(&self) -> Option<Vec<u8>> {
        let data = self.connection.handshake_data()?;
        data.downcast::<HandshakeData>().ok()?.protocol
    }

    /// The peer, by its verified certificate.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The peer's address now (QUIC connections may move).
    pub fn remote_addr(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// Opens a stream without waiting.
    ///
    /// # Errors
    /// [`OpenError::Full`] when the peer's grant is used up, [`OpenError::Lost`] when the
    /// connection has ended.
    pub fn try_open(&self) -> Result<QuicStream, OpenError> {
        let mut context = Context::from_waker(Waker::noop());
        match pin!(self.connection.open_bi()).poll(&mut context) {
            Poll::Ready(Ok(halves)) => Ok(QuicStream::new(halves)),
            Poll::Ready(Err(_lost)) => Err(OpenError::Lost),
            Poll::Pending => Err(OpenError::Full),
        }
    }

    /// The next stream that the peer opens. Cancel-safe.
    ///
    /// # Errors
    /// Why the connection ended.
    pub async fn accept(&self) -> Result<QuicStream, SessionError> {
        let halves = self
            .connection
            .accept_bi()
            .await
            .map_err(connection_error)?;
        Ok(QuicStream::new(halves))
    }

    /// Waits for the end of the connection and returns its cause. Cancel-safe.
    pub async fn closed(&self) -> SessionError {
        connection_error(self.connection.closed().await)
    }

    /// Why the connection has ended; nothing while it lives.
    pub fn close_reason(&self) -> Option<SessionError> {
        self.connection.close_reason().map(connection_error)
    }

    /// Ends the connection at once; every stream on it ends with a reset.
    pub fn close(&self, code: SessionCode, reason: &str) {
        close_workaround::open_window(&self.connection);
        self.connection
            .close(u32::from(code).into(), reason.as_bytes());
    }

    /// Waits until the peer has acknowledged the close. Returns at once for a connection that
    /// shares its socket: the listener waits for all of those.
    pub async fn close_acknowledged(&self) {
        if let Some((endpoint, _)) = &self.endpoint {
            endpoint.wait_idle().await;
        }
    }

    /// Round-trip time, losses and traffic so far.
    pub fn stats(&self) -> PathStats {
        let stats = self.connection.stats();
        PathStats {
            rtt: stats.path.rtt,
            congestion_window: stats.path.cwnd,
            mtu: stats.path.current_mtu,
            sent_packets: stats.path.sent_packets,
            lost_packets: stats.path.lost_packets,
            sent_bytes: stats.udp_tx.bytes,
            received_bytes: stats.udp_rx.bytes,
        }
    }

    /// The buffers of its own socket; nothing for a connection that shares one.
    pub fn socket_buffers(&self) -> Option<SocketBuffers> {
        self.endpoint.as_ref().map(|(_, buffers)| *buffers)
    }
}

impl fmt::Debug for QuicConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicConnection")
            .field("remote", &self.remote_addr())
            .field("identity", &self.identity.name())
            .finish_non_exhaustive()
    }
}

pub(crate) fn connection_error(error: ConnectionError) -> SessionError {
    match error {
        ConnectionError::TimedOut => SessionError::Silent,
        ConnectionError::LocallyClosed => SessionError::Ended,
        ConnectionError::ApplicationClosed(close) => SessionError::Closed {
            code: SessionCode::from_wire(close.error_code.into_inner()),
            reason: String::from_utf8_lossy(&close.reason).into_owned(),
        },
        other => SessionError::Transport(other.to_string()),
    }
}

fn identity(peer: Option<Box<dyn Any>>) -> Result<Identity, SessionError> {
    let chain = peer.and_then(|peer| peer.downcast::<Vec<CertificateDer<'static>>>().ok());
    let Some(leaf) = chain.as_ref().and_then(|chain| chain.first()) else {
        return Err(SessionError::Unusable(
            "the peer showed no certificate".to_owned(),
        ));
    };
    Identity::of(leaf).map_err(|error| SessionError::Unusable(error.to_string()))
}
