//! Which sessions stay, which drain, and which are not registered.

use towline_protocol::control::AgentKind;
use towline_protocol::ids::Epoch;

use super::{AgentInfo, RegisterError, Registry};
use crate::fixture::{agent_info, session};

const LIMIT: usize = 10;

/// What becomes of a session when another agent connects.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// Both take tunnels.
    BothStay,
    /// The one that was here takes no more tunnels, and stays registered.
    TakenOver,
    /// The one that connects is not registered.
    Stale,
}

#[tokio::test(start_paused = true)]
async fn an_agent_takes_over_from_its_older_instances_only() {
    use Outcome::*;
    let at = |epoch| agent_info("a", "name", epoch);
    let unknown = AgentInfo {
        epoch: None,
        ..at(0)
    };
    let passthrough = |epoch| AgentInfo {
        kind: AgentKind::Passthrough,
        ..at(epoch)
    };
    let table = [
        (at(1), at(2), TakenOver),
        (at(2), at(2), BothStay),
        (at(3), at(2), Stale),
        (at(u64::MAX), at(0), Stale),
        (at(0), at(u64::MAX), TakenOver),
        // The same id is another agent under another identity or of another kind.
        (agent_info("b", "name", 1), at(2), BothStay),
        (agent_info("b", "name", 3), at(2), BothStay),
        (agent_info("a", "other", 1), at(2), BothStay),
        (agent_info("a", "other", 3), at(2), BothStay),
        (passthrough(1), at(2), BothStay),
        (passthrough(3), at(2), BothStay),
        (passthrough(1), passthrough(2), TakenOver),
        // Agents of the legacy dialect cannot be told apart.
        (unknown.clone(), at(2), BothStay),
        (at(2), unknown.clone(), BothStay),
        (unknown.clone(), unknown, BothStay),
    ];
    for (here, comes, expected) in table {
        let name = format!("{comes:?} after {here:?}");
        let registry = Registry::default();
        let first = registry.register(here, session().1, LIMIT).unwrap();
        let outcome = match registry.register(comes, session().1, LIMIT) {
            Ok(second) => {
                assert!(second.entry().takes_tunnels(), "{name}");
                assert_eq!(registry.snapshot().len(), 2, "{name}");
                match first.entry().takes_tunnels() {
                    true => BothStay,
                    false => TakenOver,
                }
            }
            Err(RegisterError::Stale(id)) => {
                assert_eq!(id.as_str(), "a");
                assert!(first.entry().takes_tunnels(), "{name}");
                assert_eq!(registry.snapshot().len(), 1, "{name}");
                Stale
            }
            Err(other) => panic!("{name}: {other}"),
        };
        assert_eq!(outcome, expected, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_takeover_concerns_all_sessions_of_the_older_instances() {
    let registry = Registry::default();
    let register = |epoch| {
        let info = agent_info("a", "name", epoch);
        registry.register(info, session().1, LIMIT).unwrap()
    };
    let older: Vec<_> = [1, 1, 2].into_iter().map(register).collect();
    let taken = |registration: &super::Registration| !registration.entry().takes_tunnels();
    let drained: Vec<_> = older.iter().map(taken).collect();
    assert_eq!(drained, [true, true, false]);
    let newer = [register(3), register(3)];
    assert!(older.iter().all(taken));
    assert!(!newer.iter().any(taken));
}

#[tokio::test(start_paused = true)]
async fn as_many_sessions_as_the_limit_are_registered() {
    let registry = Registry::default();
    let register = |id: &str, limit| {
        let info = agent_info(id, "name", 1);
        registry.register(info, session().1, limit)
    };
    assert!(matches!(register("z", 0), Err(RegisterError::Full)));
    let first = register("a", 2).unwrap();
    let _second = register("b", 2).unwrap();
    assert!(matches!(register("c", 2), Err(RegisterError::Full)));
    // A session that is full displaces none, also where it would take over.
    let newer = agent_info("a", "name", 2);
    let refused = registry.register(newer, session().1, 2);
    assert!(matches!(refused, Err(RegisterError::Full)));
    assert!(first.entry().takes_tunnels());
    drop(first);
    register("c", 2).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_is_closed_drains_all_and_takes_no_more() {
    let registry = Registry::default();
    let register = |id: &str| registry.register(agent_info(id, "name", 1), session().1, LIMIT);
    let first = register("a").unwrap();
    let second = register("b").unwrap();
    assert!(!registry.is_closed());
    registry.close();
    registry.close();
    assert!(registry.is_closed());
    for registration in [&first, &second] {
        assert!(!registration.entry().takes_tunnels());
        registration.entry().draining().await;
    }
    assert!(matches!(register("c"), Err(RegisterError::ShuttingDown)));
    assert_eq!(registry.snapshot().len(), 2, "they leave by themselves");
}

#[tokio::test(start_paused = true)]
async fn a_guard_that_is_dropped_late_leaves_its_successor() {
    let registry = Registry::default();
    let register = |epoch| {
        let info = agent_info("a", "name", epoch);
        registry.register(info, session().1, LIMIT).unwrap()
    };
    let (first, second) = (register(1), register(2));
    assert_ne!(first.entry().id, second.entry().id);
    drop(first);
    let left = registry.snapshot();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].id, second.entry().id);
    assert!(left[0].takes_tunnels());
    drop(second);
    assert!(registry.snapshot().is_empty());
    // Numbers are never used again.
    assert_eq!(register(1).entry().id.number(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_does_not_change() {
    let registry = Registry::default();
    let register = |epoch| {
        let info = agent_info("a", "name", epoch);
        registry.register(info, session().1, LIMIT).unwrap()
    };
    let first = register(1);
    let before = registry.snapshot();
    let second = register(1);
    assert_eq!((before.len(), registry.snapshot().len()), (1, 2));
    drop(first);
    assert_eq!((before.len(), registry.snapshot().len()), (1, 1));
    assert_eq!(registry.snapshot()[0].id, second.entry().id);
    // Its entries are the live ones: a drain shows.
    assert!(before[0].takes_tunnels());
    let newer = agent_info("a", "name", Epoch(2).0);
    let _third = registry.register(newer, session().1, LIMIT).unwrap();
    assert!(before[0].takes_tunnels(), "it had left before the takeover");
    assert!(!second.entry().takes_tunnels());
}
