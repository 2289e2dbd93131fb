//! A restarted agent replaces its older instance without cutting a tunnel; an older instance is
//! refused with a reason; agents of different kinds do not replace each other.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use towline_e2e::certs::Certs;
use towline_e2e::endings::{End, echoes, end};
use towline_e2e::programs::{Agent, Server};
use towline_e2e::target::Target;
use towline_e2e::{admin, bounded, client, eventually};
use towline_protocol::control::AgentKind;

const TWIN: [&str; 2] = ["--agent-id", "twin"];

/// The reason that the older of two instances logs and shows on its readiness page.
const REFUSED: &str =
    "a newer instance of agent twin is connected; give every agent an --agent-id of its own";

/// Waits until this agent has this many tunnels.
async fn carries(agent: &Agent, tunnels: usize) {
    eventually("tunnels of the agent", tunnels, || {
        agent.tunnels.stats().live
    })
    .await;
}

/// Waits until each session of the server takes tunnels or does not, in the order of arrival.
async fn take_tunnels(server: &Server, expected: &[bool]) {
    eventually("sessions that take tunnels", expected.to_vec(), || {
        let members = server.registry.snapshot();
        members
            .iter()
            .map(|member| member.takes_tunnels())
            .collect()
    })
    .await;
}

/// Waits until the agent has no session, because a newer instance is there.
async fn is_refused(agent: &Agent) {
    eventually("refused with a reason", true, || {
        let reasons = agent.readiness.state().err().unwrap_or_default();
        reasons.iter().any(|reason| reason.contains(REFUSED))
    })
    .await;
}

#[tokio::test]
async fn a_newer_instance_takes_over_and_no_tunnel_is_cut() {
    bounded(async {
        let certs = Certs::new();
        let echo = Target::echo().await;
        let server = Server::start(&certs, &[]);
        let older = Agent::start(&certs, server.agents, &TWIN);
        older.is_ready().await;
        let mut old = client::tunnel(server.tcp(0), echo.address).await;
        echoes(&mut old).await;

        let newer = Agent::start(&certs, server.agents, &TWIN);
        take_tunnels(&server, &[false, true]).await;
        let mut fresh = Vec::new();
        for _ in 0..10 {
            let mut tunnel = client::tunnel(server.tcp(0), echo.address).await;
            echoes(&mut tunnel).await;
            fresh.push(tunnel);
        }
        carries(&newer, fresh.len()).await;
        carries(&older, 1).await;
        // The old tunnel goes on until its own end, and its session with it.
        echoes(&mut old).await;
        assert_eq!(server.registry.snapshot().len(), 2);
        old.shutdown().await.unwrap();
        assert_eq!(end(&mut old).await, End::Finished);
        take_tunnels(&server, &[true]).await;

        // The older instance dials again and is refused with the reason.
        is_refused(&older).await;
        for tunnel in &mut fresh {
            echoes(tunnel).await;
        }
        drop(fresh);
        older.stop().await;
        newer.stop().await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn an_older_instance_is_refused_until_the_newer_one_leaves() {
    bounded(async {
        let certs = Certs::new();
        let echo = Target::echo().await;
        let server = Server::start(&certs, &[]);
        let older = Agent::start(&certs, server.agents, &TWIN);
        older.is_ready().await;
        let newer = Agent::start(&certs, server.agents, &TWIN);
        is_refused(&older).await;
        take_tunnels(&server, &[true]).await;
        let refused = admin::metrics_become("refusals", server.admin, |metrics| {
            metrics.sum("towline_server_sessions_refused_total") >= 2.0
        })
        .await;
        let reasons = refused.by("towline_server_sessions_refused_total", "reason");
        assert_eq!(reasons.keys().collect::<Vec<_>>(), ["replaced"]);
        // It is refused each time, and other tunnels go on.
        echoes(&mut client::tunnel(server.tcp(0), echo.address).await).await;
        assert_eq!(newer.readiness.state(), Ok(()));

        newer.stop().await;
        older.is_ready().await;
        echoes(&mut client::tunnel(server.tcp(0), echo.address).await).await;
        older.stop().await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn agents_of_different_kinds_share_an_id() {
    bounded(async {
        let certs = Certs::new();
        let echo = Target::echo().await;
        let server = Server::start(&certs, &["--listen", "raw=tcp://127.0.0.1:0"]);
        let connect = Agent::start(&certs, server.agents, &TWIN);
        connect.is_ready().await;
        let passthrough = Agent::start_tcp(&certs, server.agents, echo.address, &TWIN);
        passthrough.is_ready().await;
        take_tunnels(&server, &[true, true]).await;
        let kinds: Vec<_> = server
            .registry
            .snapshot()
            .iter()
            .map(|member| member.agent.kind)
            .collect();
        assert_eq!(kinds, [AgentKind::Connect, AgentKind::Passthrough]);
        let mut tunnel = client::tunnel(server.tcp(0), echo.address).await;
        let mut raw = TcpStream::connect(server.tcp(1)).await.unwrap();
        echoes(&mut tunnel).await;
        echoes(&mut raw).await;
        carries(&connect, 1).await;
        carries(&passthrough, 1).await;
        drop((tunnel, raw));
        server.is_at_rest().await;
        assert_eq!(server.registry.snapshot().len(), 2);
        connect.stop().await;
        passthrough.stop().await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn an_agent_with_another_certificate_takes_nothing_over() {
    bounded(async {
        let certs = Certs::new();
        let server = Server::start(&certs, &[]);
        let first = Agent::start(&certs, server.agents, &TWIN);
        first.is_ready().await;
        let (cert, key) = (certs.flag("client.pem"), certs.flag("client-key.pem"));
        let other = [&TWIN[..], &["--cert-file", &cert, "--cert-key", &key]].concat();
        let other = Agent::start(&certs, server.agents, &other);
        other.is_ready().await;
        take_tunnels(&server, &[true, true]).await;
        first.stop().await;
        other.stop().await;
        server.stop().await;
    })
    .await;
}
