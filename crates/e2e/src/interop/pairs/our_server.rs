//! Our proxy-server with their agents of both kinds.

use crate::admin;
use crate::certs::Certs;
use crate::interop::Family;
use crate::interop::exchange::{exchange_raw, target};
use crate::interop::pairs::{
    BULK, RAW, SMALL, UNKNOWN_HOST, connect_exchange, ends_without_a_byte, many, refused,
};
use crate::programs::{Agent, Server};
use crate::target::{BlackHole, Closed};

/// Through a connect agent: bulk in both directions and many requests, with nothing left of them.
pub async fn our_server_serves_through_a_connect_agent(family: Family) {
    let certs = Certs::new();
    let target = target().await;
    let server = Server::start(&certs, &[]);
    let _agent = family.connect_agent(&certs, server.agents);
    server.has_sessions(1).await;

    connect_exchange(server.tcp(0), target.address, BULK).await;
    let (proxy, to) = (server.tcp(0), target.address);
    many(move || connect_exchange(proxy, to, SMALL)).await;
    server.is_at_rest().await;
    server.stop().await;
}

/// A target that such an agent cannot reach is refused with the whole answer of the agent, and the
/// stream is closed although the agent does not finish it.
pub async fn our_server_says_why_a_connect_agent_refused(family: Family) {
    let certs = Certs::new();
    let target = target().await;
    let server = Server::start(&certs, &[]);
    let _agent = family.connect_agent(&certs, server.agents);
    server.has_sessions(1).await;

    let closed = Closed::new();
    for unreachable in [closed.address.to_string(), UNKNOWN_HOST.to_owned()] {
        let answer = refused(server.tcp(0), &unreachable).await;
        let status = "HTTP/1.1 502 agent answered 400 Bad Request\r\n";
        assert!(answer.starts_with(status), "{unreachable}: {answer}");
    }
    server.is_at_rest().await;
    connect_exchange(server.tcp(0), target.address, SMALL).await;
    server.stop().await;
}

/// Such an agent has no deadline for its dials: our server ends the stream.
pub async fn our_server_gives_up_on_a_connect_agent_that_dials_on(family: Family) {
    let certs = Certs::new();
    let server = Server::start(&certs, &["--dial-timeout", "200ms"]);
    let _agent = family.connect_agent(&certs, server.agents);
    server.has_sessions(1).await;

    let hole = BlackHole::new();
    let answer = refused(server.tcp(0), hole.address).await;
    let status = "HTTP/1.1 504 agent did not answer in time\r\n";
    assert!(answer.starts_with(status), "{answer}");
    server.is_at_rest().await;
    server.stop().await;
}

/// Through a passthrough agent, from a raw listener; it does not serve CONNECT.
pub async fn our_server_serves_through_a_passthrough_agent(family: Family) {
    let certs = Certs::new();
    let target = target().await;
    let server = Server::start(
        &certs,
        &[&RAW[..], &["--legacy-agents", "passthrough"]].concat(),
    );
    let _agent = family.passthrough_agent(&certs, server.agents, target.address);
    server.has_sessions(1).await;

    let raw = server.tcp(1);
    exchange_raw(raw, BULK).await.expect("bulk");
    many(move || async move { exchange_raw(raw, SMALL).await.expect("an exchange") }).await;
    let answer = refused(server.tcp(0), target.address).await;
    assert!(
        answer.starts_with("HTTP/1.1 503 no agent is connected\r\n"),
        "{answer}"
    );
    server.is_at_rest().await;
    server.stop().await;
}

/// An upstream that refuses ends the client's connection without a byte.
pub async fn our_server_resets_what_a_passthrough_agent_cannot_connect(family: Family) {
    let certs = Certs::new();
    let server = Server::start(
        &certs,
        &[&RAW[..], &["--legacy-agents", "passthrough"]].concat(),
    );
    let closed = Closed::new();
    let _agent = family.passthrough_agent(&certs, server.agents, closed.address);
    server.has_sessions(1).await;

    ends_without_a_byte(server.tcp(1)).await;
    server.is_at_rest().await;
    server.stop().await;
}

/// Legacy agents are refused, however often they try, while ours are admitted.
pub async fn our_server_refuses_legacy_agents(family: Family) {
    let certs = Certs::new();
    let target = target().await;
    let server = Server::start(&certs, &["--legacy-agents", "refuse"]);
    let _theirs = family.connect_agent(&certs, server.agents);
    admin::metrics_become("legacy agents refused", server.admin, |metrics| {
        let name = "towline_server_sessions_refused_total";
        metrics.value(name, &[("reason", "refused")]) >= 2.0
    })
    .await;
    assert_eq!(server.registry.snapshot().len(), 0);
    let answer = refused(server.tcp(0), target.address).await;
    assert!(
        answer.starts_with("HTTP/1.1 503 no agent is connected\r\n"),
        "{answer}"
    );

    let _ours = Agent::start(&certs, server.agents, &[]);
    server.has_sessions(1).await;
    connect_exchange(server.tcp(0), target.address, SMALL).await;
    server.stop().await;
}

/// A restarted agent serves in place of a killed one; an agent reconnects to a restarted server.
pub async fn our_server_takes_agents_back(family: Family) {
    let certs = Certs::new();
    let target = target().await;
    let server = Server::start(&certs, &[]);
    let first = family.connect_agent(&certs, server.agents);
    server.has_sessions(1).await;
    connect_exchange(server.tcp(0), target.address, SMALL).await;

    first.kill().await;
    server.has_sessions(0).await;
    let second = family.connect_agent(&certs, server.agents);
    server.has_sessions(1).await;
    connect_exchange(server.tcp(0), target.address, SMALL).await;

    let agents = server.agents.to_string();
    server.stop().await;
    let server = Server::start(&certs, &["--listen-quic", &agents]);
    second.has_connected(2).await;
    server.has_sessions(1).await;
    connect_exchange(server.tcp(0), target.address, SMALL).await;
    server.stop().await;
}
