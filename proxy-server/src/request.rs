//! What every frontend turns its bytes into, and who asked.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use towline_protocol::control::AgentKind;
use towline_protocol::head;
use towline_protocol::target::Target;

/// A client's wish for a tunnel.
#[derive(Debug, Clone)]
pub struct Request {
    /// Where the tunnel shall lead.
    pub target: Target,
    /// What kind of agent can serve it.
    pub kind: AgentKind,
    /// Who asks.
    pub client: ClientInfo,
    /// The client's trace context (W3C `traceparent`), passed on as it came.
    pub traceparent: Option<String>,
}

/// Who asks, and through which door.
#[derive(Debug, Clone)]
pub struct ClientInfo {
    /// The listener as the operator wrote it, for example `connect=tcp://127.0.0.1:8443`.
    pub listener: Arc<str>,
    /// The client's address.
    pub address: ClientAddress,
    /// Who the client is by its verified certificate, where the listener asks for one.
    pub identity: Option<Arc<str>>,
}

/// Where a client's connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAddress {
    /// TCP, with or without TLS.
    Ip(SocketAddr),
    /// A Unix socket, which knows no addresses.
    Unix,
}

// === impl ClientAddress ===

impl ClientAddress {
    /// The value of `Forwarded` (RFC 7239) that names this client; an obfuscated identifier (§6.3)
    /// where there is no address.
    pub fn forwarded(self) -> String {
        match self {
            Self::Ip(address) => head::forwarded_for(address),
            Self::Unix => "for=_unix".to_owned(),
        }
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}
