//! The loop that keeps a session to a server.

use std::io;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::sync::oneshot::{self, Receiver};
use tokio::time::{Instant, sleep};
use towline_protocol::code::{SessionCode, StreamCode};
use towline_protocol::control::{Bye, Draining, MAX_LINE, Message};
use towline_protocol::failure::SessionError;
use towline_protocol::head::Answer;
use towline_protocol::refusal::{Reason, Refusal};
use towline_service::tasks::Tasks;
use towline_session::dialect::Dialect;
use towline_session::session::Session;
use towline_session::stream::{ReadHeadError, TunnelStream};

use crate::doubles::{ask, reset_text};
use crate::servers::{Attempt, DRAIN, HOUR, Running, message, send};

/// Reads the answer of a tunnel in a task of its own, as a server does: what a test itself reads
/// after a wait may have been lost with the session already.
fn answer(readers: &Tasks, mut stream: TunnelStream) -> Receiver<Result<Answer, ReadHeadError>> {
    let (sender, receiver) = oneshot::channel();
    readers.spawn("answer", async move {
        sender.send(stream.read_answer().await).unwrap();
    });
    receiver
}

/// Reads the payload of a tunnel in a task of its own.
fn payload(readers: &Tasks, mut stream: TunnelStream) -> Receiver<io::Result<usize>> {
    let (sender, receiver) = oneshot::channel();
    readers.spawn("payload", async move {
        sender
            .send(stream.read_to_end(&mut Vec::new()).await)
            .unwrap();
    });
    receiver
}

/// A tunnel that the agent has accepted.
async fn tunnel(session: &Session) -> TunnelStream {
    let mut stream = ask(session, "connects", None).await;
    assert_eq!(stream.read_answer().await.unwrap(), Answer::Accepted);
    stream
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_fails_is_repeated_with_growing_delays() {
    let mut running = Running::start(&["s:1"], [Attempt::Fails; 8]);
    let mut last = running.attempt().await;
    for ceiling in [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
        running.observe("s:1 failed to resolve").await;
        let next = running.attempt().await;
        let millis = next.duration_since(last).as_millis();
        assert!((100..=ceiling + 1).contains(&millis), "{millis} {ceiling}");
        last = next;
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_is_replaced() {
    let towline = Attempt::Connects(Dialect::Towline);
    let mut running = Running::start(&["s:1"], [towline, towline]);
    running.attempt().await;
    let first = running.accepted.recv().await.unwrap();
    running.observe("s:1 connected").await;
    let mut lost = tunnel(&first.session).await;
    first.session.close(SessionCode::Overload, "go away");
    let ended = Instant::now();
    lost.read_to_end(&mut Vec::new()).await.unwrap_err();
    running
        .observe("s:1 disconnected as overload: closed by the peer as overload: go away")
        .await;
    let millis = running.attempt().await.duration_since(ended).as_millis();
    assert!((100..=201).contains(&millis), "{millis}");
    let second = running.accepted.recv().await.unwrap();
    running.observe("s:1 connected").await;
    tunnel(&second.session).await;
    let lost = ["tunnels_total{outcome=\"session_lost\"} 1"];
    running.agent.assert_metrics(&lost);
}

#[tokio::test(start_paused = true)]
async fn only_a_session_that_lasted_resets_the_delays() {
    for (lasted, short) in [(30_000, true), (29_000, false)] {
        let mut longest = 0;
        for _ in 0..20 {
            let plan = [Attempt::Fails; 6]
                .into_iter()
                .chain([Attempt::Connects(Dialect::Towline)]);
            let mut running = Running::start(&["s:1"], plan);
            let accepted = running.accepted.recv().await.unwrap();
            sleep(Duration::from_millis(lasted)).await;
            accepted.session.close(SessionCode::Closed, "");
            let ended = Instant::now();
            for _ in 0..7 {
                running.attempt().await;
            }
            let delay = running.attempt().await.duration_since(ended);
            longest = delay.as_millis().max(longest);
        }
        // Of twenty delays of up to ten seconds one is longer than the first delay may be.
        assert_eq!(longest <= 201, short, "{lasted} {longest}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_an_agent_without_a_session_at_once() {
    // While it connects, and while it waits before the next attempt.
    for plan in [&[][..], &[Attempt::Fails]] {
        let mut running = Running::start(&["s:1"], plan.iter().copied());
        running.attempt().await;
        if !plan.is_empty() {
            running.observe("s:1 failed to resolve").await;
        }
        running.shutdown.cancel();
        assert_eq!(running.stopped().await, Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_is_announced_and_ends_with_the_session() {
    let (mut running, mut accepted) = Running::connected(Dialect::Towline).await;
    running.shutdown.cancel();
    let control = accepted.control.as_mut().unwrap();
    let deadline_ms = u64::try_from(DRAIN.as_millis()).unwrap();
    let expected = Message::Draining(Draining { deadline_ms });
    assert_eq!(message(control).await, expected);
    accepted.session.close(SessionCode::Closed, "drained");
    running
        .observe("s:1 disconnected as closed: closed by the peer as closed: drained")
        .await;
    assert_eq!(running.stopped().await, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_lets_live_tunnels_finish() {
    for dialect in [Dialect::Towline, Dialect::Legacy] {
        let readers = Tasks::new();
        let (mut running, accepted) = Running::connected(dialect).await;
        let mut stream = tunnel(&accepted.session).await;
        let local = running.agent.connected.recv().await.unwrap();
        running.shutdown.cancel();
        sleep(Duration::from_secs(10)).await;
        assert_eq!(accepted.session.close_reason(), None);
        stream.finish();
        let read = payload(&readers, stream);
        drop(local);
        assert_eq!(read.await.unwrap().unwrap(), 0);
        let ended = match dialect {
            Dialect::Towline => {
                accepted.session.close(SessionCode::Closed, "drained");
                "s:1 disconnected as closed: closed by the peer as closed: drained"
            }
            // The agent closes, since its server knows of no drain.
            Dialect::Legacy => "s:1 disconnected as ended_here: drained",
        };
        running.observe(ended).await;
        let finished = ["tunnels_total{outcome=\"finished\"} 1"];
        running.agent.assert_metrics(&finished);
        assert_eq!(running.stopped().await, Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn what_outlives_the_drain_deadline_is_reset() {
    for dialect in [Dialect::Towline, Dialect::Legacy] {
        let readers = Tasks::new();
        let (mut running, accepted) = Running::connected(dialect).await;
        let live = payload(&readers, tunnel(&accepted.session).await);
        let _local = running.agent.connected.recv().await.unwrap();
        running.shutdown.cancel();
        let began = Instant::now();
        let error = live.await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), reset_text(StreamCode::Draining));
        assert_eq!(began.elapsed(), DRAIN);
        running
            .observe("s:1 disconnected as ended_here: drain deadline")
            .await;
        let expected = SessionError::Closed {
            code: SessionCode::Draining,
            reason: "drain deadline".to_owned(),
        };
        assert_eq!(accepted.session.closed().await, expected);
        let draining = ["tunnels_total{outcome=\"draining\"} 1"];
        running.agent.assert_metrics(&draining);
        running.stopped().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_that_is_being_opened_at_the_drain_deadline_is_refused() {
    let readers = Tasks::new();
    let (running, accepted) = Running::connected(Dialect::Towline).await;
    running.shutdown.cancel();
    sleep(DRAIN - Duration::from_secs(1)).await;
    let began = Instant::now();
    let dialing = ask(&accepted.session, "hangs", Some(HOUR)).await;
    let unasked = accepted.session.open_stream().unwrap();
    for stream in [dialing, unasked].map(|stream| answer(&readers, stream)) {
        let down = Refusal::new(Reason::AgentLost, "the agent is shutting down");
        let answer = stream.await.unwrap().unwrap();
        assert_eq!(answer, Answer::Refused(down));
    }
    assert!(began.elapsed() <= Duration::from_millis(1001));
    let refused = ["refusals_total{reason=\"agent_lost\"} 2"];
    running.agent.assert_metrics(&refused);
    running.stopped().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_drains_keeps_its_session_until_it_closes_it() {
    let (mut running, mut accepted) = Running::connected(Dialect::Towline).await;
    let control = accepted.control.as_mut().unwrap();
    let mut stream = tunnel(&accepted.session).await;
    let mut local = running.agent.connected.recv().await.unwrap();
    let reason = "maintenance".to_owned();
    send(control, &Message::Draining(Draining { deadline_ms: 1 })).await;
    send(control, &Message::Bye(Bye { reason })).await;
    control.write_all(b"{\"type\":\"later\"}\n").await.unwrap();
    sleep(HOUR).await;
    stream.write_all(b"payload").await.unwrap();
    stream.finish();
    let mut text = String::new();
    local.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "payload");
    accepted.session.close(SessionCode::Closed, "drained");
    running
        .observe("s:1 disconnected as closed: closed by the peer as closed: drained")
        .await;
    running.attempt().await;
}

#[tokio::test(start_paused = true)]
async fn a_control_stream_that_breaks_the_protocol_closes_its_session() {
    let long = [b'x'; MAX_LINE + 1];
    for (bytes, finish, words) in [
        (&b"nonsense\n"[..], false, "malformed control message: "),
        (&long, false, "control message is longer than 65536 bytes"),
        (b"", true, "the peer ended the control stream"),
    ] {
        let (mut running, mut accepted) = Running::connected(Dialect::Towline).await;
        let control = accepted.control.as_mut().unwrap();
        // The last bytes may find the session closed.
        control.write_all(bytes).await.ok();
        if finish {
            control.finish();
        }
        let closed = accepted.session.closed().await;
        let SessionError::Closed { code, reason } = closed else {
            panic!("{closed}");
        };
        assert_eq!(code, SessionCode::Protocol);
        assert!(reason.starts_with(words), "{reason}");
        running
            .observe(&format!("s:1 disconnected as ended_here: {reason}"))
            .await;
        running.attempt().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_tunnel_leaves_its_session_alone() {
    let (mut running, accepted) = Running::connected(Dialect::Towline).await;
    let mut broken = ask(&accepted.session, "panics", None).await;
    broken.read_answer().await.unwrap_err();
    tunnel(&accepted.session).await;
    assert_eq!(accepted.session.close_reason(), None);
    running.observed.try_recv().unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn each_server_has_a_session_of_its_own() {
    let legacy = Attempt::Connects(Dialect::Legacy);
    let mut running = Running::start(&["s:1", "s:2"], [legacy, legacy]);
    let mut sessions = Vec::new();
    for server in ["s:1", "s:2"] {
        sessions.push(running.accepted.recv().await.unwrap());
        running.observe(&format!("{server} connected")).await;
    }
    running.shutdown.cancel();
    assert_eq!(running.stopped().await, Duration::ZERO);
}
