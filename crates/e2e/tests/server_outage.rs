//! Agents reconnect to a server that is killed and restarted; unreachable servers do not disturb
//! reachable ones; an agent without a session reports the reason.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use towline_e2e::certs::Certs;
use towline_e2e::endings::{End, Witness, echoes};
use towline_e2e::process::{self, Process};
use towline_e2e::programs::{Agent, Server};
use towline_e2e::target::Target;
use towline_e2e::{admin, bounded, client};

/// A dead server is detected within the idle timeout of 8 s, and no later than this.
const NOTICED: Duration = Duration::from_secs(10);

/// Short for dials that fail, and longer than a successful one takes on a loaded machine.
const SHORT_HANDSHAKE: [&str; 2] = ["--quic-handshake-timeout", "1s"];

/// A server that can be started again on the same ports. Its loopback address is its own, so that
/// no connection of another test takes its ports meanwhile.
struct RestartableServer {
    certs: Certs,
    server: Process,
    /// Its addresses: CONNECT, raw, agents.
    addresses: [SocketAddr; 3],
}

// === impl RestartableServer ===

impl RestartableServer {
    /// The name that the agents must expect in its certificate.
    const NAME: [&str; 2] = ["--server-name", "localhost"];

    async fn start() -> Self {
        let certs = Certs::new();
        let own = Ipv4Addr::new(
            127,
            fastrand::u8(1..),
            fastrand::u8(..),
            fastrand::u8(1..255),
        );
        let server = Self::listen(&certs, [SocketAddr::from((own, 0)); 3]);
        let addresses = [
            server.address("connect").await,
            server.address("raw").await,
            server.address("agents").await,
        ];
        Self {
            certs,
            server,
            addresses,
        }
    }

    fn listen(certs: &Certs, [connect, raw, agents]: [SocketAddr; 3]) -> Process {
        let (connect, agents) = (connect.to_string(), agents.to_string());
        let raw = format!("raw=tcp://{raw}");
        let flags = [
            ["--listen-tcp", &connect],
            ["--listen", &raw],
            ["--listen-quic", &agents],
        ];
        Process::server(certs, flags.as_flattened())
    }

    /// Kills it.
    async fn kill(self) -> (Certs, [SocketAddr; 3]) {
        self.server.kill().await;
        (self.certs, self.addresses)
    }

    /// Starts it again.
    async fn restart(killed: (Certs, [SocketAddr; 3])) -> Self {
        let (certs, addresses) = killed;
        let server = Self::listen(&certs, addresses);
        server.event("admin listening", |_| true).await;
        Self {
            certs,
            server,
            addresses,
        }
    }
}

/// An address of a server that never answers.
async fn black_hole() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    let address = socket.local_addr().expect("an address");
    (socket, address)
}

#[tokio::test]
async fn agents_return_to_a_restarted_server() {
    bounded(async {
        let mut witness = Witness::start().await;
        let echo = Target::echo().await;
        let server = RestartableServer::start().await;
        let [proxy, raw, agents] = server.addresses;
        let agent = Process::agent(&server.certs, agents, &RestartableServer::NAME);
        let agent_tcp = Process::agent_tcp(
            &server.certs,
            agents,
            echo.address,
            &RestartableServer::NAME,
        );
        let pages = [agent.admin().await, agent_tcp.admin().await];
        for page in pages {
            admin::is_ready(page).await;
        }
        let mut live = client::tunnel(proxy, witness.target.address).await;
        echoes(&mut live).await;

        let server = RestartableServer::restart(server.kill().await).await;
        // The agent resets the tunnels of the dead server.
        let end = timeout(NOTICED, witness.next_end()).await;
        assert_eq!(end, Ok(End::Reset));
        for kind in ["Connect", "Passthrough"] {
            let is = |event: &serde_json::Value| event["kind"] == kind;
            server.server.event("agent connected", is).await;
        }
        for page in pages {
            admin::is_ready(page).await;
        }
        echoes(&mut client::tunnel(proxy, echo.address).await).await;
        echoes(&mut TcpStream::connect(raw).await.unwrap()).await;
    })
    .await;
}

#[tokio::test]
async fn an_agent_is_not_ready_without_a_session_and_says_why() {
    bounded(async {
        let certs = Certs::new();
        let (_hole, address) = black_hole().await;
        let agent = Process::agent(&certs, address, &SHORT_HANDSHAKE);
        let page = agent.admin().await;
        let reason = format!("no session to {address} ({address}: no answer within");
        let is = |page: &admin::Page| page.status == 503 && page.body.contains(&reason);
        admin::becomes(page, "/readyz", is).await;
        // It is live: a restart would not help.
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
        let server = RestartableServer::start().await;
        let [_, _, agents] = server.addresses;
        let agent = Process::agent(&server.certs, agents, &RestartableServer::NAME);
        let page = agent.admin().await;
        admin::is_ready(page).await;
        let killed = server.kill().await;
        let reasons = admin::is_not_ready(page).await;
        let expected = format!("sessions: no session to {agents} (");
        assert!(reasons.starts_with(&expected), "{reasons}");
        let _server = RestartableServer::restart(killed).await;
        admin::is_ready(page).await;
    })
    .await;
}

/// The flags name the bad server before the good one.
async fn is_not_disturbed_by(bad: &str, phase: &str) {
    let certs = Certs::new();
    let echo = Target::echo().await;
    let server = Server::start(&certs, &[]);
    let good = server.agents.to_string();
    let flags = [&["--server", bad, "--server", &good][..], &SHORT_HANDSHAKE].concat();
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
    // No name server resolves `invalid` (RFC 6761).
    bounded(is_not_disturbed_by("towline.invalid:8888", "resolve")).await;
}
