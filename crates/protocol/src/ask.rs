//! What a server asks of an agent.

use std::fmt;

use crate::control::AgentKind;
use crate::target::{Target, TargetError};

/// How a head asks for the agent's upstream. Port 0 is no target, so the two cannot be confused.
const UPSTREAM: &str = "upstream:0";

/// What a tunnel is to lead to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Ask {
    /// This host and port.
    Connect(Target),
    /// The one fixed upstream of the agent.
    Upstream,
}

// === impl Ask ===

impl Ask {
    /// The kind of agent that serves this.
    #[must_use]
    pub const fn kind(&self) -> AgentKind {
        match self {
            Self::Connect(_) => AgentKind::Connect,
            Self::Upstream => AgentKind::Passthrough,
        }
    }

    /// Reads the request target of a head.
    ///
    /// # Errors
    /// When it is neither `upstream:0` nor a [`Target`].
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        match text {
            UPSTREAM => Ok(Self::Upstream),
            other => other.parse().map(Self::Connect),
        }
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(target) => target.fmt(f),
            Self::Upstream => f.write_str(UPSTREAM),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upstream_is_no_target() {
        assert_eq!(Ask::parse("upstream:0"), Ok(Ask::Upstream));
        assert_eq!(Ask::Upstream.to_string(), "upstream:0");
        assert_eq!(Ask::Upstream.kind(), AgentKind::Passthrough);
        for other in ["upstream:1", "host:80"] {
            let ask = Ask::parse(other).unwrap();
            assert_eq!(ask, Ask::Connect(other.parse().unwrap()));
            assert_eq!(ask.kind(), AgentKind::Connect);
        }
        assert_eq!(Ask::parse("host:0"), Err(TargetError::ZeroPort));
    }
}
