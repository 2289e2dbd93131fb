//! A killed agent is detected, its tunnels end with a reset, a restarted agent serves at once, and
//! the other agents go on serving requests.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use towline_e2e::certs::Certs;
use towline_e2e::endings::{End, echoes, end};
use towline_e2e::process::Process;
use towline_e2e::programs::Server;
use towline_e2e::target::Target;
use towline_e2e::{admin, bounded, client, eventually};

/// A dead agent is detected within the idle timeout of 8 s, and no later than this.
const NOTICED: Duration = Duration::from_secs(10);

/// A restarted agent serves within this time from its start.
const BACK: Duration = Duration::from_secs(5);

/// The whole dial, as seen by the client.
const DIAL: Duration = Duration::from_secs(10);

#[tokio::test]
async fn tunnels_of_a_killed_agent_end_with_a_reset() {
    bounded(async {
        let certs = Certs::new();
        let echo = Target::echo().await;
        // More than all buffers on the way hold, so that the transfer cannot end.
        let source = Target::sends(vec![7; 64 * 1024 * 1024]).await;
        let server = Server::start(&certs, &[]);
        let agent = Process::agent(&certs, server.agents, &[]);
        server.has_sessions(1).await;
        let mut idle = client::tunnel(server.tcp(0), echo.address).await;
        echoes(&mut idle).await;
        let mut bulk = client::tunnel(server.tcp(0), source.address).await;
        bulk.readable().await.unwrap();

        agent.kill().await;
        let deadline = Instant::now() + NOTICED;
        for tunnel in [&mut idle, &mut bulk] {
            let ended = timeout_at(deadline, end(tunnel)).await;
            assert_eq!(ended, Ok(End::Reset));
        }
        server.has_sessions(0).await;
        assert!(Instant::now() < deadline, "noticed late");
        let (_, answer) = client::connect(server.tcp(0), echo.address).await.unwrap();
        assert_eq!(answer.status, 503, "{}", answer.head);
        server.is_at_rest().await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_tunnel_in_use_does_not_hide_that_its_agent_is_dead() {
    /// Late enough that a timer which the client's bytes restart would exceed the limit, and just
    /// before QUIC's own idle timer of six seconds may end the tunnel.
    const LATE: Duration = Duration::from_millis(5_500);

    bounded(async {
        let certs = Certs::new();
        let echo = Target::echo().await;
        let server = Server::start(&certs, &[]);
        let agent = Process::agent(&certs, server.agents, &[]);
        server.has_sessions(1).await;
        let mut tunnel = client::tunnel(server.tcp(0), echo.address).await;
        echoes(&mut tunnel).await;
        agent.kill().await;
        let deadline = Instant::now() + NOTICED;
        sleep_until(deadline - NOTICED + LATE).await;
        tunnel.write_all(b"still there?").await.unwrap();
        let ended = timeout_at(deadline, end(&mut tunnel)).await;
        assert_eq!(ended, Ok(End::Reset));
    })
    .await;
}

#[tokio::test]
async fn a_restarted_agent_serves_at_once() {
    bounded(async {
        let certs = Certs::new();
        let echo = Target::echo().await;
        let server = Server::start(&certs, &[]);
        let flags = ["--agent-id", "phoenix"];
        let agent = Process::agent(&certs, server.agents, &flags);
        server.has_sessions(1).await;
        let first = server.registry.snapshot()[0].id;
        let mut old = client::tunnel(server.tcp(0), echo.address).await;
        agent.kill().await;

        let started = Instant::now();
        let _agent = Process::agent(&certs, server.agents, &flags);
        // The new session replaces the old one long before that is detected to be dead.
        eventually("the new session takes over", vec![false, true], || {
            let members = server.registry.snapshot();
            members
                .iter()
                .map(|member| member.takes_tunnels() && member.id != first)
                .collect()
        })
        .await;
        for _ in 0..20 {
            let mut tunnel = client::tunnel(server.tcp(0), echo.address).await;
            echoes(&mut tunnel).await;
        }
        assert!(started.elapsed() < BACK, "{:?}", started.elapsed());
        assert_eq!(server.registry.snapshot().len(), 2, "detected only later");
        assert_eq!(end(&mut old).await, End::Reset);
        server.has_sessions(1).await;
    })
    .await;
}

#[tokio::test]
async fn requests_go_on_while_one_of_two_agents_is_dead() {
    /// So many requests at the same time reach both agents.
    const REQUESTS: usize = 30;

    bounded(async {
        let certs = Certs::new();
        let echo = Target::echo().await;
        let server = Server::start(&certs, &[]);
        let victim = Process::agent(&certs, server.agents, &["--agent-id", "victim"]);
        let _survivor = Process::agent(&certs, server.agents, &["--agent-id", "survivor"]);
        server.has_sessions(2).await;

        victim.kill().await;
        let deadline = Instant::now() + DIAL;
        let mut requests = JoinSet::new();
        for _ in 0..REQUESTS {
            requests.spawn(request(server.tcp(0), echo.address));
        }
        let mut at_once = 0;
        while let Some(served) = timeout_at(deadline, requests.join_next())
            .await
            .expect("all requests are answered within the dial timeout")
        {
            at_once += usize::from(served.unwrap() < Duration::from_secs(2));
        }
        assert!(at_once > 0, "the living agent serves its requests at once");
        let metrics = admin::metrics(server.admin).await;
        let retried = metrics.value("towline_server_retries_total", &[]);
        assert!(
            retried > 0.0 && at_once < REQUESTS,
            "{retried} retries, {at_once} served at once: no request went to the dead agent"
        );
        assert_eq!(metrics.sum("towline_server_refusals_total"), 0.0);
    })
    .await;
}

/// Opens a tunnel that works; returns how long it took.
async fn request(proxy: std::net::SocketAddr, target: std::net::SocketAddr) -> Duration {
    let began = Instant::now();
    let mut tunnel: TcpStream = client::tunnel(proxy, target).await;
    echoes(&mut tunnel).await;
    began.elapsed()
}
