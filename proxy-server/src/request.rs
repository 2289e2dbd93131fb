//! What a frontend reads from its client: the request, and the client itself.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use towline_protocol::ask::Ask;
use towline_protocol::head;

/// A client's request for a tunnel.
#[derive(Debug, Clone)]
pub struct Request {
    /// What the tunnel is to lead to.
    pub ask: Ask,
    /// The client and the listener it used.
    pub client: ClientInfo,
    /// The client's trace context (W3C `traceparent`), passed on as it came.
    pub traceparent: Option<String>,
}

/// The client and the listener it used.
#[derive(Debug, Clone)]
pub struct ClientInfo {
    /// The listener as the operator wrote it, for example `connect=tcp://127.0.0.1:8443`.
    pub listener: Arc<str>,
    /// The client's address.
    pub address: ClientAddress,
    /// The client's name by its verified certificate, where the listener asks for one.
    pub identity: Option<Arc<str>>,
}

/// Where a client's connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAddress {
    /// TCP, with or without TLS.
    Ip(SocketAddr),
    /// A Unix socket, whose clients have no address.
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
