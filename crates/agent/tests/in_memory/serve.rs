//! One tunnel from its head to its end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, advance};
use towline_agent::config::TunnelConfig;
use towline_agent::connector::Connector;
use towline_agent::session_loop::StreamHandler;
use towline_protocol::ask::Ask;
use towline_protocol::code::{SessionCode, StreamCode};
use towline_protocol::head::{Answer, HeadError};
use towline_protocol::refusal::{Reason, Refusal};
use towline_service::tasks::Tasks;
use towline_session::dialect::Dialect;
use towline_session::memory::{Limits, pair};
use towline_session::session::Session;
use towline_session::stream::TunnelStream;

use crate::doubles::{Agent, FakeConnector, ask, reset_text};

const HOUR: Duration = Duration::from_secs(3600);

/// An agent that serves every tunnel of one session.
struct Serving<const PASSTHROUGH: bool> {
    agent: Agent<PASSTHROUGH>,
    server: Session,
    tunnels: Tasks,
    _accepting: Tasks,
}

// === impl Serving ===

impl<const PASSTHROUGH: bool> Serving<PASSTHROUGH> {
    fn start(dialect: Dialect, upstream: &'static str, config: TunnelConfig) -> Self {
        let agent = Agent::<PASSTHROUGH>::new(upstream, config);
        let (session, server) = pair(dialect, Limits::default());
        let (tunnels, accepting) = (Tasks::new(), Tasks::new());
        let (handler, spawner) = (agent.handler.clone(), tunnels.clone());
        let kind = <FakeConnector<PASSTHROUGH> as Connector>::KIND;
        accepting.spawn("accept", async move {
            while let Ok(tunnel) = session.accept_tunnel(kind).await {
                let handler = handler.clone();
                spawner.spawn("tunnel", async move { handler.serve(tunnel).await });
            }
        });
        Self {
            agent,
            server,
            tunnels,
            _accepting: accepting,
        }
    }

    /// Waits until no tunnel is left, which takes no time.
    async fn ended(&self) {
        let began = Instant::now();
        self.tunnels.emptied().await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(self.agent.table.stats().live, 0);
        assert_eq!(self.agent.attempts.load(Ordering::Relaxed), 0);
    }

    /// Waits until the connector is at work.
    async fn connecting(&self) {
        while self.agent.attempts.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
    }
}

fn connect() -> Serving<false> {
    Serving::start(Dialect::Towline, "", TunnelConfig::default())
}

async fn refusal(stream: &mut TunnelStream) -> Refusal {
    match stream.read_answer().await.unwrap() {
        Answer::Refused(refusal) => refusal,
        Answer::Accepted => panic!("accepted"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_asks_for_nothing_is_refused() {
    let late = Duration::from_secs(10);
    for (head, finish, expected, took) in [
        (
            &b"CONNECT a:1 "[..],
            false,
            Reason::HeadTimeout.into(),
            late,
        ),
        (b"", false, Reason::HeadTimeout.into(), late),
        (
            b"CONNECT a:1 ",
            true,
            Refusal::new(Reason::BadRequest, "ended before the head was complete"),
            Duration::ZERO,
        ),
        (
            b"GET / HTTP/1.1\r\n\r\n",
            false,
            HeadError::Method.into(),
            Duration::ZERO,
        ),
        (
            b"CONNECT / HTTP/1.1\r\n\r\n",
            false,
            Refusal::from(HeadError::from(Ask::parse("/").unwrap_err())),
            Duration::ZERO,
        ),
        (
            &[b'a'; 20_000],
            false,
            HeadError::TooLarge.into(),
            Duration::ZERO,
        ),
    ] {
        let serving = connect();
        let began = Instant::now();
        let mut stream = serving.server.open_stream().unwrap();
        stream.write_all(head).await.unwrap();
        if finish {
            stream.finish();
        }
        // Its reason is lost where it has no Proxy-Status error; its words are not.
        let refused = refusal(&mut stream).await.to_string();
        assert!(refused.ends_with(&expected.to_string()), "{refused}");
        assert_eq!(began.elapsed(), took, "{expected}");
        serving.ended().await;
        let reason = format!("refusals_total{{reason=\"{}\"}} 1", expected.reason.label());
        let samples = ["tunnels_total{outcome=\"refused\"} 1", &reason];
        serving.agent.assert_metrics(&samples);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_connector_is_the_answer() {
    for reason in [
        Reason::Refused,
        Reason::Dns,
        Reason::Unreachable,
        Reason::Overload,
        Reason::Denied,
        Reason::BadRequest,
    ] {
        let serving = connect();
        let mut stream = ask(&serving.server, reason.label(), None).await;
        let expected = Refusal::new(reason, "as asked for");
        assert_eq!(refusal(&mut stream).await, expected);
        serving.ended().await;
        let refused = format!("refusals_total{{reason=\"{}\"}} 1", reason.label());
        serving.agent.assert_metrics(&[&refused]);
        if !matches!(reason, Reason::Denied | Reason::BadRequest) {
            let failed = ["dial_seconds_count{outcome=\"failed\"} 1"];
            serving.agent.assert_metrics(&failed);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_shorter_of_the_asked_and_the_configured_limit_holds() {
    let flag = Duration::from_secs(10);
    for (asked, limit) in [
        (None, flag),
        (Some(HOUR), flag),
        (Some(Duration::from_secs(3)), Duration::from_secs(3)),
        (Some(Duration::ZERO), Duration::ZERO),
    ] {
        let serving = connect();
        let began = Instant::now();
        let mut stream = ask(&serving.server, "hangs", asked).await;
        let expected = Refusal::new(Reason::DialTimeout, format!("no answer in {limit:?}"));
        assert_eq!(refusal(&mut stream).await, expected);
        assert!(began.elapsed() <= limit + Duration::from_millis(1));
        serving.ended().await;
    }
}

/// How a tunnel that is being opened may be ended by the server.
#[derive(Debug, Clone, Copy)]
enum Leave {
    Stream,
    Session,
}

#[tokio::test(start_paused = true)]
async fn a_server_that_leaves_ends_the_attempt_at_once() {
    for leave in [Leave::Stream, Leave::Session] {
        let serving = connect();
        let stream = ask(&serving.server, "hangs", None).await;
        serving.connecting().await;
        assert_eq!(serving.agent.table.stats().live, 1);
        match leave {
            Leave::Stream => drop(stream),
            Leave::Session => serving.server.close(SessionCode::Closed, ""),
        }
        serving.ended().await;
        let cancelled = ["tunnels_total{outcome=\"cancelled\"} 1"];
        serving.agent.assert_metrics(&cancelled);
    }
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_that_is_being_opened_can_be_aborted() {
    let down = Refusal::new(Reason::AgentLost, "the agent is shutting down");
    assert!(down.reason.retryable());
    for (code, expected, outcome) in [
        (StreamCode::Draining, Ok(&down), "refused"),
        (StreamCode::Overload, Err(StreamCode::Overload), "overload"),
    ] {
        for head in [true, false] {
            let serving = connect();
            let mut stream = if head {
                ask(&serving.server, "hangs", Some(HOUR)).await
            } else {
                serving.server.open_stream().unwrap()
            };
            advance(Duration::from_secs(5)).await;
            assert_eq!(serving.agent.table.abort_all(code), 1);
            let answer = stream.read_answer().await;
            match expected {
                Ok(refusal) => assert_eq!(answer.unwrap(), Answer::Refused(refusal.clone())),
                Err(code) => assert_eq!(answer.unwrap_err().to_string(), reset_text(code)),
            }
            serving.ended().await;
            let ended = format!("tunnels_total{{outcome=\"{outcome}\"}} 1");
            serving.agent.assert_metrics(&[&ended]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_recorded_and_ends_its_tunnel_alone() {
    let mut serving = connect();
    let mut broken = ask(&serving.server, "panics", None).await;
    broken.read_answer().await.unwrap_err();
    serving.ended().await;
    assert_eq!(serving.tunnels.panics(), 1);
    let panicked = ["tunnels_total{outcome=\"internal\"} 1"];
    serving.agent.assert_metrics(&panicked);
    let mut stream = ask(&serving.server, "connects", None).await;
    assert_eq!(stream.read_answer().await.unwrap(), Answer::Accepted);
    serving.agent.connected.recv().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_whose_task_is_aborted_is_recorded() {
    let serving = connect();
    let mut stream = ask(&serving.server, "connects", None).await;
    assert_eq!(stream.read_answer().await.unwrap(), Answer::Accepted);
    assert_eq!(serving.tunnels.abort_all(), 1);
    serving.ended().await;
    let lost = ["tunnels_total{outcome=\"session_lost\"} 1"];
    serving.agent.assert_metrics(&lost);
}

#[tokio::test(start_paused = true)]
async fn payload_goes_both_ways_and_is_counted() {
    let mut serving = connect();
    let mut stream = ask(&serving.server, "connects", None).await;
    stream.write_all(b"question").await.unwrap();
    stream.finish();
    assert_eq!(stream.read_answer().await.unwrap(), Answer::Accepted);
    let mut local = serving.agent.connected.recv().await.unwrap();
    let mut text = String::new();
    local.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "question");
    local.write_all(b"answer").await.unwrap();
    drop(local);
    text.clear();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "answer");
    drop(stream);
    serving.ended().await;
    serving.agent.assert_metrics(&[
        "tunnels_total{outcome=\"finished\"} 1",
        "dial_seconds_count{outcome=\"connected\"} 1",
        "to_target_bytes_total 8",
        "to_client_bytes_total 6",
    ]);
}

#[tokio::test(start_paused = true)]
async fn a_raw_stream_is_reset_where_a_refusal_would_be() {
    for (upstream, code) in [
        ("refused", StreamCode::TargetReset),
        ("dns", StreamCode::TargetReset),
        ("overload", StreamCode::Overload),
        ("internal", StreamCode::Internal),
        ("hangs", StreamCode::TargetReset),
    ] {
        let config = TunnelConfig::default();
        let serving = Serving::<true>::start(Dialect::Legacy, upstream, config);
        let mut stream = serving.server.open_stream().unwrap();
        stream.write_all(b"payload").await.unwrap();
        let error = stream.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.to_string(), reset_text(code), "{upstream}");
        serving.ended().await;
        let refused = ["tunnels_total{outcome=\"refused\"} 1"];
        serving.agent.assert_metrics(&refused);
    }
}

#[tokio::test(start_paused = true)]
async fn a_passthrough_agent_is_asked_for_its_upstream_in_both_dialects() {
    for dialect in [Dialect::Towline, Dialect::Legacy] {
        let config = TunnelConfig::default();
        let mut serving = Serving::<true>::start(dialect, "connects", config);
        let mut stream = match dialect {
            Dialect::Legacy => serving.server.open_stream().unwrap(),
            Dialect::Towline => {
                let mut stream = ask(&serving.server, "connects", None).await;
                assert_eq!(stream.read_answer().await.unwrap(), Answer::Accepted);
                stream
            }
        };
        stream.write_all(b"payload").await.unwrap();
        stream.finish();
        let mut local = serving.agent.connected.recv().await.unwrap();
        let mut text = String::new();
        local.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "payload");
    }
}

#[tokio::test(start_paused = true)]
async fn silence_is_reset_after_the_idle_timeout() {
    let idle_timeout = Some(Duration::from_secs(60));
    let config = TunnelConfig {
        idle_timeout,
        ..TunnelConfig::default()
    };
    let mut serving = Serving::<false>::start(Dialect::Towline, "", config);
    let mut stream = ask(&serving.server, "connects", None).await;
    assert_eq!(stream.read_answer().await.unwrap(), Answer::Accepted);
    let _local = serving.agent.connected.recv().await.unwrap();
    let error = stream.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.to_string(), reset_text(StreamCode::Idle));
    serving.ended().await;
    let idle = ["tunnels_total{outcome=\"idle\"} 1"];
    serving.agent.assert_metrics(&idle);
}
