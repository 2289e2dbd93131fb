//! Every reason for which there is no tunnel: one table, for both ends.
//!
//! A [`Reason`] is a closed set that travels as a Proxy-Status error (RFC 9209); the text beside
//! it is for people. What a client sees of it is up to the frontend that the client uses.

use std::fmt;

use thiserror::Error;

/// Longest text of a refusal on the wire, in bytes.
pub const MAX_DETAILS: usize = 200;

/// Why there is no tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The request is not a CONNECT.
    Method,
    /// The head cannot be read, or what it asks for is no `host:port`.
    BadRequest,
    /// The head is longer than we read.
    HeadTooLarge,
    /// The head was not complete in time.
    HeadTimeout,
    /// The client may not use this proxy, or not for this target.
    Forbidden,
    /// The client has not said who it is.
    Unauthenticated,
    /// No session can serve the request.
    NoAgent,
    /// The agent's policy says no.
    Denied,
    /// The name does not resolve.
    Dns,
    /// The target refused or reset the connection.
    Refused,
    /// No route leads to the target.
    Unreachable,
    /// The target did not answer in time.
    DialTimeout,
    /// The agent did not answer in time.
    AgentTimeout,
    /// The session ended before the agent answered.
    AgentLost,
    /// A limit on streams, tunnels or memory is reached.
    Overload,
    /// The request came back to the server that sent it.
    Loop,
    /// A fault of this proxy.
    Internal,
}

/// A reason and a text for people.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct Refusal {
    /// What the machine decides on.
    pub reason: Reason,
    /// What the user reads, such as `dial 10.0.0.7:10250: connection refused`; may be empty.
    pub details: String,
}

// === impl Reason ===

impl Reason {
    /// Every reason; of those with the same Proxy-Status error, the most general comes first.
    pub const ALL: [Self; 17] = [
        Self::Method,
        Self::BadRequest,
        Self::HeadTooLarge,
        Self::HeadTimeout,
        Self::Forbidden,
        Self::Unauthenticated,
        Self::NoAgent,
        Self::Denied,
        Self::Dns,
        Self::Refused,
        Self::Unreachable,
        Self::DialTimeout,
        Self::AgentTimeout,
        Self::AgentLost,
        Self::Overload,
        Self::Loop,
        Self::Internal,
    ];

    /// What to say when there are no details: one line without a full stop.
    #[must_use]
    pub const fn phrase(self) -> &'static str {
        match self {
            Self::Method => "only CONNECT is served here",
            Self::BadRequest => "request cannot be read",
            Self::HeadTooLarge => "request head is too large",
            Self::HeadTimeout => "request head was not complete in time",
            Self::Forbidden => "client is not allowed to reach this target",
            Self::Unauthenticated => "client is not authenticated",
            Self::NoAgent => "no agent is connected that serves this target",
            Self::Denied => "policy of the agent denies this target",
            Self::Dns => "name of the target does not resolve",
            Self::Refused => "target refused the connection",
            Self::Unreachable => "target is unreachable",
            Self::DialTimeout => "target did not accept the connection in time",
            Self::AgentTimeout => "agent did not answer in time",
            Self::AgentLost => "session ended before the agent answered",
            Self::Overload => "too many tunnels",
            Self::Loop => "request came back to its own proxy",
            Self::Internal => "proxy failed internally",
        }
    }

    /// The Proxy-Status error that carries this reason between the two ends (RFC 9209 §2.3).
    #[must_use]
    pub const fn proxy_error(self) -> Option<&'static str> {
        match self {
            Self::Method | Self::HeadTimeout => None,
            Self::BadRequest | Self::HeadTooLarge => Some("http_request_error"),
            Self::Forbidden | Self::Unauthenticated => Some("http_request_denied"),
            Self::NoAgent => Some("destination_unavailable"),
            Self::Denied => Some("destination_ip_prohibited"),
            Self::Dns => Some("dns_error"),
            Self::Refused => Some("connection_refused"),
            Self::Unreachable => Some("destination_ip_unroutable"),
            Self::DialTimeout => Some("connection_timeout"),
            Self::AgentTimeout => Some("http_response_timeout"),
            Self::AgentLost => Some("connection_terminated"),
            Self::Overload => Some("connection_limit_reached"),
            Self::Loop => Some("proxy_loop_detected"),
            Self::Internal => Some("proxy_internal_error"),
        }
    }

    /// The first reason of [`Reason::ALL`] that a Proxy-Status error stands for.
    #[must_use]
    pub fn from_proxy_error(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|reason| reason.proxy_error() == Some(name))
    }

    /// The value of the metric label `reason`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::BadRequest => "bad_request",
            Self::HeadTooLarge => "head_too_large",
            Self::HeadTimeout => "head_timeout",
            Self::Forbidden => "forbidden",
            Self::Unauthenticated => "unauthenticated",
            Self::NoAgent => "no_agent",
            Self::Denied => "denied",
            Self::Dns => "dns",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::DialTimeout => "dial_timeout",
            Self::AgentTimeout => "agent_timeout",
            Self::AgentLost => "agent_lost",
            Self::Overload => "overload",
            Self::Loop => "loop",
            Self::Internal => "internal",
        }
    }

    /// Whether the server may try another session after an agent's refusal or failure: only where
    /// the agent has not touched the target, or may not have.
    #[must_use]
    pub const fn retryable(self) -> bool {
        match self {
            Self::AgentTimeout | Self::AgentLost | Self::Overload => true,
            Self::Method
            | Self::BadRequest
            | Self::HeadTooLarge
            | Self::HeadTimeout
            | Self::Forbidden
            | Self::Unauthenticated
            | Self::NoAgent
            | Self::Denied
            | Self::Dns
            | Self::Refused
            | Self::Unreachable
            | Self::DialTimeout
            | Self::Loop
            | Self::Internal => false,
        }
    }
}

// === impl Refusal ===

impl Refusal {
    /// A refusal that says more than its reason.
    pub fn new(reason: Reason, details: impl Into<String>) -> Self {
        Self {
            reason,
            details: details.into(),
        }
    }
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self::new(reason, "")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.details.is_empty() {
            f.write_str(self.reason.phrase())
        } else {
            f.write_str(&self.details)
        }
    }
}

/// The text as one line of printable ASCII of at most [`MAX_DETAILS`] bytes: runs of white space
/// and control characters become one space, other characters outside ASCII a question mark.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::new();
    for char in text.chars() {
        if line.len() == MAX_DETAILS {
            break;
        }
        match char {
            '!'..='~' => line.push(char),
            _ if char.is_whitespace() || char.is_control() => {
                if !line.is_empty() && !line.ends_with(' ') {
                    line.push(' ');
                }
            }
            _ => line.push('?'),
        }
    }
    line.truncate(line.trim_end().len());
    line
}

#[cfg(test)]
mod tests;
