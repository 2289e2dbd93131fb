//! Their server with our agents of both kinds.

use crate::certs::Certs;
use crate::interop::Family;
use crate::interop::exchange::{exchange_raw, target};
use crate::interop::pairs::{
    BULK, SERVER_NAME, SMALL, UNKNOWN_HOST, connect_exchange, ends_without_a_byte, many, refused,
    serves, until,
};
use crate::programs::Agent;
use crate::target::Closed;
use crate::{admin, client};

/// Our proxy-agent answers the CONNECT of their server's clients.
pub async fn our_proxy_agent_serves_their_server(family: Family) {
    let certs = Certs::new();
    let target = target().await;
    let server = family.server(&certs).await;
    let agent = Agent::start(&certs, server.agents, &SERVER_NAME);
    server.has_agents(1).await;
    serves(server.clients, target.address).await;

    connect_exchange(server.clients, target.address, BULK).await;
    let (proxy, to) = (server.clients, target.address);
    many(move || connect_exchange(proxy, to, SMALL)).await;
    agent.is_at_rest().await;
    agent.stop().await;
    server.has_agents(0).await;
}

/// The text of its refusals reaches the client unchanged, and the connection ends.
pub async fn our_proxy_agent_tells_their_clients_why_not(family: Family) {
    let certs = Certs::new();
    let target = target().await;
    let server = family.server(&certs).await;
    let agent = Agent::start(&certs, server.agents, &SERVER_NAME);
    server.has_agents(1).await;
    serves(server.clients, target.address).await;

    let closed = Closed::new();
    let answer = refused(server.clients, closed.address).await;
    let why = format!("dial {}: connection refused", closed.address);
    let status = format!("HTTP/1.1 502 {why}\r\n");
    assert!(answer.starts_with(&status), "{answer}");
    let answer = refused(server.clients, UNKNOWN_HOST).await;
    assert!(
        answer.starts_with("HTTP/1.1 502 look up host.invalid: "),
        "{answer}"
    );
    let answer = refused(server.clients, "no-port").await;
    assert!(
        answer.starts_with("HTTP/1.1 400 target has no port\r\n"),
        "{answer}"
    );
    let get = b"GET http://host.invalid/ HTTP/1.1\r\nHost: host.invalid\r\n\r\n";
    let answer = client::says(server.clients, get).await.answer.head;
    let status = "HTTP/1.1 405 only CONNECT is served here\r\n";
    assert!(answer.starts_with(status), "{answer}");
    connect_exchange(server.clients, target.address, SMALL).await;
    agent.is_at_rest().await;
    agent.stop().await;
}

/// Our agent-tcp forwards raw streams.
pub async fn our_agent_tcp_serves_their_server(family: Family) {
    let certs = Certs::new();
    let target = target().await;
    let server = family.server(&certs).await;
    let agent = Agent::start_tcp(&certs, server.agents, target.address, &SERVER_NAME);
    server.has_agents(1).await;
    let raw = server.clients;
    let works = || async move { exchange_raw(raw, SMALL).await.is_ok() };
    until("an exchange through their server", works).await;

    exchange_raw(raw, BULK).await.expect("bulk");
    many(move || async move { exchange_raw(raw, SMALL).await.expect("an exchange") }).await;
    agent.is_at_rest().await;
    agent.stop().await;
    server.has_agents(0).await;
}

/// An upstream that refuses ends the client's connection without a byte.
pub async fn our_agent_tcp_ends_what_it_cannot_connect(family: Family) {
    let certs = Certs::new();
    let server = family.server(&certs).await;
    let closed = Closed::new();
    let agent = Agent::start_tcp(&certs, server.agents, closed.address, &SERVER_NAME);
    server.has_agents(1).await;

    ends_without_a_byte(server.clients).await;
    admin::metrics_become("tunnels refused", agent.admin, |metrics| {
        metrics.value("towline_agent_refusals_total", &[("reason", "refused")]) >= 1.0
    })
    .await;
    agent.stop().await;
}

/// Our agent reconnects to a server that was killed, and a server admits our restarted agent.
pub async fn their_server_takes_our_agents_back(family: Family) {
    let certs = Certs::new();
    let target = target().await;
    let server = family.server(&certs).await;
    let agent = Agent::start(&certs, server.agents, &SERVER_NAME);
    server.has_agents(1).await;
    serves(server.clients, target.address).await;

    let agents = server.agents;
    server.kill().await;
    let server = family.server_at(&certs, agents).await;
    server.has_agents(1).await;
    serves(server.clients, target.address).await;

    agent.stop().await;
    server.has_agents(0).await;
    let agent = Agent::start(&certs, server.agents, &SERVER_NAME);
    server.has_agents(1).await;
    serves(server.clients, target.address).await;
    agent.stop().await;
}
