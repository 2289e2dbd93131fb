//! The names by which the ends of a session know each other.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The name of an agent, the same over restarts: 1 to [`AgentId::MAX`] printable ASCII characters
/// without spaces, so that it fits log lines and metric labels as it is. Clones share the text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AgentId(Arc<str>);

/// A text is no [`AgentId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "an agent id is 1 to {} printable ASCII characters without spaces",
    AgentId::MAX
)]
pub struct AgentIdError;

/// When an instance of an agent started, in milliseconds since 1970 (UTC): the later of two
/// instances with one id takes over.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

// === impl AgentId ===

impl AgentId {
    /// Longest id in bytes: as long as a host name may be (RFC 1035 §2.3.4).
    pub const MAX: usize = 253;

    /// The id of an agent that cannot tell one, from the name in its certificate: what an id
    /// cannot hold becomes `_`, and what is too long is cut.
    #[must_use]
    pub fn from_certificate_name(name: &str) -> Self {
        let replace = |char: char| if char.is_ascii_graphic() { char } else { '_' };
        let id: String = name.chars().take(Self::MAX).map(replace).collect();
        Self(if id.is_empty() { "_".into() } else { id.into() })
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AgentId {
    type Err = AgentIdError;

    fn from_str(text: &str) -> Result<Self, AgentIdError> {
        let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
        if printable && (1..=Self::MAX).contains(&text.len()) {
            Ok(Self(text.into()))
        } else {
            Err(AgentIdError)
        }
    }
}

impl TryFrom<String> for AgentId {
    type Error = AgentIdError;

    fn try_from(text: String) -> Result<Self, AgentIdError> {
        text.parse()
    }
}

impl From<AgentId> for String {
    fn from(id: AgentId) -> Self {
        id.as_str().to_owned()
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Epoch ===

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_id_has_one_alphabet() {
        let longest = "x".repeat(AgentId::MAX);
        for text in ["a", "rack-7", "spiffe://x/y", "~!@#", &longest] {
            assert_eq!(text.parse::<AgentId>().unwrap().as_str(), text);
        }
        let too_long = format!("{longest}x");
        for text in ["", " ", "a b", "a\tb", "b\u{fc}cher", "\u{7f}", &too_long] {
            assert_eq!(text.parse::<AgentId>(), Err(AgentIdError), "{text:?}");
        }
    }

    #[test]
    fn a_certificate_name_becomes_an_id() {
        let long = "x".repeat(300);
        for (name, id) in [
            ("agent.test", "agent.test"),
            ("agent one", "agent_one"),
            ("b\u{fc}cher", "b_cher"),
            ("", "_"),
            (&long, &long[..AgentId::MAX]),
        ] {
            let made = AgentId::from_certificate_name(name);
            assert_eq!(made.as_str(), id);
            assert_eq!(made.as_str().parse::<AgentId>(), Ok(made));
        }
    }
}
