//! Which session serves a request.

pub mod least_streams;

use std::sync::Arc;

use crate::registry::{Member, SessionId};
use crate::request::Request;

/// Picks a session for `request` that has not been tried yet.
///
/// Sessions that drain or are full, and agents of the other kind, are left out.
pub fn choose(
    sessions: &[Arc<Member>],
    request: &Request,
    tried: &[SessionId],
) -> Option<Arc<Member>> {
    let serves = |index: usize| {
        let member = &sessions[index];
        member.agent.kind == request.kind
            && member.takes_tunnels()
            && member.session.has_room()
            && !tried.contains(&member.id)
    };
    let load = |index: usize| sessions[index].session.open_streams();
    least_streams::pick(sessions.len(), serves, load, |count| {
        fastrand::usize(..count)
    })
    .map(|index| Arc::clone(&sessions[index]))
}
