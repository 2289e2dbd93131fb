//! Every refusal, by its real cause: status, Proxy-Status, text and deadline.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, yield_now};
use tokio::time::Instant;
use towline_agent::config::AgentConfig;
use towline_agent::server_connector::{Established, QuicConnector, ServerConnector};
use towline_e2e::certs::Certs;
use towline_e2e::client::{self, Refused, Way, Ways};
use towline_e2e::programs::{Agent, Server, pair};
use towline_e2e::target::{BlackHole, Closed, Target};
use towline_e2e::{bounded, eventually};
use towline_protocol::control::AgentKind;
use towline_protocol::head::Answer;
use towline_protocol::refusal::{Reason, Refusal};
use towline_session::stream::TunnelStream;

#[tokio::test]
async fn requests_that_are_not_connect_are_405() {
    bounded(async {
        let (server, agent, echo) = trio(&[]).await;
        for request in [
            "GET http://127.0.0.1/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\n\r\n",
            "connect 127.0.0.1:1 HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello",
        ] {
            let refused = client::says(server.tcp(0), request.as_bytes()).await;
            is(&refused, 405, None, "only CONNECT is served here");
            assert_eq!(refused.answer.header("Allow"), Some("CONNECT"));
        }
        goes_on(server, agent, echo).await;
    })
    .await;
}

#[tokio::test]
async fn heads_that_cannot_be_read_are_400() {
    bounded(async {
        let (server, agent, echo) = trio(&[]).await;
        let error = Some("http_request_error");
        for (request, words) in [
            (
                &b"\x00\x01\x02 what is this\r\n\r\n"[..],
                "bad request line",
            ),
            (b"\xff\xfe\xfd\xfc", "bad request line"),
            (b"SSH-2.0-OpenSSH_9.6\r\n", "bad request line"),
            // The first bytes of a TLS 1.3 hello.
            (
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
                "bad request line",
            ),
            (
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                "not HTTP/1.0 or HTTP/1.1",
            ),
            (
                b"CONNECT a:1 HTTP/1.1\r\nBad Name: x\r\n\r\n",
                "bad header name",
            ),
            (
                b"CONNECT a:1 HTTP/1.1\r\nName: \x01\r\n\r\n",
                "bad header value",
            ),
        ] {
            let refused = client::says(server.tcp(0), request).await;
            is(&refused, 400, error, words);
        }
        for target in [
            "127.0.0.1",
            "127.0.0.1:",
            "127.0.0.1:http",
            "127.0.0.1:65536",
            "127.0.0.1:0",
            "127.0.0.1:-1",
            "user@127.0.0.1:80",
            "http://127.0.0.1:80",
            "/",
            ":80",
            "::1:80",
            "[::1",
            "[fe80::1%25eth0]:80",
            "a..b:80",
        ] {
            is(
                &client::refused(server.tcp(0), target).await,
                400,
                error,
                "",
            );
        }
        goes_on(server, agent, echo).await;
    })
    .await;
}

#[tokio::test]
async fn a_tls_client_on_the_plain_port_fails_at_once() {
    bounded(async {
        let certs = Certs::new();
        let (server, agent) = pair(&certs, &[]).await;
        let hello = client::tls(&certs.connector(true), server.tcp(0)).await;
        let error = hello.unwrap_err();
        // The 400 comes without TLS, and no TLS record begins like it.
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        let echo = Target::echo().await;
        goes_on(server, agent, echo).await;
    })
    .await;
}

#[tokio::test]
async fn heads_that_are_too_large_are_431() {
    bounded(async {
        let (server, agent, echo) = trio(&[]).await;
        let start = format!("CONNECT {} HTTP/1.1\r\n", echo.address);
        let long = format!("{start}X: {}\r\n\r\n", "x".repeat(16 * 1024));
        let endless = format!("{start}X: {}", "x".repeat(16 * 1024));
        let many = format!("{start}{}\r\n", "X: x\r\n".repeat(65));
        // All of it is sent before the answer is read.
        let huge = start.clone() + &"X-Padding: 0123456789\r\n".repeat(10 * 1024 * 1024 / 23);
        for head in [long, endless, many, huge] {
            let refused = client::says(server.tcp(0), head.as_bytes()).await;
            let words = "head has more than 16384 bytes or 64 header lines";
            is(&refused, 431, Some("http_request_error"), words);
        }
        // A head of the largest size is served.
        let mut fits = start + "X: ";
        fits.push_str(&"x".repeat(16 * 1024 - 4 - fits.len()));
        fits.push_str("\r\n\r\n");
        assert_eq!(fits.len(), 16 * 1024);
        let mut stream = TcpStream::connect(server.tcp(0)).await.unwrap();
        stream.write_all(fits.as_bytes()).await.unwrap();
        let answer = client::read_answer(&mut stream).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.head);
        drop(stream);
        goes_on(server, agent, echo).await;
    })
    .await;
}

#[tokio::test]
async fn a_head_that_is_not_complete_in_time_is_408() {
    bounded(async {
        let (server, agent, echo) = trio(&["--head-timeout", "700ms"]).await;
        for said in ["", "CONN", "CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: a\r\n"] {
            let began = Instant::now();
            let refused = client::says(server.tcp(0), said.as_bytes()).await;
            is(&refused, 408, None, "request head was not complete in time");
            in_time(began, Duration::from_millis(700));
        }
        // The deadline is for the whole head: further bytes do not extend it.
        let began = Instant::now();
        let mut stream = TcpStream::connect(server.tcp(0)).await.unwrap();
        let (mut read, mut write) = stream.split();
        let trickle = async {
            let mut pause = tokio::time::interval(Duration::from_millis(20));
            loop {
                pause.tick().await;
                if write.write_all(b"x").await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let refused = tokio::select! {
            refused = client::read_refused(&mut read) => refused,
            () = trickle => unreachable!("it never ends"),
        };
        is(&refused, 408, None, "");
        in_time(began, Duration::from_millis(700));
        drop(stream);
        goes_on(server, agent, echo).await;
    })
    .await;
}

#[tokio::test]
async fn without_an_agent_it_is_503_at_once() {
    bounded(async {
        let certs = Certs::new();
        let server = Server::start(&certs, &[]);
        let refused = client::refused(server.tcp(0), "127.0.0.1:1").await;
        let error = Some("destination_unavailable");
        is(&refused, 503, error, "no agent is connected");
        assert_eq!(refused.answer.header("Retry-After"), Some("1"));
        // Agents of the other kind and agents that have left do not count.
        let raw = Agent::start_tcp(&certs, server.agents, ([127, 0, 0, 1], 1).into(), &[]);
        server.has_sessions(1).await;
        is(
            &client::refused(server.tcp(0), "127.0.0.1:1").await,
            503,
            error,
            "",
        );
        raw.stop().await;
        server.has_sessions(0).await;
        is(
            &client::refused(server.tcp(0), "127.0.0.1:1").await,
            503,
            error,
            "",
        );
        server.is_at_rest().await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn targets_that_cannot_be_reached_are_502() {
    bounded(async {
        let (server, agent, echo) = trio(&[]).await;
        let closed = Closed::new();
        let refused = client::refused(server.tcp(0), closed.address).await;
        let words = format!("dial {}: connection refused", closed.address);
        is(&refused, 502, Some("connection_refused"), &words);
        // RFC 6761 §6.4: `invalid` exists nowhere.
        let refused = client::refused(server.tcp(0), "nowhere.invalid:443").await;
        is(
            &refused,
            502,
            Some("dns_error"),
            "look up nowhere.invalid: ",
        );
        // TCP does not connect to a broadcast address.
        let refused = client::refused(server.tcp(0), "255.255.255.255:1").await;
        let words = "dial 255.255.255.255:1: network unreachable";
        is(&refused, 502, Some("destination_ip_unroutable"), words);
        goes_on(server, agent, echo).await;
    })
    .await;
}

#[tokio::test]
async fn a_target_that_does_not_answer_is_504_within_the_dial_timeout() {
    bounded(async {
        let (server, agent, echo) = trio(&["--dial-timeout", "1s"]).await;
        let hole = BlackHole::new();
        let began = Instant::now();
        let refused = client::refused(server.tcp(0), hole.address).await;
        let took = began.elapsed();
        let words = format!("dial {}: no answer in ", hole.address);
        is(&refused, 504, Some("connection_timeout"), &words);
        // The agent gets whole milliseconds; the server would give up a second later.
        let bounds = Duration::from_millis(990)..Duration::from_secs(2);
        assert!(bounds.contains(&took), "{took:?}");
        goes_on(server, agent, echo).await;
    })
    .await;
}

#[tokio::test]
async fn the_agents_own_dial_timeout_holds_as_well() {
    bounded(async {
        let certs = Certs::new();
        let server = Server::start(&certs, &[]);
        let agent = Agent::start(&certs, server.agents, &["--dial-timeout", "300ms"]);
        server.has_sessions(1).await;
        let hole = BlackHole::new();
        let began = Instant::now();
        let refused = client::refused(server.tcp(0), hole.address).await;
        let words = format!("dial {}: no answer in 300ms", hole.address);
        is(&refused, 504, Some("connection_timeout"), &words);
        in_time(began, Duration::from_millis(300));
        let echo = Target::echo().await;
        goes_on(server, agent, echo).await;
    })
    .await;
}

#[tokio::test]
async fn a_session_that_dies_before_the_answer_is_502_at_once() {
    bounded(async {
        let certs = Certs::new();
        let (server, agent) = pair(&certs, &[]).await;
        let hole = BlackHole::new();
        let began = Instant::now();
        let mut stream = TcpStream::connect(server.tcp(0)).await.unwrap();
        let head = client::connect_head(hole.address);
        stream.write_all(head.as_bytes()).await.unwrap();
        eventually("streams to the agent", vec![1], || streams(&server)).await;
        agent.vanish();
        let refused = client::read_refused(&mut stream).await;
        let words = "session ended before the agent answered";
        is(&refused, 502, Some("connection_terminated"), words);
        let took = began.elapsed();
        assert!(took < Duration::from_secs(10), "not at once: {took:?}");
        server.is_at_rest().await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn another_session_is_tried_when_the_first_dies_before_the_answer() {
    bounded(async {
        let certs = Certs::new();
        let server = Server::start(&certs, &[]);
        let start = |id| Agent::start(&certs, server.agents, &["--agent-id", id]);
        let mut agents = vec![("one", start("one")), ("two", start("two"))];
        server.has_sessions(2).await;
        let hole = BlackHole::new();
        let mut stream = TcpStream::connect(server.tcp(0)).await.unwrap();
        let head = client::connect_head(hole.address) + "kept";
        stream.write_all(head.as_bytes()).await.unwrap();
        eventually("streams to an agent", 1, || streams(&server).iter().sum()).await;
        let asked = |index: usize| streams(&server)[index] == 1;
        let first = (0..2).find(|index| asked(*index)).unwrap();
        let first = server.registry.snapshot()[first].agent.id.to_string();
        let index = agents.iter().position(|(id, _)| *id == first).unwrap();
        agents.remove(index).1.vanish();
        server.has_sessions(1).await;
        eventually("streams to the other agent", vec![1], || streams(&server)).await;
        let mut target = hole.open().await;
        let answer = client::read_answer(&mut stream).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.head);
        let mut early = [0; 4];
        target.read_exact(&mut early).await.unwrap();
        assert_eq!(&early, b"kept");
        drop((stream, target));
        server.is_at_rest().await;
        for (_, agent) in agents {
            agent.stop().await;
        }
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_session_at_its_tunnel_limit_is_503_until_a_tunnel_ends() {
    bounded(async {
        let certs = Certs::new();
        let echo = Target::echo().await;
        let server = Server::start(&certs, &[]);
        let one = ["--max-tunnels-per-session", "1"];
        let agent = Agent::start(&certs, server.agents, &one);
        server.has_sessions(1).await;
        let first = client::tunnel(server.tcp(0), echo.address).await;
        let refused = client::refused(server.tcp(0), echo.address).await;
        let error = Some("connection_limit_reached");
        is(&refused, 503, error, "session tunnel limit reached");
        // Another agent serves what the first cannot.
        let flags = [&one[..], &["--agent-id", "other"]].concat();
        let other = Agent::start(&certs, server.agents, &flags);
        server.has_sessions(2).await;
        let second = client::tunnel(server.tcp(0), echo.address).await;
        is(
            &client::refused(server.tcp(0), echo.address).await,
            503,
            error,
            "",
        );
        drop((first, second));
        server.is_at_rest().await;
        // The stream limit is raised again by one of the next packets.
        loop {
            let (_, answer) = client::connect(server.tcp(0), echo.address).await.unwrap();
            if answer.status == 200 {
                break;
            }
            assert_eq!(answer.status, 503, "{}", answer.head);
            yield_now().await;
        }
        server.is_at_rest().await;
        agent.stop().await;
        other.stop().await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn the_server_bounds_the_tunnels_of_a_session_as_well() {
    bounded(async {
        let (server, agent, echo) = trio(&["--max-tunnels-per-session", "2"]).await;
        let tunnels = [
            client::tunnel(server.tcp(0), echo.address).await,
            client::tunnel(server.tcp(0), echo.address).await,
        ];
        let refused = client::refused(server.tcp(0), echo.address).await;
        let error = Some("connection_limit_reached");
        is(
            &refused,
            503,
            error,
            "the tunnels of all sessions are used up",
        );
        drop(tunnels);
        server.is_at_rest().await;
        goes_on(server, agent, echo).await;
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_does_not_answer_is_504_one_second_after_the_dial_timeout() {
    bounded(async {
        let certs = Certs::new();
        let server = Server::start(&certs, &["--dial-timeout", "500ms"]);
        let _agent = scripted_agent(&certs, server.agents);
        server.has_sessions(1).await;
        let began = Instant::now();
        let refused = client::refused(server.tcp(0), "silent:1").await;
        let words = "agent did not answer in time";
        is(&refused, 504, Some("http_response_timeout"), words);
        in_time(began, Duration::from_millis(1_500));
        server.is_at_rest().await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_answers_nonsense_is_500() {
    bounded(async {
        let certs = Certs::new();
        let server = Server::start(&certs, &[]);
        let _agent = scripted_agent(&certs, server.agents);
        server.has_sessions(1).await;
        let refused = client::refused(server.tcp(0), "nonsense:1").await;
        is(
            &refused,
            500,
            Some("proxy_internal_error"),
            "the agent's answer: ",
        );
        server.is_at_rest().await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_refusal_of_an_agent_reaches_the_client_with_its_reason_and_text() {
    bounded(async {
        let certs = Certs::new();
        let server = Server::start(&certs, &[]);
        let _agent = scripted_agent(&certs, server.agents);
        server.has_sessions(1).await;
        for reason in Reason::ALL {
            let target = format!("{}:1", reason.label());
            let refused = client::refused(server.tcp(0), target).await;
            let (status, error) = match reason.proxy_error() {
                Some(error) => (status_of(reason), error),
                // A server never causes these at an agent: they are an internal error.
                None => (500, "proxy_internal_error"),
            };
            is(&refused, status, Some(error), "as asked for");
        }
        server.is_at_rest().await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn ipv6_leads_in_and_out() {
    bounded(async {
        let certs = Certs::new();
        let echo = Target::echo_v6().await;
        let (server, agent) = pair(&certs, &["--listen", "connect=tcp://[::1]:0"]).await;
        assert!(echo.address.is_ipv6() && server.tcp(1).is_ipv6());
        for proxy in [server.tcp(0), server.tcp(1)] {
            let mut tunnel = client::tunnel(proxy, echo.address).await;
            tunnel.write_all(b"!").await.unwrap();
            assert_eq!(tunnel.read_u8().await.unwrap(), b'!');
        }
        let closed = format!("[::1]:{}", Closed::new().address.port());
        let refused = client::refused(server.tcp(1), &closed).await;
        let words = format!("dial {closed}: connection refused");
        is(&refused, 502, Some("connection_refused"), &words);
        server.is_at_rest().await;
        agent.stop().await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn unusual_but_valid_heads_are_served() {
    bounded(async {
        let (server, agent, echo) = trio(&[]).await;
        let target = echo.address;
        for head in [
            // The Host of kube-apiserver never matches its target.
            format!("CONNECT {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
            format!("CONNECT {target} HTTP/1.1\r\n\r\n"),
            format!("CONNECT {target} HTTP/1.0\r\n\r\n"),
            format!("CONNECT {target} HTTP/1.1\nHost: elsewhere.example:1\n\n"),
            format!("\r\nCONNECT {target} HTTP/1.1\r\nProxy-Authorization: Basic eDp5\r\n\r\n"),
            format!("CONNECT localhost:{} HTTP/1.1\r\n\r\n", target.port()),
        ] {
            let mut stream = TcpStream::connect(server.tcp(0)).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            let answer = client::read_answer(&mut stream).await.unwrap();
            assert_eq!(answer.status, 200, "{head:?}: {}", answer.head);
        }
        goes_on(server, agent, echo).await;
    })
    .await;
}

#[tokio::test]
async fn a_refusal_looks_the_same_on_every_kind_of_listener() {
    bounded(async {
        let ways = Ways::start(&[]).await;
        let closed = Closed::new();
        let words = format!("dial {}: connection refused", closed.address);
        for way in Way::ALL {
            let mut stream = ways.enter(way).await;
            let head = client::connect_head(closed.address);
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            let refused = client::read_refused(&mut stream).await;
            is(&refused, 502, Some("connection_refused"), &words);
        }
        ways.rest_and_stop().await;
    })
    .await;
}

/// A server with these flags, its agent, and a target that can be reached.
async fn trio(flags: &[&str]) -> (Server, Agent, Target) {
    let certs = Certs::new();
    let (server, agent) = pair(&certs, flags).await;
    (server, agent, Target::echo().await)
}

/// After a refusal nothing is left of the request, and the next client is served.
async fn goes_on(server: Server, agent: Agent, echo: Target) {
    let mut tunnel = client::tunnel(server.tcp(0), echo.address).await;
    tunnel.write_all(b"!").await.expect("a tunnel");
    assert_eq!(tunnel.read_u8().await.expect("an echo"), b'!');
    drop(tunnel);
    server.is_at_rest().await;
    agent.is_at_rest().await;
    agent.stop().await;
    server.stop().await;
}

/// Checks status, Proxy-Status error, and how the reason phrase and the body begin.
#[track_caller]
fn is(refused: &Refused, status: u16, error: Option<&str>, words: &str) {
    let Refused { answer, body } = refused;
    assert_eq!(answer.status, status, "{}", answer.head);
    assert_eq!(answer.error(), error, "{}", answer.head);
    let phrase = answer.phrase();
    let told = phrase.starts_with(words) || phrase.ends_with(words);
    assert!(told, "expected {words:?}: {}", answer.head);
    assert_eq!(*body, format!("proxy-server: {phrase}\n"));
}

/// What a CONNECT client is answered for each reason that an agent can give.
fn status_of(reason: Reason) -> u16 {
    match reason {
        Reason::BadRequest => 400,
        Reason::Forbidden | Reason::Denied => 403,
        Reason::Unauthenticated => 407,
        Reason::HeadTooLarge => 431,
        Reason::Dns | Reason::Refused | Reason::Unreachable | Reason::AgentLost => 502,
        Reason::NoAgent | Reason::Overload => 503,
        Reason::DialTimeout | Reason::AgentTimeout => 504,
        Reason::Loop => 508,
        Reason::Method | Reason::HeadTimeout | Reason::Internal => 500,
    }
}

/// The wait was as long as this deadline, and shorter than the default of ten seconds.
#[track_caller]
fn in_time(began: Instant, deadline: Duration) {
    let took = began.elapsed();
    assert!(took >= deadline, "too early: {took:?}");
    assert!(took < Duration::from_secs(10), "too late: {took:?}");
}

/// How many streams each session has.
fn streams(server: &Server) -> Vec<usize> {
    let sessions = server.registry.snapshot();
    sessions
        .iter()
        .map(|member| member.session.open_streams())
        .collect()
}

/// Runs an agent that answers what the host of the target names, until the returned set is dropped.
fn scripted_agent(certs: &Certs, server: SocketAddr) -> JoinSet<()> {
    let server = server.to_string();
    let [ca, cert, key] = ["ca.pem", "agent.pem", "agent-key.pem"].map(|file| certs.flag(file));
    let line = [
        ["--server", &server],
        ["--ca-file", &ca],
        ["--cert-file", &cert],
        ["--cert-key", &key],
    ];
    let line = ["player"].iter().chain(line.as_flattened());
    let cli = proxy_agent::cli::Cli::try_parse_from(line).expect("good flags");
    let config = AgentConfig::load(&cli.agent, AgentKind::Connect).expect("good files");
    let connector = QuicConnector::new(config.connector);
    let mut run = JoinSet::new();
    run.spawn(async move {
        let established = connector.connect(&config.servers[0]).await;
        let Established { session, control } = established.expect("a session");
        let mut tunnels = JoinSet::new();
        while let Ok(stream) = session.accept_stream().await {
            tunnels.spawn(answer_by_host(stream));
        }
        drop(control);
    });
    run
}

async fn answer_by_host(mut stream: TunnelStream) {
    let request = stream.read_request().await.expect("a head");
    let asked = request.ask.to_string();
    let host = asked.strip_suffix(":1").expect("port 1");
    let told = Reason::ALL
        .into_iter()
        .find(|reason| reason.label() == host);
    let answer = match (host, told) {
        (_, Some(reason)) => Answer::refused(&Refusal::new(reason, "as asked for"), "player"),
        ("nonsense", None) => b"220 mail.example ESMTP\r\n\r\n".to_vec(),
        _ => return stream.stopped().await,
    };
    stream.write_all(&answer).await.expect("a server");
    stream.finish();
}
