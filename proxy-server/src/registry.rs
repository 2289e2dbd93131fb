//! Which sessions are here: register → guard, snapshot. A late leave never hurts a successor.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use thiserror::Error;
use tokio_util::sync::CancellationToken;
use towline_protocol::control::AgentKind;
use towline_tunnel::session::Session;

/// All sessions of this server; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Registry(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    members: RwLock<Arc<Vec<Arc<Member>>>>,
    last: AtomicU64,
    /// No session is taken any more.
    closed: AtomicBool,
}

/// Names one session among all that this process ever had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(u64);

/// What a session's agent says of itself.
#[derive(Debug, Clone)]
pub struct AgentInfo {
    /// The agent's name: its claim, or its certificate's name in the legacy dialect.
    pub id: Arc<str>,
    /// Who it is by its certificate: nobody takes over from an agent of another name.
    pub identity: Arc<str>,
    /// What it serves.
    pub kind: AgentKind,
    /// When this instance of the agent started, in milliseconds since 1970; 0 when unknown.
    pub epoch: u64,
}

/// One session and its agent.
#[derive(Debug)]
pub struct Member {
    /// The session's number.
    pub id: SessionId,
    /// Who is at its other end.
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
    member: Arc<Member>,
}

/// Why a session is not taken.
#[derive(Debug, Error)]
pub enum NotTaken {
    /// An older instance of an agent must not take over from a newer one.
    #[error(
        "a newer instance of agent {0} is connected; give every agent an --agent-id of its own"
    )]
    Stale(Arc<str>),
    /// There are as many sessions as this server takes.
    #[error("this server has all the sessions that it takes")]
    Full,
    /// The server is about to end.
    #[error("this server is shutting down")]
    ShuttingDown,
}

// === impl Registry ===

impl Registry {
    /// Adds a session. Older instances of the same agent take no new tunnels from now on.
    ///
    /// # Errors
    /// When a newer instance of the same agent is here, `limit` sessions are, or the server is
    /// about to end.
    pub fn register(
        &self,
        agent: AgentInfo,
        session: Session,
        limit: usize,
    ) -> Result<Registration, NotTaken> {
        let mut members = self.write();
        if self.is_closed() {
            return Err(NotTaken::ShuttingDown);
        }
        if members.len() >= limit {
            return Err(NotTaken::Full);
        }
        let rivals: Vec<_> = members
            .iter()
            .filter(|member| member.agent.rivals(&agent))
            .cloned()
            .collect();
        if rivals.iter().any(|rival| rival.agent.epoch > agent.epoch) {
            return Err(NotTaken::Stale(agent.id));
        }
        for older in rivals
            .iter()
            .filter(|rival| rival.agent.epoch < agent.epoch)
        {
            older.drain.cancel();
        }
        let id = SessionId(self.0.last.fetch_add(1, Ordering::Relaxed) + 1);
        let member = Arc::new(Member {
            id,
            agent,
            session,
            drain: CancellationToken::new(),
        });
        Arc::make_mut(&mut members).push(Arc::clone(&member));
        Ok(Registration {
            registry: self.clone(),
            member,
        })
    }

    /// Takes no more sessions, and no more tunnels on those that are here.
    pub fn close(&self) {
        let members = self.write();
        self.0.closed.store(true, Ordering::Relaxed);
        for member in members.iter() {
            member.drain();
        }
    }

    /// Whether the server is about to end.
    pub fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::Relaxed)
    }

    /// Every session of this moment.
    pub fn snapshot(&self) -> Arc<Vec<Arc<Member>>> {
        Arc::clone(
            &self
                .0
                .members
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    fn write(&self) -> RwLockWriteGuard<'_, Arc<Vec<Arc<Member>>>> {
        self.0
            .members
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl AgentInfo ===

impl AgentInfo {
    /// Whether both are instances of the same agent, as far as a legacy agent can be told apart.
    fn rivals(&self, other: &Self) -> bool {
        self.id == other.id
            && self.identity == other.identity
            && self.kind == other.kind
            && self.epoch != 0
            && other.epoch != 0
    }
}

// === impl Member ===

impl Member {
    /// Takes no new tunnels from now on.
    pub fn drain(&self) {
        self.drain.cancel();
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
    pub fn member(&self) -> &Arc<Member> {
        &self.member
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut members = self.registry.write();
        Arc::make_mut(&mut members).retain(|member| member.id != self.member.id);
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
