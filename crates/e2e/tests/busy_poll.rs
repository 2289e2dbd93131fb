//! With `--busy-poll` the programs poll during request/response traffic, and only then.

use std::net::SocketAddr;

use towline_e2e::certs::Certs;
use towline_e2e::endings::echoes;
use towline_e2e::programs::{Agent, Server};
use towline_e2e::target::Target;
use towline_e2e::{admin, bounded, client};

/// Long enough for a loaded machine to send the next message within it.
const LONGEST: [&str; 2] = ["--busy-poll", "10ms"];
const NEVER: [&str; 2] = ["--busy-poll", "0s"];

/// More messages than it takes to be detected as request/response traffic.
const MESSAGES: usize = 50;

#[tokio::test]
async fn programs_busy_poll_during_request_and_response_and_sleep_afterwards() {
    bounded(async {
        let certs = Certs::new();
        let server = Server::start(&certs, &LONGEST);
        let agent = Agent::start(&certs, server.agents, &LONGEST);
        agent.is_ready().await;
        let echo = Target::echo().await;
        let mut tunnel = client::tunnel(server.tcp(0), echo.address).await;
        while polls(&server, &agent).await.contains(&0.0) {
            for _ in 0..MESSAGES {
                echoes(&mut tunnel).await;
            }
        }
        let mut before = [0.0; 2];
        loop {
            let now = polls(&server, &agent).await;
            if now == before {
                break;
            }
            before = now;
        }
        echoes(&mut tunnel).await;
        drop(tunnel);
        agent.stop().await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn programs_with_busy_polling_disabled_never_poll() {
    bounded(async {
        let certs = Certs::new();
        let server = Server::start(&certs, &NEVER);
        let agent = Agent::start(&certs, server.agents, &NEVER);
        agent.is_ready().await;
        let echo = Target::echo().await;
        let mut tunnel = client::tunnel(server.tcp(0), echo.address).await;
        for _ in 0..20 * MESSAGES {
            echoes(&mut tunnel).await;
        }
        assert_eq!(polls(&server, &agent).await, [0.0; 2]);
        drop(tunnel);
        agent.stop().await;
        server.stop().await;
    })
    .await;
}

/// Polls without a result, at the server and at the agent.
async fn polls(server: &Server, agent: &Agent) -> [f64; 2] {
    let of = async |admin: SocketAddr, program: &str| {
        let name = format!("towline_{program}_busy_polls_total");
        admin::metrics(admin).await.value(&name, &[])
    };
    [
        of(server.admin, "server").await,
        of(agent.admin, "agent").await,
    ]
}
