//! What every transport must do, shown on this one.

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout};
use towline_protocol::ask::Ask;
use towline_protocol::code::{SessionCode, StreamCode};
use towline_protocol::control::AgentKind;
use towline_protocol::failure::{OpenError, SessionError, StreamError};
use towline_protocol::refusal::{Reason, Refusal};

use super::{Limits, pair};
use crate::dialect::{Dialect, OpenContext};

fn later() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn target() -> Ask {
    Ask::Connect("host.test:80".parse().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_is_asked_for_accepted_and_carries_bytes_both_ways() {
    let (agent, server) = pair(Dialect::Towline, Limits::default());
    let context = OpenContext {
        forwarded: Some("for=client".into()),
        traceparent: None,
    };
    let ask = target();
    let opened = server.open_tunnel(&ask, &context, later());
    let accepted = async {
        let mut incoming = agent.accept_tunnel(AgentKind::Connect).await.unwrap();
        let head = incoming.read_request().await.unwrap();
        assert_eq!(
            (head.ask, head.forwarded.as_deref()),
            (target(), Some("for=client"))
        );
        incoming.accept().await.unwrap()
    };
    let (near, mut far) = tokio::join!(opened, accepted);
    let mut near = near.unwrap();
    assert_eq!((agent.open_streams(), server.open_streams()), (1, 1));
    near.write_all(b"question").await.unwrap();
    near.finish();
    let mut text = String::new();
    far.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "question");
    far.write_all(b"answer").await.unwrap();
    far.finish();
    text.clear();
    near.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "answer");
    drop((near, far));
    timeout(Duration::from_secs(1), server.idle())
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_refusal_keeps_its_reason_and_words() {
    let (agent, server) = pair(Dialect::Towline, Limits::default());
    let refusal = Refusal::new(Reason::Refused, "dial host.test:80: connection refused");
    let refuse = async {
        let mut incoming = agent.accept_tunnel(AgentKind::Connect).await.unwrap();
        incoming.read_request().await.unwrap();
        incoming.refuse(&refusal, "agent").await.unwrap();
    };
    let (ask, context) = (target(), OpenContext::default());
    let opened = server.open_tunnel(&ask, &context, later());
    let (opened, ()) = tokio::join!(opened, refuse);
    assert_eq!(opened.unwrap_err(), refusal);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_does_not_answer_is_given_up_a_second_after_the_deadline() {
    let (_agent, server) = pair(Dialect::Towline, Limits::default());
    let began = Instant::now();
    let (ask, context) = (target(), OpenContext::default());
    let opened = server.open_tunnel(&ask, &context, later()).await;
    assert_eq!(opened.unwrap_err().reason, Reason::AgentTimeout);
    assert_eq!(began.elapsed().as_secs(), 11);
    assert_eq!(server.open_streams(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_raw_variant_of_the_legacy_dialect_has_neither_head_nor_answer() {
    let (agent, server) = pair(Dialect::Legacy, Limits::default());
    let context = OpenContext::default();
    let mut near = server
        .open_tunnel(&Ask::Upstream, &context, later())
        .await
        .unwrap();
    near.write_all(b"payload").await.unwrap();
    near.finish();
    let mut incoming = agent.accept_tunnel(AgentKind::Passthrough).await.unwrap();
    assert_eq!(incoming.read_request().await.unwrap().ask, Ask::Upstream);
    let mut far = incoming.accept().await.unwrap();
    let mut text = String::new();
    far.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "payload");
}

#[tokio::test(start_paused = true)]
async fn the_limit_on_streams_holds_and_a_close_ends_them() {
    let limits = Limits {
        max_streams: 1,
        buffer: 4,
    };
    let (agent, server) = pair(Dialect::Towline, limits);
    let mut near = server.open_stream().unwrap();
    assert_eq!(server.open_stream().unwrap_err(), OpenError::Full);
    let mut far = agent.accept_stream().await.unwrap();
    // The buffer is full after four bytes, and the fifth waits for a reader.
    let waits = timeout(Duration::from_secs(1), near.write_all(b"12345"));
    waits.await.unwrap_err();
    agent.close(SessionCode::Draining, "words");
    let lost = Err(StreamError::SessionLost);
    assert_eq!(near.write_all(b"5").await, lost);
    assert_eq!(far.write_all(b"5").await, lost);
    assert_eq!(agent.closed().await, SessionError::Ended);
    let told = SessionError::Closed {
        code: SessionCode::Draining,
        reason: "words".into(),
    };
    assert_eq!(server.closed().await, told);
    drop(near);
    assert_eq!(server.open_stream().unwrap_err(), OpenError::Lost);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_stream_is_reset_and_never_looks_finished() {
    let (agent, server) = pair(Dialect::Towline, Limits::default());
    let mut near = server.open_stream().unwrap();
    near.write_all(b"part").await.unwrap();
    let mut far = agent.accept_stream().await.unwrap();
    let left = far.stopped();
    near.reset(StreamCode::Idle);
    assert_eq!(
        far.next_chunk().await,
        Err(StreamError::Reset(StreamCode::Idle))
    );
    assert_eq!(
        far.write_all(b"x").await,
        Err(StreamError::Stopped(StreamCode::Idle))
    );
    timeout(Duration::from_secs(1), left).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_end_that_is_gone_is_silent_to_the_other() {
    let (agent, server) = pair(Dialect::Towline, Limits::default());
    drop(agent);
    assert_eq!(server.closed().await, SessionError::Silent);
}
