//! Which session serves a request.

pub mod least_streams;

use std::sync::Arc;

use towline_protocol::ask::Ask;

use crate::registry::{SessionEntry, SessionId};

/// Picks a session that serves `ask` and has not been tried yet.
///
/// Sessions that drain or are full, and agents of the other kind, are left out.
pub fn choose(
    sessions: &[Arc<SessionEntry>],
    ask: &Ask,
    tried: &[SessionId],
) -> Option<Arc<SessionEntry>> {
    let serves = |index: usize| {
        let entry = &sessions[index];
        entry.serves(ask)
            && entry.takes_tunnels()
            && entry.session.has_room()
            && !tried.contains(&entry.id)
    };
    let load = |index: usize| sessions[index].session.open_streams();
    least_streams::pick(sessions.len(), serves, load, |count| {
        fastrand::usize(..count)
    })
    .map(|index| Arc::clone(&sessions[index]))
}
