//! Servers of either side with agents of both.

use crate::certs::Certs;
use crate::interop::Family;
use crate::interop::exchange::{exchange_raw, target};
use crate::interop::pairs::{
    RAW, REQUESTS, SERVER_NAME, SMALL, connect_exchange, many, serves, shared,
};
use crate::programs::{Agent, Server};

/// Agents of both dialects share the requests, and those that a killed one leaves unanswered are
/// served by the other.
pub async fn our_server_mixes_connect_agents(family: Family) {
    let certs = Certs::new();
    let target = target().await;
    let server = Server::start(&certs, &[]);
    let theirs = family.connect_agent(&certs, server.agents);
    let ours = Agent::start(&certs, server.agents, &[]);
    server.has_sessions(2).await;

    let (proxy, to) = (server.tcp(0), target.address);
    many(move || connect_exchange(proxy, to, SMALL)).await;
    server.is_at_rest().await;
    shared(&ours, REQUESTS).await;

    theirs.kill().await;
    many(move || connect_exchange(proxy, to, SMALL)).await;
    server.has_sessions(1).await;
    server.is_at_rest().await;
    ours.stop().await;
    server.stop().await;
}

/// Raw connections go to passthrough agents of both dialects.
pub async fn our_server_mixes_passthrough_agents(family: Family) {
    let certs = Certs::new();
    let target = target().await;
    let server = Server::start(
        &certs,
        &[&RAW[..], &["--legacy-agents", "passthrough"]].concat(),
    );
    let _theirs = family.passthrough_agent(&certs, server.agents, target.address);
    let ours = Agent::start_tcp(&certs, server.agents, target.address, &[]);
    server.has_sessions(2).await;

    let raw = server.tcp(1);
    many(move || async move { exchange_raw(raw, SMALL).await.expect("an exchange") }).await;
    server.is_at_rest().await;
    shared(&ours, REQUESTS).await;
    ours.stop().await;
    server.stop().await;
}

/// Their server spreads its clients over its own agent and ours.
pub async fn their_server_mixes_agents(family: Family) {
    let certs = Certs::new();
    let target = target().await;
    let server = family.server(&certs).await;
    let _theirs = family.connect_agent(&certs, server.agents);
    let ours = Agent::start(&certs, server.agents, &SERVER_NAME);
    server.has_agents(2).await;
    // Two one after the other, because it alternates between agents.
    serves(server.clients, target.address).await;
    serves(server.clients, target.address).await;

    let (proxy, to) = (server.clients, target.address);
    many(move || connect_exchange(proxy, to, SMALL)).await;
    ours.is_at_rest().await;
    shared(&ours, REQUESTS).await;
    ours.stop().await;
}
