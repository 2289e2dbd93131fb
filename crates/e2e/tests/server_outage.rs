//! A server that is killed and comes back has its agents again; servers that are not there do not
//! disturb those that are; an agent without any says so.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;
use towline_e2e::certs::Certs;
use towline_e2e::endings::{End, Witness, echoes};
use towline_e2e::process::{self, Process};
use towline_e2e::programs::{Agent, Server};
use towline_e2e::target::Target;
use towline_e2e::{admin, bounded, client};

/// A dead server is noticed within the idle timeout of 8 s, and no later than this.
const NOTICED: Duration = Duration::from_secs(10);

/// A short wait for dials that lead nowhere, and more than a loaded machine needs for one that
/// leads somewhere.
const HASTY: [&str; 2] = ["--quic-handshake-timeout", "1s"];

/// A server where nobody ever answers.
async fn black_hole() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    let address = socket.local_addr().expect("an address");
    (socket, address)
}

#[tokio::test]
async fn agents_return_to_a_restarted_server() {
    bounded(async {
        let certs = Certs::new();
        let mut witness = Witness::start().await;
        let echo = Target::echo().await;
        let server = Process::server(&certs, &["--listen", "raw=tcp://127.0.0.1:0"]);
        let (proxy, raw, agents) = (
            server.address("connect").await,
            server.address("raw").await,
            server.address("agents").await,
        );
        let agent = Process::agent(&certs, agents, &[]);
        let agent_tcp = Process::agent_tcp(&certs, agents, echo.address, &[]);
        let pages = [agent.admin().await, agent_tcp.admin().await];
        for page in pages {
            admin::is_ready(page).await;
        }
        let mut live = client::tunnel(proxy, witness.target.address).await;
        echoes(&mut live).await;

        server.kill().await;
        let raw_flag = format!("raw=tcp://{raw}");
        let _server = Process::server(
            &certs,
            &[
                ("--listen-tcp", proxy.to_string().as_str()),
                ("--listen-quic", agents.to_string().as_str()),
                ("--listen", raw_flag.as_str()),
            ]
            .map(|(flag, value)| [flag, value])
            .concat(),
        );
        // What the agent carried for the dead server is cut, not finished.
        let end = timeout(NOTICED, witness.next_end()).await;
        assert_eq!(end, Ok(End::Reset));
        for agent in [&agent, &agent_tcp] {
            agent.event("session ended", |_| true).await;
        }
        for page in pages {
            admin::is_ready(page).await;
        }
        echoes(&mut client::tunnel(proxy, echo.address).await).await;
        echoes(&mut tokio::net::TcpStream::connect(raw).await.unwrap()).await;
    })
    .await;
}

#[tokio::test]
async fn an_agent_is_not_ready_without_a_session_and_says_why() {
    bounded(async {
        let certs = Certs::new();
        let (_hole, address) = black_hole().await;
        let agent = Process::agent(&certs, address, &HASTY);
        let page = agent.admin().await;
        let reason = format!("no session to {address} ({address}: no answer within");
        let is = |page: &admin::Page| page.status == 503 && page.body.contains(&reason);
        admin::becomes(page, "/readyz", is).await;
        // It lives: a restart would not help.
        assert_eq!(admin::get(page, "/livez").await.unwrap().status, 200);
        let line = ["healthcheck", "--admin-listen", &page.to_string()];
        let checked = process::run("proxy-agent", &line, &[]).await;
        assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    })
    .await;
}

#[tokio::test]
async fn readiness_goes_and_comes_with_the_session() {
    bounded(async {
        let certs = Certs::new();
        let server = Process::server(&certs, &[]);
        let (proxy, agents) = (
            server.address("connect").await,
            server.address("agents").await,
        );
        let agent = Process::agent(&certs, agents, &[]);
        let page = agent.admin().await;
        admin::is_ready(page).await;
        server.kill().await;
        let reasons = admin::is_not_ready(page).await;
        let expected = format!("sessions: no session to {agents} (");
        assert!(reasons.starts_with(&expected), "{reasons}");
        let _server = Process::server(
            &certs,
            &[
                "--listen-tcp",
                &proxy.to_string(),
                "--listen-quic",
                &agents.to_string(),
            ],
        );
        admin::is_ready(page).await;
    })
    .await;
}

/// The flags put the bad server in front of the good one.
async fn is_not_disturbed_by(bad: &str, phase: &str) {
    let certs = Certs::new();
    let echo = Target::echo().await;
    let server = Server::start(&certs, &[]);
    let good = server.agents.to_string();
    let flags = [&["--server", bad, "--server", &good][..], &HASTY].concat();
    let agent = Agent::start(&certs, server.agents, &flags);
    agent.is_ready().await;
    server.has_sessions(1).await;
    let session = server.registry.snapshot()[0].id;
    let mut live = client::tunnel(server.tcp(0), echo.address).await;

    let failures = "towline_agent_session_failures_total";
    let failed = |times: f64| {
        admin::metrics_become("dials of the bad server", agent.admin, move |metrics| {
            metrics.value(failures, &[("phase", phase)]) >= times
        })
    };
    let so_far = failed(1.0).await.value(failures, &[("phase", phase)]);
    echoes(&mut live).await;
    let metrics = failed(so_far + 2.0).await;
    echoes(&mut live).await;
    echoes(&mut client::tunnel(server.tcp(0), echo.address).await).await;
    assert_eq!(server.registry.snapshot()[0].id, session);
    assert_eq!(metrics.sum("towline_agent_session_ends_total"), 0.0);
    let sessions = "towline_agent_sessions";
    assert_eq!(metrics.find(sessions, &[("server", &good)]), Some(1.0));
    assert_eq!(metrics.find(sessions, &[("server", bad)]), Some(0.0));
    assert_eq!(agent.readiness.state(), Ok(()));
    drop(live);
    agent.stop().await;
    server.stop().await;
}

#[tokio::test]
async fn a_black_hole_does_not_disturb_the_other_server() {
    bounded(async {
        let (_hole, address) = black_hole().await;
        is_not_disturbed_by(&address.to_string(), "handshake").await;
    })
    .await;
}

#[tokio::test]
async fn a_name_that_does_not_resolve_does_not_disturb_the_other_server() {
    // RFC 6761 keeps `invalid` out of every name server.
    bounded(is_not_disturbed_by("towline.invalid:8888", "resolve")).await;
}
