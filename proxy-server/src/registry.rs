//! The sessions of this server: register returns a guard, snapshot lists them. A guard that is
//! dropped late never removes a successor.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use thiserror::Error;
use tokio_util::sync::CancellationToken;
use towline_protocol::ask::Ask;
use towline_protocol::control::AgentKind;
use towline_protocol::ids::{AgentId, Epoch};
use towline_session::session::Session;

/// All sessions of this server; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Registry(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    sessions: RwLock<Arc<Vec<Arc<SessionEntry>>>>,
    last: AtomicU64,
    /// No further session is registered.
    closed: AtomicBool,
}

/// Names one session among all that this process ever had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(u64);

/// What a session's agent says of itself.
#[derive(Debug, Clone)]
pub struct AgentInfo {
    /// The agent's id: its claim, or made from its certificate's name in the legacy dialect.
    pub id: AgentId,
    /// Its name by its certificate: no agent takes over from one of another name.
    pub identity: Arc<str>,
    /// What it serves.
    pub kind: AgentKind,
    /// When this instance of the agent started; nothing when unknown.
    pub epoch: Option<Epoch>,
}

/// One session and its agent.
#[derive(Debug)]
pub struct SessionEntry {
    /// The session's number.
    pub id: SessionId,
    /// The agent at its other end.
    pub agent: AgentInfo,
    /// The session.
    pub session: Session,
    /// Cancelled once the session takes no new tunnels.
    drain: CancellationToken,
}

/// Keeps a session registered; leaves on drop.
#[derive(Debug)]
pub struct Registration {
    registry: Registry,
    entry: Arc<SessionEntry>,
}

/// Why a session is not registered.
#[derive(Debug, Error)]
pub enum RegisterError {
    /// An older instance of an agent must not take over from a newer one.
    #[error(
        "a newer instance of agent {0} is connected; give every agent an --agent-id of its own"
    )]
    Stale(AgentId),
    /// There are as many sessions as this server takes.
    #[error("this server has all the sessions that it takes")]
    Full,
    /// The server is shutting down.
    #[error("this server is shutting down")]
    ShuttingDown,
}

// === impl Registry ===

impl Registry {
    /// Adds a session. Older instances of the same agent take no new tunnels from now on.
    ///
    /// # Errors
    /// When a newer instance of the same agent is here, `limit` sessions are, or the server is
    /// shutting down.
    pub fn register(
        &self,
        agent: AgentInfo,
        session: Session,
        limit: usize,
    ) -> Result<Registration, RegisterError> {
        let mut sessions = self.write();
        if self.is_closed() {
            return Err(RegisterError::ShuttingDown);
        }
        if sessions.len() >= limit {
            return Err(RegisterError::Full);
        }
        let same_agent: Vec<_> = sessions
            .iter()
            .filter(|entry| entry.agent.is_same_agent(&agent))
            .cloned()
            .collect();
        if same_agent
            .iter()
            .any(|other| other.agent.epoch > agent.epoch)
        {
            return Err(RegisterError::Stale(agent.id));
        }
        for older in same_agent
            .iter()
            .filter(|other| other.agent.epoch < agent.epoch)
        {
            older.drain.cancel();
        }
        let id = SessionId(self.0.last.fetch_add(1, Ordering::Relaxed) + 1);
        let entry = Arc::new(SessionEntry {
            id,
            agent,
            session,
            drain: CancellationToken::new(),
        });
        Arc::make_mut(&mut sessions).push(Arc::clone(&entry));
        Ok(Registration {
            registry: self.clone(),
            entry,
        })
    }

    /// Registers no more sessions, and lets no more tunnels use those that are registered.
    pub fn close(&self) {
        let sessions = self.write();
        self.0.closed.store(true, Ordering::Relaxed);
        for entry in sessions.iter() {
            entry.drain();
        }
    }

    /// Whether the server is shutting down.
    pub fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::Relaxed)
    }

    /// Every session of this moment.
    pub fn snapshot(&self) -> Arc<Vec<Arc<SessionEntry>>> {
        Arc::clone(
            &self
                .0
                .sessions
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    fn write(&self) -> RwLockWriteGuard<'_, Arc<Vec<Arc<SessionEntry>>>> {
        self.0
            .sessions
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl AgentInfo ===

impl AgentInfo {
    /// Whether both are instances of the same agent, as far as a legacy agent can be told apart.
    fn is_same_agent(&self, other: &Self) -> bool {
        self.id == other.id
            && self.identity == other.identity
            && self.kind == other.kind
            && self.epoch.is_some()
            && other.epoch.is_some()
    }
}

// === impl SessionEntry ===

impl SessionEntry {
    /// Takes no new tunnels from now on.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// Whether its agent serves what is asked for.
    pub fn serves(&self, ask: &Ask) -> bool {
        self.agent.kind == ask.kind()
    }

    /// Whether new tunnels may use the session.
    pub fn takes_tunnels(&self) -> bool {
        !self.drain.is_cancelled()
    }

    /// Waits until the session takes no new tunnels. Cancel-safe.
    pub async fn draining(&self) {
        self.drain.cancelled().await;
    }
}

// === impl Registration ===

impl Registration {
    /// The registered session.
    pub fn entry(&self) -> &Arc<SessionEntry> {
        &self.entry
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut sessions = self.registry.write();
        Arc::make_mut(&mut sessions).retain(|entry| entry.id != self.entry.id);
    }
}

// === impl SessionId ===

impl SessionId {
    /// The bare number.
    pub fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests;
