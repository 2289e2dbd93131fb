//! The shutdown: not ready, no new tunnels, live ones finish or are reset at the deadline, exit 0.
//! A second signal ends the program at once.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep};
use towline_e2e::certs::Certs;
use towline_e2e::endings::{End, Witness, echoes, end};
use towline_e2e::openmetrics::Metrics;
use towline_e2e::process::Process;
use towline_e2e::target::BlackHole;
use towline_e2e::{admin, bounded, client, eventually};

/// The time in which a program ends once no tunnel is left: closing its connections takes 2 s each
/// at most, the default drain 30 s.
const PROMPT: Duration = Duration::from_secs(10);

/// A drain that a test can wait for.
const SHORT_DRAIN: [&str; 2] = ["--drain-timeout", "1s"];

/// A server, an agent that has a session to it, and a target.
struct Chain {
    certs: Certs,
    witness: Witness,
    server: Process,
    agent: Process,
    /// The server's CONNECT listener.
    proxy: SocketAddr,
}

// === impl Chain ===

impl Chain {
    async fn start(server_flags: &[&str], agent_flags: &[&str]) -> Self {
        let certs = Certs::new();
        let server = Process::server(&certs, server_flags);
        let agent = Process::agent(&certs, server.address("agents").await, agent_flags);
        admin::is_ready(agent.admin().await).await;
        let proxy = server.address("connect").await;
        Self {
            certs,
            witness: Witness::start().await,
            server,
            agent,
            proxy,
        }
    }

    /// A tunnel to the target that has carried bytes both ways.
    async fn tunnel(&self) -> TcpStream {
        let mut tunnel = client::tunnel(self.proxy, self.witness.target.address).await;
        echoes(&mut tunnel).await;
        tunnel
    }
}

/// Ends a tunnel to an echo from the client's side.
async fn finish(mut tunnel: TcpStream) {
    tunnel.shutdown().await.expect("a tunnel that is there");
    assert_eq!(end(&mut tunnel).await, End::Finished);
}

/// Waits until connections are refused there.
async fn is_closed(address: SocketAddr) {
    let deadline = Instant::now() + PROMPT;
    loop {
        match TcpStream::connect(address).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return,
            other => assert!(Instant::now() < deadline, "still open: {other:?}"),
        }
        sleep(Duration::from_millis(5)).await;
    }
}

async fn exits_with(program: &mut Process, code: i32) {
    let status = program.exit_status(PROMPT).await;
    assert_eq!(status.code(), Some(code), "{}", program.text());
}

#[tokio::test]
async fn a_stopping_server_lets_its_tunnels_finish() {
    bounded(async {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("front.sock");
        let listen = format!("connect=unix://{}", socket.display());
        let mut chain = Chain::start(&["--listen", &listen], &[]).await;
        let page = chain.server.admin().await;
        admin::is_ready(page).await;
        // Accepted before the tunnel below, and still without a request when the drain begins.
        let mut undecided = TcpStream::connect(chain.proxy).await.unwrap();
        let mut live = chain.tunnel().await;
        let mut local = UnixStream::connect(&socket).await.unwrap();
        let answer = client::ask(&mut local, chain.witness.target.address).await;
        assert_eq!(answer.unwrap().status, 200);

        chain.server.terminate().await;
        let reasons = admin::is_not_ready(page).await;
        assert_eq!(reasons.trim_end(), "server: shutting down");
        is_closed(chain.proxy).await;
        eventually("the Unix socket's file is there", false, || socket.exists()).await;
        chain
            .agent
            .event("server drains and opens no new tunnels", |_| true)
            .await;
        let answer = client::ask(&mut undecided, chain.witness.target.address).await;
        assert_eq!(answer.unwrap().status, 503);
        assert_eq!(admin::get(page, "/livez").await.unwrap().status, 200);
        echoes(&mut live).await;
        echoes(&mut local).await;

        finish(live).await;
        local.shutdown().await.unwrap();
        assert_eq!(end(&mut local).await, End::Finished);
        drop(undecided);
        exits_with(&mut chain.server, 0).await;
        for _ in 0..2 {
            assert_eq!(chain.witness.next_end().await, End::Finished);
        }
    })
    .await;
}

#[tokio::test]
async fn at_the_drain_deadline_a_server_resets_what_is_left() {
    bounded(async {
        let mut chain = Chain::start(&SHORT_DRAIN, &[]).await;
        let mut live = chain.tunnel().await;
        chain.server.terminate().await;
        assert_eq!(end(&mut live).await, End::Reset);
        assert_eq!(chain.witness.next_end().await, End::Reset);
        let cut = |event: &serde_json::Value| event["cut"] == 1;
        chain
            .server
            .event("drain deadline passed, tunnels were reset", cut)
            .await;
        let access = |event: &serde_json::Value| event["outcome"] == "draining";
        chain.server.event("tunnel", access).await;
        exits_with(&mut chain.server, 0).await;
    })
    .await;
}

#[tokio::test]
async fn a_request_that_is_pending_at_the_drain_deadline_is_refused_and_logged() {
    bounded(async {
        let patient = ["--dial-timeout", "60s"];
        let server_flags = [&SHORT_DRAIN[..], &patient].concat();
        let mut chain = Chain::start(&server_flags, &patient).await;
        let page = chain.server.admin().await;
        let hole = BlackHole::new();
        let mut pending = TcpStream::connect(chain.proxy).await.unwrap();
        let head = client::connect_head(hole.address);
        pending.write_all(head.as_bytes()).await.unwrap();
        // The agent is being asked.
        let asked = |metrics: &Metrics| metrics.sum("towline_server_session_streams") == 1.0;
        admin::metrics_become("the agent is asked", page, asked).await;

        chain.server.terminate().await;
        let refused = client::read_refused(&mut pending).await;
        assert_eq!(refused.answer.status, 503, "{}", refused.answer.head);
        assert_eq!(refused.answer.phrase(), "this server is shutting down");
        drop(pending);
        let access = |event: &serde_json::Value| {
            event["status"] == 503
                && event["outcome"] == "no_agent"
                && event["to"] == hole.address.to_string()
        };
        chain.server.event("tunnel", access).await;
        exits_with(&mut chain.server, 0).await;
    })
    .await;
}

#[tokio::test]
async fn a_stopping_agent_lets_its_tunnels_finish() {
    bounded(async {
        let mut chain = Chain::start(&[], &[]).await;
        let page = chain.agent.admin().await;
        let mut live = chain.tunnel().await;

        chain.agent.terminate().await;
        let reasons = admin::is_not_ready(page).await;
        assert!(
            reasons.lines().any(|line| line == "shutdown: draining"),
            "{reasons}"
        );
        chain
            .server
            .event("agent drains and takes no new tunnels", |_| true)
            .await;
        let refused = client::connect(chain.proxy, chain.witness.target.address).await;
        assert_eq!(refused.unwrap().1.status, 503);
        echoes(&mut live).await;

        finish(live).await;
        exits_with(&mut chain.agent, 0).await;
        assert_eq!(chain.witness.next_end().await, End::Finished);
        chain.server.event("agent gone", |_| true).await;
    })
    .await;
}

#[tokio::test]
async fn at_the_drain_deadline_an_agent_resets_what_is_left() {
    bounded(async {
        let mut chain = Chain::start(&[], &SHORT_DRAIN).await;
        let mut live = chain.tunnel().await;
        chain.agent.terminate().await;
        assert_eq!(end(&mut live).await, End::Reset);
        assert_eq!(chain.witness.next_end().await, End::Reset);
        let cut = |event: &serde_json::Value| event["cut"] == 1;
        chain
            .agent
            .event(
                "drain deadline passed, resetting the remaining tunnels",
                cut,
            )
            .await;
        exits_with(&mut chain.agent, 0).await;
    })
    .await;
}

#[tokio::test]
async fn the_other_agent_serves_while_one_drains() {
    bounded(async {
        let mut chain = Chain::start(&[], &["--agent-id", "leaves"]).await;
        let mut live = chain.tunnel().await;
        let agents = chain.server.address("agents").await;
        let other = Process::agent(&chain.certs, agents, &["--agent-id", "stays"]);
        admin::is_ready(other.admin().await).await;

        chain.agent.terminate().await;
        chain
            .server
            .event("agent drains and takes no new tunnels", |_| true)
            .await;
        for _ in 0..20 {
            finish(chain.tunnel().await).await;
        }
        // A tunnel counts as ended once its last byte is acknowledged.
        admin::metrics_become(
            "tunnels of the other agent",
            other.admin().await,
            |served| (served.sum("towline_agent_tunnels_total") - 20.0).abs() < f64::EPSILON,
        )
        .await;
        echoes(&mut live).await;
        finish(live).await;
        exits_with(&mut chain.agent, 0).await;
        finish(chain.tunnel().await).await;
    })
    .await;
}

#[tokio::test]
async fn a_second_signal_does_not_wait() {
    const FIRST: &str = "received SIGTERM, shutting down; a second signal aborts";

    bounded(async {
        let mut chain = Chain::start(&["--listen", "raw=tcp://127.0.0.1:0"], &[]).await;
        let agents = chain.server.address("agents").await;
        let upstream = chain.witness.target.address;
        let mut agent_tcp = Process::agent_tcp(&chain.certs, agents, upstream, &[]);
        admin::is_ready(agent_tcp.admin().await).await;
        let raw = chain.server.address("raw").await;
        let mut raw = TcpStream::connect(raw).await.unwrap();
        echoes(&mut raw).await;
        let live = chain.tunnel().await;
        for program in [&mut agent_tcp, &mut chain.agent, &mut chain.server] {
            program.terminate().await;
            program.event(FIRST, |_| true).await;
            program.interrupt().await;
            exits_with(program, 130).await;
        }
        drop((raw, live));
    })
    .await;
}

#[tokio::test]
async fn idle_programs_stop_at_once() {
    bounded(async {
        let mut chain = Chain::start(&[], &[]).await;
        let agents = chain.server.address("agents").await;
        let upstream = chain.witness.target.address;
        let mut agent_tcp = Process::agent_tcp(&chain.certs, agents, upstream, &[]);
        admin::is_ready(agent_tcp.admin().await).await;
        finish(chain.tunnel().await).await;
        agent_tcp.interrupt().await;
        chain.agent.terminate().await;
        exits_with(&mut agent_tcp, 0).await;
        exits_with(&mut chain.agent, 0).await;
        for _ in 0..2 {
            chain.server.event("agent gone", |_| true).await;
        }
        chain.server.interrupt().await;
        exits_with(&mut chain.server, 0).await;
    })
    .await;
}

#[tokio::test]
async fn an_agent_without_a_server_stops_at_once() {
    bounded(async {
        let certs = Certs::new();
        let hole = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut agent = Process::agent(&certs, hole.local_addr().unwrap(), &[]);
        // It dials: its first packet has come.
        hole.readable().await.unwrap();
        agent.terminate().await;
        exits_with(&mut agent, 0).await;
    })
    .await;
}
