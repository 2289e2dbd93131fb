//! Which sessions are asked, when, and which of their answers counts. The n-th session that is
//! asked meets the n-th step of the plan, whichever session it is.

use std::time::Duration;

use tokio::time::Instant;
use towline_protocol::ask::Ask;
use towline_protocol::control::AgentKind;
use towline_protocol::refusal::{Reason, Refusal};
use towline_session::dialect::Dialect;
use towline_session::memory::Limits;

use super::{MAX_ATTEMPTS, Opened};
use crate::fixture::Step::{self, *};
use crate::fixture::{DIAL_TIMEOUT, Fixture, config, request, target, within};
use crate::forward::ForwardConfig;
use crate::request::{ClientAddress, Request};

/// How an open ends: after so many seconds, by the n-th session that was asked or as a refusal.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Serves(usize),
    Refused(Reason, &'static str),
}

use End::{Refused, Serves};

/// What becomes of a request with so many sessions that take these steps.
struct Row {
    sessions: usize,
    steps: &'static [Step],
    end: End,
    after_secs: u64,
    asked: usize,
    retries: u64,
}

async fn check(row: Row) {
    let name = format!("{} sessions, {:?}", row.sessions, row.steps);
    let fixture = Fixture::new();
    let _sessions = fixture.connect_agents(row.sessions);
    fixture.plan.then(row.steps);
    let began = Instant::now();
    let request = request();
    let opened = within(fixture.opener.open(&request)).await;
    let (after, asked) = (began.elapsed(), fixture.plan.asked());
    match (opened, row.end) {
        (Ok(Opened { entry, .. }), Serves(index)) => {
            assert_eq!(entry.id, asked[index].session, "{name}");
        }
        (Err(refusal), Refused(reason, details)) => {
            assert_eq!(refusal, Refusal::new(reason, details), "{name}");
        }
        (opened, expected) => panic!("{name}: {opened:?} in place of {expected:?}"),
    }
    assert_eq!(after.as_secs(), row.after_secs, "{name}");
    assert_eq!(asked.len(), row.asked, "{name}");
    assert_eq!(fixture.metric("retries_total"), row.retries, "{name}");
    let mut sessions: Vec<_> = asked.iter().map(|one| one.session).collect();
    sessions.sort_unstable();
    sessions.dedup();
    assert_eq!(
        sessions.len(),
        asked.len(),
        "{name}: a session is asked once"
    );
}

#[tokio::test(start_paused = true)]
async fn only_a_refusal_that_touched_no_target_is_tried_elsewhere() {
    // The other reasons have no name on the wire: no agent can give them.
    let table = [
        (Reason::BadRequest, "bad_request", false),
        (Reason::HeadTooLarge, "head_too_large", false),
        (Reason::Forbidden, "forbidden", false),
        (Reason::Unauthenticated, "unauthenticated", false),
        (Reason::NoAgent, "no_agent", false),
        (Reason::Denied, "denied", false),
        (Reason::Dns, "dns", false),
        (Reason::Refused, "refused", false),
        (Reason::Unreachable, "unreachable", false),
        (Reason::DialTimeout, "dial_timeout", false),
        (Reason::AgentTimeout, "agent_timeout", true),
        (Reason::AgentLost, "agent_lost", true),
        (Reason::Overload, "overload", true),
        (Reason::Loop, "loop", false),
        (Reason::Internal, "internal", false),
    ];
    for (reason, label, retried) in table {
        let fixture = Fixture::new();
        let _sessions = fixture.connect_agents(2);
        fixture.plan.then(&[Refuse(reason), Accept]);
        let opened = within(fixture.opener.open(&request())).await;
        if retried {
            opened.unwrap();
        } else {
            let words = format!("the agent says: {label}");
            assert_eq!(opened.unwrap_err(), Refusal::new(reason, words));
        }
        let asked = 1 + usize::from(retried);
        assert_eq!(fixture.plan.asked().len(), asked, "{label}");
        let retries = fixture.metric("retries_total");
        assert_eq!(retries, u64::from(retried), "{label}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_fails_is_followed_by_another_one() {
    for step in [DieBeforeHead, DieAfterHead, Reset, Finish] {
        let fixture = Fixture::new();
        let _sessions = fixture.connect_agents(2);
        fixture.plan.then(&[step, Accept]);
        let opened = within(fixture.opener.open(&request())).await.unwrap();
        assert_eq!(opened.entry.id, fixture.plan.asked()[1].session, "{step:?}");
        assert_eq!(fixture.metric("retries_total"), 1, "{step:?}");
    }
    check(Row {
        sessions: 2,
        steps: &[Garbage, Accept],
        end: Refused(
            Reason::Internal,
            "the agent's answer: head cannot be read: not HTTP/1.0 or HTTP/1.1",
        ),
        after_secs: 0,
        asked: 1,
        retries: 0,
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn retries_are_the_sessions_asked_after_the_first() {
    // What was not asked is no retry: neither the only session nor the last attempt counts one.
    let lost = || Refused(Reason::AgentLost, "");
    for (sessions, asked, retries) in [(1, 1, 0), (2, 2, 1), (3, 3, 2), (5, MAX_ATTEMPTS, 2)] {
        check(Row {
            sessions,
            steps: &[DieAfterHead, DieBeforeHead, Reset, Accept],
            end: lost(),
            after_secs: 0,
            asked,
            retries,
        })
        .await;
    }
    check(Row {
        sessions: 5,
        steps: &[DieAfterHead, Refuse(Reason::Overload), Accept],
        end: Serves(2),
        after_secs: 0,
        asked: 3,
        retries: 2,
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_does_not_answer_gets_a_second_one_beside_it() {
    let refused = || Refused(Reason::Refused, "the agent says: refused");
    let table: [(usize, &'static [Step], End, u64, usize); 10] = [
        // An answer within half of the deadline is the only one.
        (2, &[AcceptAfter(4)], Serves(0), 4, 1),
        // The second is asked at half of the deadline, and the first that accepts serves.
        (2, &[Silent, Accept], Serves(1), 5, 2),
        (2, &[Silent, AcceptAfter(3)], Serves(1), 8, 2),
        (2, &[AcceptAfter(7), AcceptAfter(3)], Serves(0), 7, 2),
        // The first keeps the whole deadline and its grace, whatever the second says.
        (
            2,
            &[AcceptAfter(8), Refuse(Reason::Refused)],
            Serves(0),
            8,
            2,
        ),
        (2, &[AcceptAfter(8), DieAfterHead], Serves(0), 8, 2),
        // What the first says of the target is final.
        (2, &[RefuseAfter(8, Reason::Refused)], refused(), 8, 2),
        // There may be no second one.
        (1, &[AcceptAfter(8)], Serves(0), 8, 1),
        // A third is asked once the second is lost; a fourth is not.
        (4, &[Silent, DieAfterHead, Accept], Serves(2), 5, 3),
        (
            4,
            &[Silent, DieAfterHead, DieAfterHead, Accept],
            Refused(Reason::AgentLost, ""),
            11,
            3,
        ),
    ];
    for (sessions, steps, end, after_secs, asked) in table {
        let retries = u64::try_from(asked - 1).unwrap();
        // The second session is silent where its step is not given.
        check(Row {
            sessions,
            steps,
            end,
            after_secs,
            asked,
            retries,
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_answer_of_an_agent_is_told_before_the_lack_of_one() {
    let refused = || Refused(Reason::Refused, "the agent says: refused");
    let table: [(usize, &'static [Step], End, u64, usize); 7] = [
        (1, &[Silent], Refused(Reason::AgentTimeout, ""), 11, 1),
        (
            2,
            &[Silent, Silent],
            Refused(Reason::AgentTimeout, ""),
            11,
            2,
        ),
        (2, &[Silent, Refuse(Reason::Refused)], refused(), 11, 2),
        (
            2,
            &[Silent, DieAfterHead],
            Refused(Reason::AgentLost, ""),
            11,
            2,
        ),
        // The lost session comes last, and says less than the agent that refused. What an agent
        // has said of the target is not asked again.
        (3, &[DieAfter(8), Refuse(Reason::Refused)], refused(), 8, 2),
        (
            3,
            &[RefuseAfter(8, Reason::Overload), Refuse(Reason::Refused)],
            refused(),
            8,
            2,
        ),
        (2, &[DieAfterHead, Refuse(Reason::Refused)], refused(), 0, 2),
    ];
    for (sessions, steps, end, after_secs, asked) in table {
        check(Row {
            sessions,
            steps,
            end,
            after_secs,
            asked,
            retries: u64::try_from(asked - 1).unwrap(),
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_attempt_that_comes_second_is_reset() {
    for (steps, serves) in [
        ([Silent, Accept], 1),
        ([AcceptAfter(7), Silent], 0),
        ([AcceptAfter(7), AcceptAfter(3)], 0),
    ] {
        let fixture = Fixture::new();
        let _sessions = fixture.connect_agents(2);
        fixture.plan.then(&steps);
        let opened = within(fixture.opener.open(&request())).await.unwrap();
        let other = 1 - serves;
        let end = fixture.plan.end_of(other).await;
        assert_eq!(end, "reset by the peer as cancelled", "{steps:?}");
        assert_eq!(fixture.plan.asked()[serves].end, None, "{steps:?}");
        drop(opened);
        fixture.assert_empty();
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_that_is_dropped_resets_every_attempt() {
    let fixture = Fixture::new();
    let _sessions = fixture.connect_agents(2);
    let request = request();
    let open = fixture.opener.open(&request);
    let given_up = tokio::time::timeout(DIAL_TIMEOUT - Duration::from_secs(1), open).await;
    given_up.unwrap_err();
    for index in 0..2 {
        let end = fixture.plan.end_of(index).await;
        assert_eq!(end, "reset by the peer as cancelled");
    }
    fixture.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn without_a_session_the_refusal_says_which_one_is_missing() {
    let full = Limits {
        max_streams: 0,
        ..Limits::default()
    };
    let limits = Limits::default();
    let none = (Reason::NoAgent, "no agent is connected");
    let no_passthrough = (Reason::NoAgent, "no passthrough agent is connected");
    let all_full = (Reason::Overload, "the tunnels of all sessions are used up");
    let (connect, passthrough) = (AgentKind::Connect, AgentKind::Passthrough);
    /// A session's kind and limits, and whether it drains.
    type Sessions<'a> = &'a [(AgentKind, Limits, bool)];
    let table: [(Sessions<'_>, Ask, _); 8] = [
        (&[], target(), none),
        (&[], Ask::Upstream, no_passthrough),
        (&[(passthrough, limits, false)], target(), none),
        (&[(connect, limits, false)], Ask::Upstream, no_passthrough),
        (&[(connect, limits, true)], target(), none),
        (&[(connect, full, false)], target(), all_full),
        (&[(connect, full, true)], target(), none),
        (
            &[(connect, full, false), (connect, limits, true)],
            target(),
            all_full,
        ),
    ];
    for (sessions, ask, (reason, words)) in table {
        let fixture = Fixture::new();
        let registrations: Vec<_> = sessions
            .iter()
            .map(|(kind, limits, drains)| {
                let registration = fixture.agent_with(*kind, Dialect::Towline, *limits);
                if *drains {
                    registration.entry().drain();
                }
                registration
            })
            .collect();
        let request = Request { ask, ..request() };
        let refusal = fixture.opener.open(&request).await.unwrap_err();
        assert_eq!(refusal, Refusal::new(reason, words), "{sessions:?}");
        assert_eq!(fixture.metric("retries_total"), 0);
        drop(registrations);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_shuts_down_says_so() {
    for agents in 0..2 {
        let fixture = Fixture::new();
        let _sessions = fixture.connect_agents(agents);
        fixture.registry.close();
        let refusal = fixture.opener.open(&request()).await.unwrap_err();
        let words = "this server is shutting down";
        assert_eq!(refusal, Refusal::new(Reason::NoAgent, words));
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_begins_leaves_the_attempts_alone_and_ends_retries() {
    let fixture = Fixture::new();
    let _sessions = fixture.connect_agents(2);
    fixture
        .plan
        .then(&[RefuseAfter(1, Reason::Overload), Accept]);
    let request = request();
    let close = async {
        fixture.plan.wait_asked(1).await;
        fixture.registry.close();
    };
    let (opened, ()) = tokio::join!(within(fixture.opener.open(&request)), close);
    assert_eq!(opened.unwrap_err().to_string(), "the agent says: overload");
    assert_eq!(fixture.plan.asked().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_session_is_not_asked() {
    let fixture = Fixture::new();
    let one = Limits {
        max_streams: 1,
        ..Limits::default()
    };
    let small = fixture.agent_with(AgentKind::Connect, Dialect::Towline, one);
    fixture.plan.then(&[Accept, Accept]);
    let first = within(fixture.opener.open(&request())).await.unwrap();
    let large = fixture.agent(AgentKind::Connect);
    let second = within(fixture.opener.open(&request())).await.unwrap();
    assert_eq!(
        [first.entry.id, second.entry.id],
        [small.entry().id, large.entry().id]
    );
}

#[tokio::test(start_paused = true)]
async fn the_agent_is_told_of_the_client_as_far_as_the_operator_wants() {
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let ip = ClientAddress::Ip(([192, 0, 2, 7], 4711).into());
    let table = [
        (true, ip, None, Some("for=\"192.0.2.7:4711\"")),
        (true, ClientAddress::Unix, Some(trace), Some("for=_unix")),
        (false, ip, Some(trace), None),
        (false, ip, None, None),
    ];
    for (forwarded, address, traceparent, expected) in table {
        let fixture = Fixture::with(&ForwardConfig {
            forwarded,
            ..config()
        });
        let _session = fixture.agent(AgentKind::Connect);
        fixture.plan.then(&[Accept]);
        let mut request = request();
        request.client.address = address;
        request.traceparent = traceparent.map(str::to_owned);
        within(fixture.opener.open(&request)).await.unwrap();
        let head = fixture.plan.asked()[0].head.clone().unwrap();
        assert_eq!(head.ask, target());
        assert_eq!(head.deadline, Some(DIAL_TIMEOUT));
        assert_eq!(head.forwarded.as_deref(), expected);
        assert_eq!(head.traceparent.as_deref(), traceparent);
    }
}

#[tokio::test(start_paused = true)]
async fn the_second_session_is_told_what_is_left_of_the_deadline() {
    let fixture = Fixture::new();
    let _sessions = fixture.connect_agents(2);
    fixture.plan.then(&[Silent, Accept]);
    within(fixture.opener.open(&request())).await.unwrap();
    let heads = fixture.plan.asked().into_iter();
    let left: Vec<_> = heads.map(|asked| asked.head.unwrap().deadline).collect();
    // A timer fires up to a millisecond late.
    let [Some(first), Some(second)] = left[..] else {
        panic!("{left:?}");
    };
    assert_eq!(first, DIAL_TIMEOUT);
    let half = DIAL_TIMEOUT / 2;
    assert!(
        (half - Duration::from_millis(2)..=half).contains(&second),
        "{second:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_answers_of_agents_are_timed_and_the_lack_of_one_is_not() {
    for (step, answers) in [
        (Accept, 1),
        (Refuse(Reason::Denied), 1),
        (Silent, 0),
        (DieAfterHead, 0),
    ] {
        let fixture = Fixture::new();
        let _session = fixture.agent(AgentKind::Connect);
        fixture.plan.then(&[step]);
        within(fixture.opener.open(&request())).await.ok();
        let count = fixture.metric("answer_seconds_count");
        assert_eq!(count, answers, "{step:?}");
    }
}
