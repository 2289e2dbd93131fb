//! Limits of the whole process: a further shard takes from the same permits.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// The permits of a process; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// One for each client connection.
    pub(crate) connections: Arc<Semaphore>,
    /// One for each tunnel, those included that are being opened.
    pub(crate) tunnels: Arc<Semaphore>,
}

// === impl Limits ===

impl Limits {
    /// So many client connections, and as many tunnels.
    pub(crate) fn new(max_connections: usize) -> Self {
        let permits = || Arc::new(Semaphore::new(max_connections.min(Semaphore::MAX_PERMITS)));
        Self {
            connections: permits(),
            tunnels: permits(),
        }
    }
}
