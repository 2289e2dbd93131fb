//! One tunnel as its client, its agent, the access log and the metrics see it.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;
use towline_protocol::code::{SessionCode, StreamCode};
use towline_protocol::control::AgentKind;
use towline_protocol::refusal::{Reason, Refusal};

use super::ForwardConfig;
use crate::fixture::Step::{self, *};
use crate::fixture::{Behavior, Client, Event, Fixture, Told, client_info, config, take_events};

/// The status of a reason in the fixture's frontend.
fn status(reason: Reason) -> String {
    let index = Reason::ALL.iter().position(|one| *one == reason).unwrap();
    (900 + index).to_string()
}

fn access_lines() -> Vec<Event> {
    let mut events = take_events();
    events.retain(Event::is_access);
    events
}

/// The one line of the access log.
fn access_line() -> Event {
    let mut lines = access_lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.remove(0)
}

/// A client whose tunnel is open: its agent sends everything back.
async fn tunnel(fixture: &Fixture, behavior: Behavior) -> Client {
    fixture.plan.then(&[Accept]);
    let mut client = fixture.client(behavior);
    assert_eq!(client.told().await, Told::Accepted);
    client
}

/// A client that waits while an agent dials.
async fn dialing(fixture: &Fixture) -> Client {
    let before = fixture.plan.asked().len();
    fixture.plan.then(&[Silent]);
    let client = fixture.client(Behavior::Plain);
    fixture.plan.wait_asked(before + 1).await;
    client
}

/// Reads what a tunnel echoes of the bytes that came before it.
async fn read_early(client: &mut Client) {
    let mut early = [0; 6];
    client.stream.read_exact(&mut early).await.unwrap();
    assert_eq!(&early, b"early ");
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_is_told_by_one_line() {
    let fixture = Fixture::new();
    let registration = fixture.agent(AgentKind::Connect);
    fixture.plan.then(&[AcceptAfter(2)]);
    let mut client = fixture.client(Behavior::Plain);
    assert_eq!(client.told().await, Told::Accepted);
    client.stream.write_all(b"question").await.unwrap();
    client.stream.shutdown().await.unwrap();
    let mut echoed = String::new();
    client.stream.read_to_string(&mut echoed).await.unwrap();
    assert_eq!(echoed, "early question");
    fixture.clients_gone().await;
    let line = access_line();
    let session = registration.entry().id.to_string();
    for (field, expected) in [
        ("message", "tunnel"),
        ("listener", "connect=tcp://127.0.0.1:8443"),
        ("client", "192.0.2.7:4711"),
        ("identity", ""),
        ("to", "host.test:80"),
        ("agent", "agent"),
        ("session", &session),
        ("status", "200"),
        ("outcome", "finished"),
        ("reason", "finished"),
        ("bytes_to_target", "14"),
        ("bytes_to_client", "14"),
    ] {
        assert_eq!(line.field(field), expected, "{field}");
    }
    for field in ["open_ms", "duration_ms"] {
        let millis: f64 = line.field(field).parse().unwrap();
        assert!((2000.0..2010.0).contains(&millis), "{field}: {millis}");
    }
    for (metric, count) in [
        ("tunnels_total{outcome=\"finished\"}", 1),
        ("open_seconds_count", 1),
        ("answer_seconds_count", 1),
        ("tunnel_seconds_count", 1),
        ("retries_total", 0),
    ] {
        assert_eq!(fixture.metric(metric), count, "{metric}");
    }
    assert!(!client.is_aborted());
    fixture.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_to_the_client_the_log_and_the_metrics() {
    // Agents, their steps, and the refusal.
    let table: [(usize, &[Step], Reason, &str); 5] = [
        (0, &[], Reason::NoAgent, "no agent is connected"),
        (
            1,
            &[Refuse(Reason::Dns)],
            Reason::Dns,
            "the agent says: dns",
        ),
        (
            1,
            &[DieAfterHead],
            Reason::AgentLost,
            "session ended before the agent answered",
        ),
        (2, &[], Reason::AgentTimeout, "agent did not answer in time"),
        (
            1,
            &[Garbage],
            Reason::Internal,
            "the agent's answer: head cannot be read: not HTTP/1.0 or HTTP/1.1",
        ),
    ];
    for (agents, steps, reason, words) in table {
        let fixture = Fixture::new();
        let _sessions = fixture.connect_agents(agents);
        fixture.plan.then(steps);
        let mut client = fixture.client(Behavior::Plain);
        let Told::Refused(refusal) = client.told().await else {
            panic!("{reason:?}: not refused");
        };
        assert_eq!((refusal.reason, &*refusal.to_string()), (reason, words));
        fixture.clients_gone().await;
        let line = access_line();
        assert_eq!(line.field("status"), status(reason));
        assert_eq!(line.field("outcome"), reason.label());
        assert_eq!(line.field("reason"), words);
        assert_eq!(line.field("session"), "", "no session serves");
        let label = reason.label();
        for (metric, count) in [
            (format!("refusals_total{{reason=\"{label}\"}}"), 1),
            ("tunnels_total{outcome=\"refused\"}".to_owned(), 1),
            ("open_seconds_count".to_owned(), 0),
            ("tunnel_seconds_count".to_owned(), 0),
        ] {
            assert_eq!(fixture.metric(&metric), count, "{label}: {metric}");
        }
        fixture.assert_empty();
    }
}

#[tokio::test(start_paused = true)]
async fn the_client_has_its_refusal_a_second_after_its_deadline() {
    let fixture = Fixture::new();
    let _session = fixture.agent(AgentKind::Connect);
    let began = Instant::now();
    let mut client = dialing(&fixture).await;
    let expected = Told::Refused(Reason::AgentTimeout.into());
    assert_eq!(client.told().await, expected);
    assert_eq!(began.elapsed().as_secs(), 11);
    assert_eq!(
        fixture.plan.end_of(0).await,
        "reset by the peer as cancelled"
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_cancels_its_dial() {
    let fixture = Fixture::new();
    let _sessions = fixture.connect_agents(2);
    let client = dialing(&fixture).await;
    // Beside the first one, the second session is asked.
    fixture.plan.wait_asked(2).await;
    client.gone.cancel();
    fixture.clients_gone().await;
    for index in 0..2 {
        let end = fixture.plan.end_of(index).await;
        assert_eq!(end, "reset by the peer as cancelled");
    }
    let line = access_line();
    assert_eq!(line.field("status"), "499");
    assert_eq!(line.field("outcome"), "cancelled");
    assert_eq!(line.field("reason"), "the client left before the answer");
    let metric = "tunnels_total{outcome=\"cancelled\"}";
    assert_eq!(fixture.metric(metric), 1);
    fixture.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_take_its_answer_has_left_too() {
    let fixture = Fixture::new();
    let _session = fixture.agent(AgentKind::Connect);
    fixture.plan.then(&[Accept]);
    let mut client = fixture.client(Behavior::LeavesBeforeAnswer);
    assert_eq!(client.told().await, Told::Nothing);
    fixture.clients_gone().await;
    let end = fixture.plan.end_of(0).await;
    assert!(end.contains("reset by the peer as cancelled"), "{end}");
    let line = access_line();
    assert_eq!(line.field("status"), "499");
    assert_eq!(line.field("agent"), "agent", "a session did serve");
    assert_eq!(fixture.metric("open_seconds_count"), 1);
    fixture.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_beyond_the_limit_is_refused() {
    let fixture = Fixture::limited(&config(), 2);
    let _session = fixture.agent(AgentKind::Connect);
    let open = tunnel(&fixture, Behavior::Plain).await;
    // A tunnel that is being opened counts too.
    let dialing_client = dialing(&fixture).await;
    let mut third = fixture.client(Behavior::Plain);
    let words = "this server has all its tunnels in use";
    let refusal = Refusal::new(Reason::Overload, words);
    assert_eq!(third.told().await, Told::Refused(refusal));
    let line = access_line();
    assert_eq!(line.field("outcome"), "overload");
    assert_eq!(line.field("status"), status(Reason::Overload));
    assert_eq!(fixture.plan.asked().len(), 2, "no agent is asked");
    // Their ends make room for others.
    drop(open);
    dialing_client.gone.cancel();
    fixture.clients_gone().await;
    let _one = tunnel(&fixture, Behavior::Plain).await;
    let _other = tunnel(&fixture, Behavior::Plain).await;
}

#[tokio::test(start_paused = true)]
async fn an_abort_while_an_agent_dials_refuses_the_client() {
    let draining = Refusal::new(Reason::NoAgent, "this server is shutting down");
    let overload = Refusal::new(Reason::Overload, "ended as overload");
    for (code, refusal) in [
        (StreamCode::Draining, draining),
        (StreamCode::Overload, overload),
    ] {
        let fixture = Fixture::new();
        let _session = fixture.agent(AgentKind::Connect);
        let mut client = dialing(&fixture).await;
        assert_eq!(fixture.tunnels.abort_all(code), 1);
        assert_eq!(client.told().await, Told::Refused(refusal.clone()));
        fixture.clients_gone().await;
        let line = access_line();
        assert_eq!(line.field("status"), status(refusal.reason));
        assert_eq!(line.field("outcome"), refusal.reason.label());
        assert_eq!(line.field("reason"), refusal.details);
        let end = fixture.plan.end_of(0).await;
        assert_eq!(end, "reset by the peer as cancelled");
        fixture.assert_empty();
    }
}

/// What cuts an open tunnel.
#[derive(Debug, Clone, Copy)]
enum Cut {
    AbortAll(StreamCode),
    AbortTask,
    CloseSession,
}

#[tokio::test(start_paused = true)]
async fn an_open_tunnel_that_is_cut_is_recorded() {
    let to_agent = |code: StreamCode| format!("reset by the peer as {code}");
    let table = [
        (
            Cut::AbortAll(StreamCode::Draining),
            "draining",
            "ended as draining",
            to_agent(StreamCode::Draining),
        ),
        (
            Cut::AbortAll(StreamCode::Overload),
            "overload",
            "ended as overload",
            to_agent(StreamCode::Overload),
        ),
        (
            Cut::AbortTask,
            "draining",
            "the tunnel's task was aborted",
            to_agent(StreamCode::Cancelled),
        ),
        (
            Cut::CloseSession,
            "session_lost",
            "the session was lost",
            "the session is gone".to_owned(),
        ),
    ];
    for (cut, outcome, words, to_agent) in table {
        let fixture = Fixture::new();
        let registration = fixture.agent(AgentKind::Connect);
        let mut client = tunnel(&fixture, Behavior::Plain).await;
        read_early(&mut client).await;
        match cut {
            Cut::AbortAll(code) => assert_eq!(fixture.tunnels.abort_all(code), 1),
            Cut::AbortTask => assert_eq!(fixture.clients.abort_all(), 1),
            Cut::CloseSession => {
                let session = &registration.entry().session;
                session.close(SessionCode::Internal, "cut");
            }
        }
        fixture.clients_gone().await;
        assert!(client.is_aborted(), "{cut:?}: the client sees a reset");
        assert_eq!(fixture.plan.end_of(0).await, to_agent, "{cut:?}");
        let line = access_line();
        for (field, expected) in [
            ("status", "200"),
            ("outcome", outcome),
            ("reason", words),
            ("agent", "agent"),
            ("bytes_to_target", "6"),
            ("bytes_to_client", "6"),
        ] {
            assert_eq!(line.field(field), expected, "{cut:?}: {field}");
        }
        let metric = format!("tunnels_total{{outcome=\"{outcome}\"}}");
        assert_eq!(fixture.metric(&metric), 1, "{cut:?}");
        assert_eq!(fixture.metric("tunnel_seconds_count"), 1, "{cut:?}");
        fixture.assert_empty();
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_aborted_while_an_agent_dials_is_recorded() {
    let fixture = Fixture::new();
    let _session = fixture.agent(AgentKind::Connect);
    let mut client = dialing(&fixture).await;
    assert_eq!(fixture.clients.abort_all(), 1);
    assert_eq!(client.told().await, Told::Nothing);
    fixture.clients_gone().await;
    let line = access_line();
    assert_eq!(line.field("status"), "500");
    assert_eq!(line.field("outcome"), "draining");
    assert_eq!(line.field("agent"), "");
    let metric = "tunnels_total{outcome=\"draining\"}";
    assert_eq!(fixture.metric(metric), 1);
    let end = fixture.plan.end_of(0).await;
    assert_eq!(end, "reset by the peer as cancelled");
    fixture.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_an_open_tunnel_is_recorded() {
    let fixture = Fixture::new();
    let _session = fixture.agent(AgentKind::Connect);
    let client = tunnel(&fixture, Behavior::PanicsOnRead).await;
    fixture.clients_gone().await;
    assert_eq!(fixture.clients.panics(), 1);
    assert!(client.is_aborted());
    let line = access_line();
    assert_eq!(line.field("status"), "200");
    assert_eq!(line.field("outcome"), "internal");
    assert_eq!(line.field("reason"), "the tunnel's task panicked");
    let metric = "tunnels_total{outcome=\"internal\"}";
    assert_eq!(fixture.metric(metric), 1);
    fixture.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_that_its_agent_resets_is_reset_for_its_client() {
    let fixture = Fixture::new();
    let _session = fixture.agent(AgentKind::Connect);
    fixture.plan.then(&[AcceptAndReset]);
    let mut client = fixture.client(Behavior::Plain);
    assert_eq!(client.told().await, Told::Accepted);
    fixture.clients_gone().await;
    assert!(client.is_aborted());
    let line = access_line();
    assert_eq!(line.field("outcome"), "far_reset");
    assert_eq!(line.field("reason"), "reset by the far end as target_reset");
}

#[tokio::test(start_paused = true)]
async fn a_silent_tunnel_ends_at_its_limit_and_without_one_never() {
    let hour = Duration::from_secs(3600);
    for (idle_timeout, ends) in [(Some(hour), true), (None, false)] {
        let fixture = Fixture::with(&ForwardConfig {
            idle_timeout,
            ..config()
        });
        let _session = fixture.agent(AgentKind::Connect);
        let client = tunnel(&fixture, Behavior::Plain).await;
        let began = Instant::now();
        assert_eq!(fixture.clients.finish_within(2 * hour).await, ends);
        assert_eq!(client.is_aborted(), ends);
        if ends {
            let after = began.elapsed();
            assert!((hour..2 * hour).contains(&after), "{after:?}");
            assert_eq!(access_line().field("outcome"), "idle");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn half_of_a_tunnel_outlives_the_other() {
    let fixture = Fixture::new();
    let _session = fixture.agent(AgentKind::Connect);
    let mut client = tunnel(&fixture, Behavior::Plain).await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(fixture.plan.end_of(0).await, "eof");
    read_early(&mut client).await;
    assert_eq!(client.stream.read(&mut [0]).await.unwrap(), 0);
    fixture.clients_gone().await;
    assert_eq!(access_line().field("outcome"), "finished");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_never_complete_is_counted() {
    let fixture = Fixture::new();
    fixture.forward.client_left_early(&client_info());
    assert_eq!(fixture.metric("clients_left_early_total"), 1);
    assert!(access_lines().is_empty());
}
