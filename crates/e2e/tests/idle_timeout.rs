//! With `--idle-timeout` a silent tunnel is reset; without it a tunnel may stay silent for ever.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};
use towline_e2e::certs::Certs;
use towline_e2e::endings::{End, Witness, echoes, end};
use towline_e2e::openmetrics::Metrics;
use towline_e2e::programs::{Agent, Server};
use towline_e2e::target::Target;
use towline_e2e::{admin, bounded, client};

const LIMIT: Duration = Duration::from_secs(2);
const FLAG: [&str; 2] = ["--idle-timeout", "2s"];

/// How long a tunnel is silent without the flag: three idle timeouts of its session.
const SILENCE: Duration = Duration::from_secs(3);
const SHORT_SESSION_TIMEOUT: [&str; 4] =
    ["--quic-idle-timeout", "1s", "--quic-keep-alive", "250ms"];

/// A tunnel with a byte now and then sends one this often.
const TICK: Duration = Duration::from_millis(200);

/// Which program has the flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Where {
    Server,
    Agent,
}

#[tokio::test]
async fn the_server_resets_a_silent_tunnel() {
    a_silent_tunnel_is_reset(Where::Server).await;
}

#[tokio::test]
async fn the_agent_resets_a_silent_tunnel() {
    a_silent_tunnel_is_reset(Where::Agent).await;
}

#[tokio::test]
async fn a_tunnel_with_a_byte_now_and_then_stays_open() {
    bounded(async {
        let certs = Certs::new();
        let echo = Target::echo().await;
        // Sends a byte now and then, and receives nothing.
        let ticker = Target::start(|mut stream| async move {
            while stream.write_all(b"t").await.is_ok() {
                sleep(TICK).await;
            }
        })
        .await;
        let (server, agent) = programs(&certs, &FLAG, &FLAG).await;
        let mut asked = client::tunnel(server.tcp(0), echo.address).await;
        let mut told = client::tunnel(server.tcp(0), ticker.address).await;
        let until = Instant::now() + 3 * LIMIT;
        while Instant::now() < until {
            echoes(&mut asked).await;
            told.read_exact(&mut [0]).await.unwrap();
            sleep(TICK).await;
        }
        drop((asked, told));
        rest_and_stop(server, agent).await;
    })
    .await;
}

#[tokio::test]
async fn without_the_flag_a_silent_tunnel_stays_open() {
    bounded(async {
        let certs = Certs::new();
        let echo = Target::echo().await;
        let idle = &SHORT_SESSION_TIMEOUT[..2];
        let (server, agent) = programs(&certs, idle, &SHORT_SESSION_TIMEOUT).await;
        let mut silent = client::tunnel(server.tcp(0), echo.address).await;
        echoes(&mut silent).await;
        let mut unused = client::tunnel(server.tcp(0), echo.address).await;
        sleep(SILENCE).await;
        echoes(&mut silent).await;
        echoes(&mut unused).await;
        drop((silent, unused));
        rest_and_stop(server, agent).await;
    })
    .await;
}

async fn a_silent_tunnel_is_reset(by: Where) {
    bounded(async {
        let certs = Certs::new();
        let mut witness = Witness::start().await;
        let none: &[&str] = &[];
        let (server, agent) = match by {
            Where::Server => programs(&certs, &FLAG, none).await,
            Where::Agent => programs(&certs, none, &FLAG).await,
        };
        let mut tunnel = client::tunnel(server.tcp(0), witness.target.address).await;
        echoes(&mut tunnel).await;
        // The program saw the last byte before the echo came back, by a tenth of the limit at most.
        let silent_since = Instant::now();
        assert_eq!(end(&mut tunnel).await, End::Reset);
        let silent = silent_since.elapsed();
        assert!(silent > LIMIT.mul_f32(0.9), "reset after {silent:?}");
        assert_eq!(witness.next_end().await, End::Reset);

        // The limit holds for a tunnel of which one half has ended, too.
        let deaf = deaf().await;
        let mut half = client::tunnel(server.tcp(0), deaf.address).await;
        half.shutdown().await.expect("a peer that takes the end");
        assert_eq!(end(&mut half).await, End::Reset);

        let (admin, metric) = match by {
            Where::Server => (server.admin, "towline_server_tunnels_total"),
            Where::Agent => (agent.admin, "towline_agent_tunnels_total"),
        };
        let both = |metrics: &Metrics| metrics.value(metric, &[("outcome", "idle")]) == 2.0;
        admin::metrics_become("tunnels that were idle", admin, both).await;
        rest_and_stop(server, agent).await;
    })
    .await;
}

/// Both programs, each with flags of its own.
async fn programs(certs: &Certs, server_flags: &[&str], agent_flags: &[&str]) -> (Server, Agent) {
    let server = Server::start(certs, server_flags);
    let agent = Agent::start(certs, server.agents, agent_flags);
    agent.is_ready().await;
    server.has_sessions(1).await;
    (server, agent)
}

/// Reads, and never sends.
async fn deaf() -> Target {
    Target::start(|stream| async move {
        let _held = stream;
        std::future::pending().await
    })
    .await
}

async fn rest_and_stop(server: Server, agent: Agent) {
    server.is_at_rest().await;
    agent.is_at_rest().await;
    agent.stop().await;
    server.stop().await;
}
