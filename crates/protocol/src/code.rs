//! Why a session was closed, and why a stream was reset: every QUIC application error code.
//!
//! The numbers are the wire format. A code that we do not know, as a newer or a legacy peer sends
//! it, is kept as it came.

use std::fmt;

/// Why a session ends: the application error code of `CONNECTION_CLOSE` (RFC 9000 §20.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SessionCode {
    /// No error: the peer has finished.
    Closed,
    /// The server refuses this agent.
    Refused,
    /// The peer sent what the protocol does not allow.
    Protocol,
    /// The peer drains and its deadline has passed.
    Draining,
    /// A newer instance of the same agent took over.
    Replaced,
    /// A limit is reached.
    Overload,
    /// The peer failed internally.
    Internal,
    /// A code of another version or dialect.
    Other(u64),
}

/// Why a stream ends early: the code of `RESET_STREAM` and `STOP_SENDING` (RFC 9000 §20.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamCode {
    /// The asking side left; also what QUIC libraries send by default.
    Cancelled,
    /// The target, or the client on the other side, reset its connection.
    TargetReset,
    /// No byte moved for longer than the idle limit.
    Idle,
    /// A limit is reached.
    Overload,
    /// The peer failed internally.
    Internal,
    /// The peer drains and its deadline has passed.
    Draining,
    /// The peer sent what the protocol does not allow.
    Protocol,
    /// A code of another version or dialect.
    Other(u64),
}

// === impl SessionCode ===

impl SessionCode {
    /// Every code that we send.
    pub const ALL: [Self; 7] = [
        Self::Closed,
        Self::Refused,
        Self::Protocol,
        Self::Draining,
        Self::Replaced,
        Self::Overload,
        Self::Internal,
    ];

    /// What a peer's code means.
    #[must_use]
    pub fn from_wire(wire: u64) -> Self {
        Self::ALL
            .into_iter()
            .find(|code| u64::from(u32::from(*code)) == wire)
            .unwrap_or(Self::Other(wire))
    }

    /// The value of the metric label `code`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Refused => "refused",
            Self::Protocol => "protocol",
            Self::Draining => "draining",
            Self::Replaced => "replaced",
            Self::Overload => "overload",
            Self::Internal => "internal",
            Self::Other(_) => "other",
        }
    }
}

impl From<SessionCode> for u32 {
    /// The number to send; a foreign code beyond `u32`, which is never sent, is `u32::MAX`.
    fn from(code: SessionCode) -> Self {
        match code {
            SessionCode::Closed => 0,
            SessionCode::Refused => 1,
            SessionCode::Protocol => 2,
            SessionCode::Draining => 3,
            SessionCode::Replaced => 4,
            SessionCode::Overload => 5,
            SessionCode::Internal => 6,
            SessionCode::Other(wire) => Self::try_from(wire).unwrap_or(Self::MAX),
        }
    }
}

impl fmt::Display for SessionCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(wire) => write!(f, "code {wire}"),
            known => f.write_str(known.label()),
        }
    }
}

// === impl StreamCode ===

impl StreamCode {
    /// Every code that we send.
    pub const ALL: [Self; 7] = [
        Self::Cancelled,
        Self::TargetReset,
        Self::Idle,
        Self::Overload,
        Self::Internal,
        Self::Draining,
        Self::Protocol,
    ];

    /// What a peer's code means.
    #[must_use]
    pub fn from_wire(wire: u64) -> Self {
        Self::ALL
            .into_iter()
            .find(|code| u64::from(u32::from(*code)) == wire)
            .unwrap_or(Self::Other(wire))
    }

    /// The value of the metric label `code`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::TargetReset => "target_reset",
            Self::Idle => "idle",
            Self::Overload => "overload",
            Self::Internal => "internal",
            Self::Draining => "draining",
            Self::Protocol => "protocol",
            Self::Other(_) => "other",
        }
    }
}

impl From<StreamCode> for u32 {
    /// The number to send; a foreign code beyond `u32`, which is never sent, is `u32::MAX`.
    fn from(code: StreamCode) -> Self {
        match code {
            StreamCode::Cancelled => 0,
            StreamCode::TargetReset => 1,
            StreamCode::Idle => 2,
            StreamCode::Overload => 3,
            StreamCode::Internal => 4,
            StreamCode::Draining => 5,
            StreamCode::Protocol => 6,
            StreamCode::Other(wire) => Self::try_from(wire).unwrap_or(Self::MAX),
        }
    }
}

impl fmt::Display for StreamCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(wire) => write!(f, "code {wire}"),
            known => f.write_str(known.label()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_the_wire_format() {
        let sessions = SessionCode::ALL.map(|code| (u32::from(code), code.label()));
        assert_eq!(
            sessions,
            [
                (0, "closed"),
                (1, "refused"),
                (2, "protocol"),
                (3, "draining"),
                (4, "replaced"),
                (5, "overload"),
                (6, "internal"),
            ]
        );
        let streams = StreamCode::ALL.map(|code| (u32::from(code), code.label()));
        assert_eq!(
            streams,
            [
                (0, "cancelled"),
                (1, "target_reset"),
                (2, "idle"),
                (3, "overload"),
                (4, "internal"),
                (5, "draining"),
                (6, "protocol"),
            ]
        );
        let labels: HashSet<_> = StreamCode::ALL.map(StreamCode::label).into();
        assert!(!labels.contains(StreamCode::Other(7).label()));
    }

    #[test]
    fn known_codes_round_trip() {
        for code in SessionCode::ALL {
            assert_eq!(SessionCode::from_wire(u32::from(code).into()), code);
        }
        for code in StreamCode::ALL {
            assert_eq!(StreamCode::from_wire(u32::from(code).into()), code);
        }
    }

    #[test]
    fn a_legacy_close_keeps_its_number() {
        assert_eq!(SessionCode::from_wire(100), SessionCode::Other(100));
        assert_eq!(SessionCode::Other(100).to_string(), "code 100");
        assert_eq!(StreamCode::Idle.to_string(), "idle");
    }

    proptest! {
        #[test]
        fn every_number_means_something(wire: u64) {
            let sent = u32::try_from(wire).unwrap_or(u32::MAX);
            prop_assert_eq!(u32::from(SessionCode::from_wire(wire)), sent);
            prop_assert_eq!(u32::from(StreamCode::from_wire(wire)), sent);
        }
    }
}
