//! proxy-agent against a server in the test: its tunnels, its sessions and its shutdown.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use clap::Parser;
use proxy_agent::cli::Cli;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use towline_protocol::code::{SessionCode, StreamCode};
use towline_protocol::control::{AgentKind, Message};
use towline_protocol::head::Answer;
use towline_protocol::refusal::{Reason, Refusal};
use towline_session::dialect::Dialect;
use towline_session::session::Session;
use towline_session::stream::TunnelStream;

#[path = "../../crates/agent/tests/fixture/server.rs"]
mod server;

use crate::server::{
    Accepted, BlackHole, Running, Server, TEST_TIMEOUT, ask, connect, rest, within,
};

fn start(server: &Server, more: &[&str]) -> Running {
    let cli = Cli::parse_from(server.flags("proxy-agent", more));
    Running::start(|registry| proxy_agent::bind(&cli, registry))
}

async fn pair(more: &[&str]) -> (Server, Running, Accepted) {
    let server = Server::start(Dialect::Towline);
    let agent = start(&server, more);
    let accepted = server.accept().await;
    (server, agent, accepted)
}

async fn target() -> (TcpListener, String) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let name = listener.local_addr().unwrap().to_string();
    (listener, name)
}

async fn text(socket: &mut TcpStream) -> String {
    let mut text = String::new();
    socket.read_to_string(&mut text).await.unwrap();
    text
}

async fn refusal(mut stream: TunnelStream) -> Refusal {
    match stream.read_answer().await.unwrap() {
        Answer::Refused(refusal) => {
            rest(&mut stream).await.unwrap();
            refusal
        }
        Answer::Accepted => panic!("accepted"),
    }
}

/// What a stream is answered that starts with these bytes.
async fn answer_to(session: &Session, head: &[u8]) -> String {
    let mut stream = session.open_stream().unwrap();
    stream.write_all(head).await.unwrap();
    stream.finish();
    rest(&mut stream).await.unwrap()
}

#[tokio::test]
async fn the_client_may_finish_first_and_still_gets_its_answer() {
    within(async {
        let (
            _server,
            _agent,
            Accepted {
                session,
                control: _control,
            },
        ) = pair(&[]).await;
        let (listener, target) = target().await;
        let mut tunnel = connect(&session, &target).await;
        let (mut socket, _) = listener.accept().await.unwrap();
        tunnel.write_all(b"question").await.unwrap();
        tunnel.finish();
        assert_eq!(text(&mut socket).await, "question");
        socket.write_all(b"answer").await.unwrap();
        drop(socket);
        assert_eq!(rest(&mut tunnel).await.unwrap(), "answer");
    })
    .await;
}

#[tokio::test]
async fn the_target_may_finish_first_and_still_be_sent_to() {
    within(async {
        let (
            _server,
            agent,
            Accepted {
                session,
                control: _control,
            },
        ) = pair(&[]).await;
        let (listener, target) = target().await;
        let mut tunnel = connect(&session, &target).await;
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(b"greeting").await.unwrap();
        socket.shutdown().await.unwrap();
        assert_eq!(rest(&mut tunnel).await.unwrap(), "greeting");
        tunnel.write_all(b"thanks").await.unwrap();
        tunnel.finish();
        assert_eq!(text(&mut socket).await, "thanks");
        let finished = "towline_agent_tunnels_total{outcome=\"finished\"} 1\n";
        agent.until_page("/metrics", finished).await;
        agent
            .until_page("/metrics", "towline_agent_to_target_bytes_total 6\n")
            .await;
        agent
            .until_page("/metrics", "towline_agent_to_client_bytes_total 8\n")
            .await;
    })
    .await;
}

#[tokio::test]
async fn a_reset_of_either_end_stays_a_reset() {
    within(async {
        let (
            _server,
            _agent,
            Accepted {
                session,
                control: _control,
            },
        ) = pair(&[]).await;
        let (listener, target) = target().await;
        let mut tunnel = connect(&session, &target).await;
        let (socket, _) = listener.accept().await.unwrap();
        socket.set_zero_linger().unwrap();
        drop(socket);
        let error = rest(&mut tunnel).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(error.to_string(), "reset by the peer as target_reset");

        let tunnel = connect(&session, &target).await;
        let (mut socket, _) = listener.accept().await.unwrap();
        tunnel.reset(StreamCode::Cancelled);
        let error = socket.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    })
    .await;
}

#[tokio::test]
async fn a_dial_that_fails_is_refused_with_its_reason() {
    within(async {
        let (
            _server,
            agent,
            Accepted {
                session,
                control: _control,
            },
        ) = pair(&[]).await;
        let (listener, free) = target().await;
        drop(listener);
        let refused = refusal(ask(&session, &free, TEST_TIMEOUT).await).await;
        let details = format!("dial {free}: connection refused");
        assert_eq!(refused, Refusal::new(Reason::Refused, details));
        let unknown = refusal(ask(&session, "nowhere.invalid:1", TEST_TIMEOUT).await).await;
        assert_eq!(unknown.reason, Reason::Dns);
        let upstream = refusal(ask(&session, "upstream:0", TEST_TIMEOUT).await).await;
        assert_eq!(upstream.reason, Reason::BadRequest);
        for reason in ["refused", "dns", "bad_request"] {
            let sample = format!("towline_agent_refusals_total{{reason=\"{reason}\"}} 1\n");
            agent.until_page("/metrics", &sample).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_dial_ends_with_the_deadline_of_its_head() {
    within(async {
        let (
            _server,
            _agent,
            Accepted {
                session,
                control: _control,
            },
        ) = pair(&["--dial-timeout=700ms"]).await;
        let hole = BlackHole::dig().await;
        let target = hole.addr.to_string();
        for (asked, limit) in [
            (TEST_TIMEOUT, "700ms"),
            (Duration::from_millis(100), "100ms"),
        ] {
            let began = Instant::now();
            let late = refusal(ask(&session, &target, asked).await).await;
            let details = format!("dial {target}: no answer in {limit}");
            assert_eq!(late, Refusal::new(Reason::DialTimeout, details));
            assert!(
                began.elapsed() < Duration::from_secs(3),
                "{:?}",
                began.elapsed()
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_leaves_during_the_dial_leaves_nothing_behind() {
    within(async {
        let (
            _server,
            agent,
            Accepted {
                session,
                control: _control,
            },
        ) = pair(&["--dial-timeout=1h"]).await;
        let hole = BlackHole::dig().await;
        let target = hole.addr.to_string();
        let mut streams = Vec::new();
        for _ in 0..100 {
            streams.push(ask(&session, &target, Duration::from_secs(3600)).await);
        }
        until(|| dials_under_way(hole.addr) == 100).await;
        drop(streams);
        let cancelled = "towline_agent_tunnels_total{outcome=\"cancelled\"} 100\n";
        agent.until_page("/metrics", cancelled).await;
        agent
            .until_page("/metrics", "\ntowline_agent_tunnels_open 0\n")
            .await;
        until(|| dials_under_way(hole.addr) == 0).await;
    })
    .await;
}

/// Waits until this is so.
async fn until(mut so: impl FnMut() -> bool) {
    while !so() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Attempts to connect that are under way (`SYN_SENT`) to this address.
fn dials_under_way(addr: SocketAddr) -> usize {
    let SocketAddr::V4(addr) = addr else {
        panic!("an IPv4 address")
    };
    let ip = u32::from_ne_bytes(addr.ip().octets());
    let remote = format!("{ip:08X}:{:04X}", addr.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let under_way = |line: &&str| {
        let mut words = line.split_whitespace().skip(2);
        words.next() == Some(&remote) && words.next() == Some("02")
    };
    table.lines().filter(under_way).count()
}

#[tokio::test]
async fn a_bad_head_is_refused_and_disturbs_no_other_tunnel() {
    within(async {
        let (
            _server,
            _agent,
            Accepted {
                session,
                control: _control,
            },
        ) = pair(&["--head-timeout=300ms"]).await;
        for (head, status) in [
            (&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"[..], "400"),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "405"),
            (b"CONNECT a HTTP/1.1\r\n\r\n", "400"),
            (b"CONNECT a:1 HTTP/1.1\r\nHost", "400"),
            (b"", "400"),
            (&[b'a'; 20_000], "431"),
        ] {
            let answer = answer_to(&session, head).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{head:?}: {answer}"
            );
        }
        let mut slow = session.open_stream().unwrap();
        slow.write_all(b"CONNECT a:1 ").await.unwrap();
        let answer = rest(&mut slow).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        let (_listener, target) = target().await;
        connect(&session, &target).await;
    })
    .await;
}

#[tokio::test]
async fn a_head_may_come_in_pieces_with_payload_behind_it() {
    within(async {
        let (
            _server,
            _agent,
            Accepted {
                session,
                control: _control,
            },
        ) = pair(&[]).await;
        let (listener, target) = target().await;
        let mut stream = session.open_stream().unwrap();
        let bytes = format!("CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\nearly");
        for byte in bytes.as_bytes() {
            stream.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        stream.finish();
        assert_eq!(stream.read_answer().await.unwrap(), Answer::Accepted);
        let (mut socket, _) = listener.accept().await.unwrap();
        assert_eq!(text(&mut socket).await, "early");
    })
    .await;
}

#[tokio::test]
async fn a_thousand_tunnels_leave_nothing_behind() {
    within(async {
        let (
            server,
            agent,
            Accepted {
                session,
                control: _control,
            },
        ) = pair(&[]).await;
        let (listener, target) = target().await;
        let mut tunnels = Vec::new();
        for round in 0..1000_u32 {
            let mut tunnel = connect(&session, &target).await;
            let (socket, _) = listener.accept().await.unwrap();
            tunnel.write_all(&round.to_be_bytes()).await.unwrap();
            tunnels.push((tunnel, socket));
        }
        agent
            .until_page("/metrics", "\ntowline_agent_tunnels_open 1000\n")
            .await;
        for (round, (mut tunnel, mut socket)) in (0..1000).zip(tunnels) {
            assert_eq!(socket.read_u32().await.unwrap(), round);
            socket.write_u32(round).await.unwrap();
            drop(socket);
            assert_eq!(tunnel.read_u32().await.unwrap(), round);
            tunnel.finish();
            assert_eq!(rest(&mut tunnel).await.unwrap(), "");
        }
        agent
            .until_page("/metrics", "\ntowline_agent_tunnels_open 0\n")
            .await;
        let finished = "towline_agent_tunnels_total{outcome=\"finished\"} 1000\n";
        agent.until_page("/metrics", finished).await;
        let streams = format!(
            "towline_agent_session_streams{{server=\"{}\"}} 0.0\n",
            server.addr()
        );
        agent.until_page("/metrics", &streams).await;
    })
    .await;
}

#[tokio::test]
async fn a_session_that_is_lost_comes_back() {
    within(async {
        let (server, agent, accepted) = pair(&["--agent-id=blue"]).await;
        let (_control, hello) = accepted.control.unwrap();
        assert_eq!(
            (hello.agent_id.as_str(), hello.kind),
            ("blue", AgentKind::Connect)
        );
        agent.until_page("/readyz", "\r\n\r\nready\n").await;
        let (_listener, target) = target().await;
        let mut tunnel = connect(&accepted.session, &target).await;
        accepted.session.close(SessionCode::Overload, "go away");
        let error = rest(&mut tunnel).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let why = "(closed by the peer as overload: go away)";
        agent.until_page("/readyz", why).await;
        let Accepted {
            session,
            control: _control,
        } = server.accept().await;
        agent.until_page("/readyz", "\r\n\r\nready\n").await;
        connect(&session, &target).await;
        let ends = "\ntowline_agent_session_ends_total{reason=\"overload\"} 1\n";
        agent.until_page("/metrics", ends).await;
        agent
            .until_page(
                "/metrics",
                "towline_agent_tunnels_total{outcome=\"session_lost\"} 1\n",
            )
            .await;
    })
    .await;
}

#[tokio::test]
async fn a_shutdown_lets_tunnels_finish() {
    within(async {
        let (_server, agent, accepted) = pair(&[]).await;
        let (mut control, _) = accepted.control.unwrap();
        let (listener, target) = target().await;
        let mut tunnel = connect(&accepted.session, &target).await;
        let (mut socket, _) = listener.accept().await.unwrap();
        agent.shutdown.trigger();
        agent.until_page("/readyz", "shutdown: draining\n").await;
        let Message::Draining(draining) = control.next().await.unwrap() else {
            panic!("draining")
        };
        assert_eq!(draining.deadline_ms, 30_000);
        tunnel.write_all(b"last words").await.unwrap();
        tunnel.finish();
        assert_eq!(text(&mut socket).await, "last words");
        drop(socket);
        assert_eq!(rest(&mut tunnel).await.unwrap(), "");
        drop(tunnel);
        accepted.session.close(SessionCode::Closed, "drained");
        agent.stopped().await;
    })
    .await;
}

#[tokio::test]
async fn a_shutdown_resets_what_outlives_its_deadline() {
    within(async {
        let (_server, agent, accepted) = pair(&["--drain-timeout=200ms"]).await;
        let (listener, target) = target().await;
        let mut tunnel = connect(&accepted.session, &target).await;
        let (mut socket, _) = listener.accept().await.unwrap();
        agent.shutdown.trigger();
        let error = rest(&mut tunnel).await.unwrap_err();
        assert_eq!(error.to_string(), "reset by the peer as draining");
        let error = socket.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        agent.stopped().await;
    })
    .await;
}

#[tokio::test]
async fn a_legacy_server_is_served_the_same() {
    within(async {
        let server = Server::start(Dialect::Legacy);
        let _agent = start(&server, &[]);
        let Accepted { session, control } = server.accept().await;
        assert!(control.is_none());
        let (listener, target) = target().await;
        let mut tunnel = connect(&session, &target).await;
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(b"hello").await.unwrap();
        drop(socket);
        assert_eq!(rest(&mut tunnel).await.unwrap(), "hello");
        let answer = answer_to(&session, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
        assert!(answer.contains("\r\nAllow: CONNECT\r\n"), "{answer}");
    })
    .await;
}
