//! One authenticated connection between an agent and a server. **Hides quinn.**

mod stats;

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use quinn::ConnectionError;
use quinn::crypto::rustls::HandshakeData;
use rustls::pki_types::CertificateDer;
use thiserror::Error;
use tokio::time::timeout;
use towline_tls::identity::Identity;

use crate::farewell;
use crate::stream::{OpenStreams, TunnelStream};
use towline_protocol::code::SessionCode;

pub use stats::SessionStats;

/// Application protocols (RFC 7301) of the two dialects, the preferred one first.
pub const ALPN: [&[u8]; 2] = [b"towline/1", b"quic-echo-example"];

/// What is spoken on a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `towline/1`: a control stream, typed refusals, drain.
    Towline,
    /// gardener/quic-reverse-http-tunnel v0.1: no control stream, a certificate is all there is.
    Legacy,
}

/// One session; clones share it.
#[derive(Clone)]
pub struct Session(Arc<Inner>);

struct Inner {
    connection: quinn::Connection,
    dialect: Dialect,
    identity: Identity,
    open: OpenStreams,
    endpoint: Option<(quinn::Endpoint, SocketBuffers)>,
    /// Tunnel streams that this end opens at the same time, if the peer grants as many.
    max_streams: usize,
}

/// What the kernel gave for the asked UDP buffers, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketBuffers {
    /// The receive buffer.
    pub receive: usize,
    /// The send buffer.
    pub send: usize,
}

/// Why a session did not come to be, or ended.
#[derive(Debug, Clone, Error)]
pub enum SessionError {
    /// The handshake did not finish in time: nobody there, or UDP does not get through.
    #[error("no answer within the handshake timeout")]
    HandshakeTimeout,
    /// The dial could not even start.
    #[error("{0}")]
    Unusable(String),
    /// The peer was silent for the idle timeout.
    #[error("the peer was silent for the idle timeout")]
    Silent,
    /// The peer closed the session and said why.
    #[error("closed by the peer as {code}{}{reason}", if reason.is_empty() { "" } else { ": " })]
    Closed {
        /// The code that the peer gave.
        code: SessionCode,
        /// The peer's words, for people.
        reason: String,
    },
    /// This end closed the session.
    #[error("closed by this end")]
    Ended,
    /// TLS or QUIC failed: certificates, versions, a broken peer.
    #[error("{0}")]
    Transport(String),
}

/// Why a session opened no stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OpenError {
    /// All streams that the agent granted, or that this end allows, are in use.
    #[error("the session's tunnels are used up")]
    Full,
    /// The session is gone.
    #[error("the session is gone")]
    Lost,
}

// === impl Session ===

impl Session {
    /// Reads the dialect and the peer's identity off a finished handshake.
    ///
    /// An agent's session owns its socket; a server's sessions share the listener's.
    pub(crate) fn new(
        connection: quinn::Connection,
        endpoint: Option<(quinn::Endpoint, SocketBuffers)>,
        max_streams: u32,
    ) -> Result<Self, SessionError> {
        let dialect = dialect(connection.handshake_data())?;
        let identity = identity(connection.peer_identity())?;
        let open = OpenStreams::default();
        Ok(Self(Arc::new(Inner {
            connection,
            dialect,
            identity,
            open,
            endpoint,
            max_streams: usize::try_from(max_streams).unwrap_or(usize::MAX),
        })))
    }

    /// What is spoken on it.
    pub fn dialect(&self) -> Dialect {
        self.0.dialect
    }

    /// Who the peer is, by its verified certificate.
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// The peer's address now (QUIC sessions may move).
    pub fn remote_address(&self) -> SocketAddr {
        self.0.connection.remote_address()
    }

    /// Tunnel streams open now.
    pub fn open_streams(&self) -> usize {
        self.0.open.count()
    }

    /// Waits until no tunnel stream is open. Cancel-safe.
    pub async fn idle(&self) {
        self.0.open.none().await;
    }

    /// Whether this end's own limit leaves room for a tunnel; the peer may still grant fewer.
    pub fn has_room(&self) -> bool {
        self.open_streams() < self.0.max_streams
    }

    /// Opens a tunnel stream without waiting.
    ///
    /// # Errors
    /// [`OpenError::Full`] when the agent's grant or this end's own limit is used up, [`OpenError::Lost`] when the session
    /// has ended.
    pub fn open(&self) -> Result<TunnelStream, OpenError> {
        if !self.has_room() {
            return Err(OpenError::Full);
        }
        let mut context = Context::from_waker(Waker::noop());
        match pin!(self.0.connection.open_bi()).poll(&mut context) {
            Poll::Ready(Ok((send, recv))) => Ok(TunnelStream::new(send, recv, self.0.open.clone())),
            Poll::Ready(Err(_lost)) => Err(OpenError::Lost),
            Poll::Pending => Err(OpenError::Full),
        }
    }

    /// The next tunnel stream that the peer opens. Cancel-safe.
    ///
    /// # Errors
    /// Why the session ended.
    pub async fn accept(&self) -> Result<TunnelStream, SessionError> {
        let (send, recv) = self.0.connection.accept_bi().await?;
        Ok(TunnelStream::new(send, recv, self.0.open.clone()))
    }

    /// The control stream, opened (by the agent).
    pub(crate) async fn open_control(&self) -> Result<TunnelStream, SessionError> {
        let (send, recv) = self.0.connection.open_bi().await?;
        Ok(TunnelStream::new(send, recv, OpenStreams::default()))
    }

    /// The control stream, accepted (by the server).
    pub(crate) async fn accept_control(&self) -> Result<TunnelStream, SessionError> {
        let (send, recv) = self.0.connection.accept_bi().await?;
        Ok(TunnelStream::new(send, recv, OpenStreams::default()))
    }

    /// The buffers of its own socket; nothing at a server, whose sessions share the listener's.
    pub fn buffers(&self) -> Option<SocketBuffers> {
        self.0.endpoint.as_ref().map(|(_, buffers)| *buffers)
    }

    /// Round-trip time, losses and traffic so far.
    pub fn stats(&self) -> SessionStats {
        let stats = self.0.connection.stats();
        SessionStats {
            rtt: stats.path.rtt,
            congestion_window: stats.path.cwnd,
            mtu: stats.path.current_mtu,
            sent_packets: stats.path.sent_packets,
            lost_packets: stats.path.lost_packets,
            sent_bytes: stats.udp_tx.bytes,
            received_bytes: stats.udp_rx.bytes,
            open_streams: self.open_streams(),
        }
    }

    /// Waits for the end of the session and says why. Cancel-safe.
    pub async fn closed(&self) -> SessionError {
        self.0.connection.closed().await.into()
    }

    /// Why the session has ended; nothing while it lives.
    pub fn end(&self) -> Option<SessionError> {
        self.0.connection.close_reason().map(SessionError::from)
    }

    /// Ends the session at once; every tunnel on it ends with a reset.
    pub fn close(&self, code: SessionCode, reason: &str) {
        farewell::open_window(&self.0.connection);
        self.0
            .connection
            .close(u32::from(code).into(), reason.as_bytes());
    }

    /// Closes the session and stays until the peer knows, at most `limit`.
    pub async fn close_and_wait(&self, code: SessionCode, reason: &str, limit: Duration) {
        self.close(code, reason);
        if let Some((endpoint, _)) = &self.0.endpoint
            && timeout(limit, endpoint.wait_idle()).await.is_err()
        {
            tracing::debug!(?limit, "the server did not acknowledge the close");
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("remote", &self.remote_address())
            .field("dialect", &self.dialect())
            .field("identity", &self.identity().name())
            .finish_non_exhaustive()
    }
}

// === impl SessionError ===

impl SessionError {
    /// A short name for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Closed { code, .. } => code.label(),
            Self::Silent => "silent",
            Self::Ended => "ended_here",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::Unusable(_) => "unusable",
            Self::Transport(_) => "transport",
        }
    }
}

impl From<ConnectionError> for SessionError {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::TimedOut => Self::Silent,
            ConnectionError::LocallyClosed => Self::Ended,
            ConnectionError::ApplicationClosed(close) => Self::Closed {
                code: SessionCode::from_wire(close.error_code.into_inner()),
                reason: String::from_utf8_lossy(&close.reason).into_owned(),
            },
            other => Self::Transport(other.to_string()),
        }
    }
}

fn dialect(handshake: Option<Box<dyn Any>>) -> Result<Dialect, SessionError> {
    let protocol = handshake
        .and_then(|data| data.downcast::<HandshakeData>().ok())
        .and_then(|data| data.protocol);
    match protocol.as_deref() {
        Some(alpn) if alpn == ALPN[0] => Ok(Dialect::Towline),
        Some(alpn) if alpn == ALPN[1] => Ok(Dialect::Legacy),
        other => Err(SessionError::Unusable(format!(
            "no common protocol: {other:?}"
        ))),
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
