//! The dialects of the protocol, and what surrounds the payload of a tunnel in each.

use towline_protocol::control::AgentKind;
use towline_protocol::failure::SessionError;

/// Application protocols (RFC 7301) of the two dialects, the preferred one first.
pub const ALPN: [&[u8]; 2] = [b"towline/1", b"quic-echo-example"];

/// What is spoken on a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `towline/1`: a control stream, typed refusals, drain.
    Towline,
    /// gardener/quic-reverse-http-tunnel v0.1: no control stream, and the certificate is the only
    /// identity.
    Legacy,
}

/// What an agent is told about a tunnel besides where it leads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenContext {
    /// The value of `Forwarded` (RFC 7239): the client.
    pub forwarded: Option<String>,
    /// The client's trace context (W3C `traceparent`), as it came.
    pub traceparent: Option<String>,
}

/// What surrounds the payload of a tunnel stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// A request head in front of it, and an answer head.
    Heads,
    /// Nothing: every byte is payload.
    Raw,
}

// === impl Dialect ===

impl Dialect {
    /// The dialect of a negotiated application protocol.
    ///
    /// # Errors
    /// When no protocol was negotiated, or an unknown one.
    pub fn from_alpn(protocol: Option<&[u8]>) -> Result<Self, SessionError> {
        match protocol {
            Some(alpn) if alpn == ALPN[0] => Ok(Self::Towline),
            Some(alpn) if alpn == ALPN[1] => Ok(Self::Legacy),
            other => Err(SessionError::Unusable(format!(
                "no common protocol: {other:?}"
            ))),
        }
    }

    /// How streams for an agent of this kind look.
    pub(crate) fn framing(self, kind: AgentKind) -> Framing {
        match (self, kind) {
            (Self::Legacy, AgentKind::Passthrough) => Framing::Raw,
            (Self::Towline, _) | (Self::Legacy, AgentKind::Connect) => Framing::Heads,
        }
    }
}
