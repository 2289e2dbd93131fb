//! agent-tcp against a server in the test, in both dialects.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use agent_tcp::cli::Cli;
use clap::Parser;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;
use towline_protocol::code::SessionCode;
use towline_protocol::control::AgentKind;
use towline_protocol::head::Answer;
use towline_protocol::refusal::{Reason, Refusal};
use towline_session::dialect::Dialect;

#[path = "../../crates/agent/tests/fixture/server.rs"]
mod server;

use crate::server::{
    Accepted, BlackHole, Running, Server, TEST_TIMEOUT, ask, connect, rest, within,
};

fn start(server: &Server, upstream: &str, more: &[&str]) -> Running {
    let upstream = format!("--upstream={upstream}");
    let flags = [&[upstream.as_str()], more].concat();
    let cli = Cli::parse_from(server.flags("agent-tcp", &flags));
    Running::start(|registry| agent_tcp::bind(&cli, registry))
}

async fn upstream() -> (TcpListener, String) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let name = listener.local_addr().unwrap().to_string();
    (listener, name)
}

#[tokio::test]
async fn every_stream_leads_to_the_upstream_whatever_its_head_says() {
    within(async {
        let server = Server::start(Dialect::Towline);
        let (listener, upstream) = upstream().await;
        let agent = start(&server, &upstream, &[]);
        let Accepted { session, control } = server.accept().await;
        let (_control, hello) = control.unwrap();
        assert_eq!(hello.kind, AgentKind::Passthrough);
        for target in ["upstream:0", "nowhere.invalid:1"] {
            let mut tunnel = connect(&session, target).await;
            let (mut socket, _) = listener.accept().await.unwrap();
            tunnel.write_all(b"question").await.unwrap();
            tunnel.finish();
            let mut question = String::new();
            socket.read_to_string(&mut question).await.unwrap();
            assert_eq!(question, "question");
            socket.write_all(b"answer").await.unwrap();
            drop(socket);
            assert_eq!(rest(&mut tunnel).await.unwrap(), "answer");
        }
        let finished = "towline_agent_tunnels_total{outcome=\"finished\"} 2\n";
        agent.until_page("/metrics", finished).await;
        agent.shutdown.trigger();
        session.close(SessionCode::Closed, "drained");
        agent.stopped().await;
    })
    .await;
}

#[tokio::test]
async fn an_upstream_that_refuses_is_a_refusal() {
    within(async {
        let server = Server::start(Dialect::Towline);
        let (listener, upstream) = upstream().await;
        drop(listener);
        let _agent = start(&server, &upstream, &[]);
        let Accepted {
            session,
            control: _control,
        } = server.accept().await;
        let mut stream = ask(&session, "upstream:0", TEST_TIMEOUT).await;
        let details = format!("dial {upstream}: connection refused");
        let refused = Answer::Refused(Refusal::new(Reason::Refused, details));
        assert_eq!(stream.read_answer().await.unwrap(), refused);
        rest(&mut stream).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_dial_that_takes_long_delays_no_other_tunnel() {
    within(async {
        let server = Server::start(Dialect::Towline);
        let hole = BlackHole::dig().await;
        let _agent = start(&server, &hole.addr.to_string(), &[]);
        let Accepted {
            session,
            control: _control,
        } = server.accept().await;
        let began = Instant::now();
        let mut streams = Vec::new();
        for _ in 0..20 {
            streams.push(ask(&session, "upstream:0", Duration::from_millis(300)).await);
        }
        for mut stream in streams {
            let Answer::Refused(late) = stream.read_answer().await.unwrap() else {
                panic!("accepted");
            };
            assert_eq!(late.reason, Reason::DialTimeout);
        }
        // One after the other they would take 6 s.
        assert!(
            began.elapsed() < Duration::from_secs(3),
            "{:?}",
            began.elapsed()
        );
    })
    .await;
}

#[tokio::test]
async fn a_legacy_stream_is_raw_from_its_first_byte() {
    within(async {
        let server = Server::start(Dialect::Legacy);
        let (listener, upstream) = upstream().await;
        let _agent = start(&server, &upstream, &[]);
        let Accepted { session, .. } = server.accept().await;
        let mut stream = session.open_stream().unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        stream.finish();
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = String::new();
        socket.read_to_string(&mut request).await.unwrap();
        assert_eq!(request, "GET / HTTP/1.0\r\n\r\n");
        socket
            .write_all(b"HTTP/1.0 204 No Content\r\n\r\n")
            .await
            .unwrap();
        drop(socket);
        assert_eq!(
            rest(&mut stream).await.unwrap(),
            "HTTP/1.0 204 No Content\r\n\r\n"
        );
    })
    .await;
}

#[tokio::test]
async fn a_legacy_stream_without_an_upstream_is_reset() {
    within(async {
        let server = Server::start(Dialect::Legacy);
        let (listener, upstream) = upstream().await;
        drop(listener);
        let _agent = start(&server, &upstream, &[]);
        let Accepted { session, .. } = server.accept().await;
        let mut stream = session.open_stream().unwrap();
        stream.write_all(b"hello").await.unwrap();
        let error = rest(&mut stream).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(error.to_string(), "reset by the peer as target_reset");
    })
    .await;
}

#[test]
fn a_missing_upstream_is_named() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_agent-tcp"))
        .env_clear()
        .args([
            "--server=a:1",
            "--ca-file=b",
            "--cert-file=c",
            "--cert-key=d",
        ])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("--upstream"), "{text}");
}
