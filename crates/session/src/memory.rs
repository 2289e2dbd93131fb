//! A transport within one process: two ends of a session without UDP, TLS or certificates.
//!
//! For tests of everything above a session. It keeps the contract of [`Transport`]: each stream
//! has a bounded buffer each way, halves end as finished or as reset, a stop reaches the sender,
//! and a close ends all streams.

mod half;
mod stream;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use towline_protocol::code::SessionCode;
use towline_protocol::failure::{OpenError, SessionError};
use towline_tls::identity::Identity;

use crate::dialect::Dialect;
use crate::memory::stream::MemoryStream;
use crate::session::Session;
use crate::transport::{BoxFuture, RawStream, Transport, TransportKind, TransportStats};

/// Tunnels that a session carries, and bytes that a stream buffers each way.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Streams that the server's end opens at the same time.
    pub max_streams: u32,
    /// Bytes that one half of a stream buffers.
    pub buffer: usize,
}

/// One end of a connection.
#[derive(Debug)]
struct MemoryTransport {
    link: Arc<Link>,
    side: usize,
}

/// What both ends share; index 0 is the agent's side, 1 the server's.
#[derive(Debug)]
struct Link {
    state: Mutex<State>,
    /// Notified of each stream to accept, and of the close.
    changed: [Notify; 2],
    buffer: usize,
}

#[derive(Debug, Default)]
struct State {
    /// Streams that this side may accept.
    waiting: [VecDeque<MemoryStream>; 2],
    /// Every stream, so that a close ends it.
    streams: Vec<stream::Weak>,
    /// How the connection ended, as each side sees it.
    closed: Option<[SessionError; 2]>,
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_streams: 10_000,
            buffer: 64 * 1024,
        }
    }
}

/// Both ends of one session in the given dialect: the agent's and the server's.
pub fn pair(dialect: Dialect, limits: Limits) -> (Session, Session) {
    let link = Arc::new(Link {
        state: Mutex::default(),
        changed: Default::default(),
        buffer: limits.buffer,
    });
    let end = |side, peer: &str| {
        let transport = MemoryTransport {
            link: Arc::clone(&link),
            side,
        };
        let identity = Identity {
            uris: Vec::new(),
            dns_names: vec![peer.to_owned()],
            common_name: None,
        };
        Session::new(transport, dialect, identity, limits.max_streams)
    };
    (end(0, "server.memory"), end(1, "agent.memory"))
}

// === impl Link ===

impl Link {
    /// Every change under this lock is complete when it is released.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the connection unless it has ended, with what each side sees.
    fn close(&self, ends: [SessionError; 2]) {
        let streams = {
            let mut state = self.state();
            if state.closed.is_some() {
                return;
            }
            state.closed = Some(ends);
            state.waiting = Default::default();
            std::mem::take(&mut state.streams)
        };
        for stream in streams {
            stream.lose();
        }
        for changed in &self.changed {
            changed.notify_waiters();
        }
    }
}

// === impl MemoryTransport ===

impl Transport for MemoryTransport {
    fn kind(&self) -> TransportKind {
        TransportKind::Memory
    }

    fn remote_addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, 0).into()
    }

    fn try_open(&self) -> Result<RawStream, OpenError> {
        let mut state = self.link.state();
        if state.closed.is_some() {
            return Err(OpenError::Lost);
        }
        let (own, peers) = stream::pair(self.link.buffer);
        state.streams.retain(stream::Weak::is_live);
        state.streams.push(own.downgrade());
        state.waiting[1 - self.side].push_back(peers);
        drop(state);
        self.link.changed[1 - self.side].notify_waiters();
        Ok(RawStream::Other(Box::new(own)))
    }

    fn accept(&self) -> BoxFuture<'_, Result<RawStream, SessionError>> {
        Box::pin(async {
            loop {
                let changed = self.link.changed[self.side].notified();
                {
                    let mut state = self.link.state();
                    if let Some(ends) = &state.closed {
                        return Err(ends[self.side].clone());
                    }
                    if let Some(stream) = state.waiting[self.side].pop_front() {
                        return Ok(RawStream::Other(Box::new(stream)));
                    }
                }
                changed.await;
            }
        })
    }

    fn closed(&self) -> BoxFuture<'_, SessionError> {
        Box::pin(async {
            loop {
                let changed = self.link.changed[self.side].notified();
                if let Some(end) = self.close_reason() {
                    return end;
                }
                changed.await;
            }
        })
    }

    fn close_reason(&self) -> Option<SessionError> {
        let state = self.link.state();
        state.closed.as_ref().map(|ends| ends[self.side].clone())
    }

    fn close(&self, code: SessionCode, reason: &str) {
        let peer = SessionError::Closed {
            code,
            reason: reason.to_owned(),
        };
        self.link.close(match self.side {
            0 => [SessionError::Ended, peer],
            _ => [peer, SessionError::Ended],
        });
    }

    fn close_acknowledged(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn stats(&self) -> TransportStats {
        TransportStats::default()
    }
}

impl Drop for MemoryTransport {
    /// An end that is gone is silent to the other.
    fn drop(&mut self) {
        self.link
            .close([SessionError::Silent, SessionError::Silent]);
    }
}

#[cfg(test)]
mod tests;
