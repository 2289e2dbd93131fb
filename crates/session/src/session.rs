//! One authenticated connection between an agent and a server, over any transport.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use towline_protocol::ask::Ask;
use towline_protocol::code::SessionCode;
use towline_protocol::control::AgentKind;
use towline_protocol::failure::{OpenError, SessionError};
use towline_protocol::head::RequestHead;
use towline_protocol::refusal::Refusal;
use towline_quic::connection::QuicConnection;
use towline_tls::identity::Identity;

use crate::dialect::{Dialect, Framing, OpenContext};
use crate::incoming::IncomingTunnel;
use crate::outgoing;
use crate::stream::{OpenStreams, TunnelStream};
use crate::transport::{Transport, TransportKind, TransportStats};

/// One session; clones share it.
#[derive(Clone)]
pub struct Session(Arc<Inner>);

struct Inner {
    transport: Box<dyn Transport>,
    dialect: Dialect,
    identity: Identity,
    open: OpenStreams,
    /// Tunnel streams that this end opens at the same time, if the peer grants as many.
    max_streams: usize,
}

/// What a session and its transport measure.
#[derive(Debug, Clone, Copy)]
pub struct SessionStats {
    /// Tunnel streams open now.
    pub open_streams: usize,
    /// What the transport measures.
    pub transport: TransportStats,
}

// === impl Session ===

impl Session {
    /// A session with a peer that `identity` names, over any transport.
    pub fn new(
        transport: impl Transport,
        dialect: Dialect,
        identity: Identity,
        max_streams: u32,
    ) -> Self {
        Self(Arc::new(Inner {
            transport: Box::new(transport),
            dialect,
            identity,
            open: OpenStreams::default(),
            max_streams: usize::try_from(max_streams).unwrap_or(usize::MAX),
        }))
    }

    /// A session over a QUIC connection; its application protocol tells the dialect.
    ///
    /// # Errors
    /// When the peer speaks neither dialect.
    pub fn over_quic(connection: QuicConnection, max_streams: u32) -> Result<Self, SessionError> {
        let dialect = Dialect::from_alpn(connection.alpn().as_deref())?;
        let identity = connection.identity().clone();
        Ok(Self::new(connection, dialect, identity, max_streams))
    }

    /// Opens a tunnel for what is asked: stream, head, answer. A failure of the session or of the
    /// agent is a refusal as well.
    ///
    /// # Errors
    /// Why the agent refuses, or why it could not be asked; [`AgentTimeout`] a grace of one second
    /// after `deadline`.
    ///
    /// [`AgentTimeout`]: towline_protocol::refusal::Reason::AgentTimeout
    pub async fn open_tunnel(
        &self,
        ask: &Ask,
        context: &OpenContext,
        deadline: Instant,
    ) -> Result<TunnelStream, Refusal> {
        let stream = self.open_stream().map_err(outgoing::unopened)?;
        match self.0.dialect.framing(ask.kind()) {
            // The agent cannot refuse in words: payload may follow at once.
            Framing::Raw => Ok(stream),
            Framing::Heads => {
                let head = RequestHead {
                    ask: ask.clone(),
                    deadline: None,
                    forwarded: context.forwarded.clone(),
                    traceparent: context.traceparent.clone(),
                };
                outgoing::ask(stream, head, deadline).await
            }
        }
    }

    /// Whether an agent answers this before payload flows.
    pub fn awaits_answer(&self, ask: &Ask) -> bool {
        self.0.dialect.framing(ask.kind()) == Framing::Heads
    }

    /// The next tunnel that the server asks for; `kind` is what this agent does with tunnels.
    /// Cancel-safe.
    ///
    /// # Errors
    /// Why the session ended.
    pub async fn accept_tunnel(&self, kind: AgentKind) -> Result<IncomingTunnel, SessionError> {
        let stream = self.accept_stream().await?;
        Ok(IncomingTunnel::new(stream, self.0.dialect.framing(kind)))
    }

    /// Opens a bare stream that counts as a tunnel, without waiting: for peers of tests, which
    /// write heads by hand. [`Self::open_tunnel`] is for programs.
    ///
    /// # Errors
    /// [`OpenError::Full`] when the agent's grant or this end's own limit is used up,
    /// [`OpenError::Lost`] when the session has ended.
    pub fn open_stream(&self) -> Result<TunnelStream, OpenError> {
        if !self.has_room() {
            return Err(OpenError::Full);
        }
        let raw = self.0.transport.try_open()?;
        Ok(TunnelStream::new(raw, self.0.open.clone()))
    }

    /// The next bare stream that the peer opens; it counts as a tunnel. For peers of tests, as
    /// [`Self::open_stream`]. Cancel-safe.
    ///
    /// # Errors
    /// Why the session ended.
    pub async fn accept_stream(&self) -> Result<TunnelStream, SessionError> {
        let raw = self.0.transport.accept().await?;
        Ok(TunnelStream::new(raw, self.0.open.clone()))
    }

    /// The control stream, opened (by the agent, as the first stream of the session).
    pub(crate) fn open_control(&self) -> Result<TunnelStream, OpenError> {
        let raw = self.0.transport.try_open()?;
        Ok(TunnelStream::new(raw, OpenStreams::default()))
    }

    /// The control stream, accepted (by the server).
    pub(crate) async fn accept_control(&self) -> Result<TunnelStream, SessionError> {
        let raw = self.0.transport.accept().await?;
        Ok(TunnelStream::new(raw, OpenStreams::default()))
    }

    /// The dialect of the protocol that the peer speaks.
    pub fn dialect(&self) -> Dialect {
        self.0.dialect
    }

    /// What carries the session.
    pub fn transport(&self) -> TransportKind {
        self.0.transport.kind()
    }

    /// The peer, by its verified certificate.
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// The peer's address now (QUIC sessions may move).
    pub fn remote_addr(&self) -> SocketAddr {
        self.0.transport.remote_addr()
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

    /// What the session and its transport measure.
    pub fn stats(&self) -> SessionStats {
        SessionStats {
            open_streams: self.open_streams(),
            transport: self.0.transport.stats(),
        }
    }

    /// Waits for the end of the session and returns its cause. Cancel-safe.
    pub async fn closed(&self) -> SessionError {
        self.0.transport.closed().await
    }

    /// Why the session has ended; nothing while it lives.
    pub fn close_reason(&self) -> Option<SessionError> {
        self.0.transport.close_reason()
    }

    /// Ends the session at once; every tunnel on it ends with a reset.
    pub fn close(&self, code: SessionCode, reason: &str) {
        self.0.transport.close(code, reason);
    }

    /// Closes the session and waits until the peer has acknowledged that, at most `limit`.
    pub async fn close_and_wait(&self, code: SessionCode, reason: &str, limit: Duration) {
        self.close(code, reason);
        let acknowledged = self.0.transport.close_acknowledged();
        if timeout(limit, acknowledged).await.is_err() {
            tracing::debug!(?limit, "the server did not acknowledge the close");
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("transport", &self.transport())
            .field("remote", &self.remote_addr())
            .field("dialect", &self.dialect())
            .field("identity", &self.identity().name())
            .finish_non_exhaustive()
    }
}
