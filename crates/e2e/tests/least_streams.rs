//! Tunnels go to agents with few open streams: agents share the load, and one that joins later
//! catches up.

use tokio::net::TcpStream;
use towline_e2e::certs::Certs;
use towline_e2e::endings::echoes;
use towline_e2e::programs::{Agent, Server};
use towline_e2e::target::Target;
use towline_e2e::{bounded, client, eventually};

const TUNNELS: usize = 300;

/// The largest difference between agents if tunnels come one after the other. Of two agents drawn,
/// the one with more tunnels is never picked, so the probability of a gap falls geometrically with
/// its size: for more than 10 it is below 10^-6.
const GAP: usize = 10;

async fn agents(certs: &Certs, server: &Server, names: &[&str]) -> Vec<Agent> {
    let before = server.registry.snapshot().len();
    let start = |name: &&str| Agent::start(certs, server.agents, &["--agent-id", name]);
    let agents: Vec<_> = names.iter().map(start).collect();
    server.has_sessions(before + names.len()).await;
    agents
}

async fn open(server: &Server, target: &Target, count: usize) -> Vec<TcpStream> {
    let mut tunnels = Vec::with_capacity(count);
    for _ in 0..count {
        tunnels.push(client::tunnel(server.tcp(0), target.address).await);
    }
    tunnels
}

/// How many tunnels each agent has, once all are open.
async fn shares(agents: &[Agent], tunnels: usize) -> Vec<usize> {
    let live = || -> Vec<usize> {
        agents
            .iter()
            .map(|agent| agent.tunnels.stats().live)
            .collect()
    };
    eventually("tunnels of all agents", tunnels, || live().iter().sum()).await;
    live()
}

fn are_even(shares: &[usize]) {
    let (least, most) = (shares.iter().min(), shares.iter().max());
    let gap = most.zip(least).map(|(most, least)| most - least);
    assert!(gap.is_some_and(|gap| gap <= GAP), "{shares:?}");
}

/// All tunnels work at the same time, and all end.
async fn carry_and_stop(server: Server, agents: Vec<Agent>, mut tunnels: Vec<TcpStream>) {
    for tunnel in &mut tunnels {
        echoes(tunnel).await;
    }
    drop(tunnels);
    server.is_at_rest().await;
    for agent in agents {
        agent.is_at_rest().await;
        agent.stop().await;
    }
    server.stop().await;
}

#[tokio::test]
async fn two_agents_share_the_tunnels() {
    bounded(async {
        let certs = Certs::new();
        let echo = Target::echo().await;
        let server = Server::start(&certs, &[]);
        let agents = agents(&certs, &server, &["a", "b"]).await;
        let tunnels = open(&server, &echo, TUNNELS).await;
        are_even(&shares(&agents, TUNNELS).await);
        carry_and_stop(server, agents, tunnels).await;
    })
    .await;
}

#[tokio::test]
async fn three_agents_share_the_tunnels() {
    bounded(async {
        let certs = Certs::new();
        let echo = Target::echo().await;
        let server = Server::start(&certs, &[]);
        let agents = agents(&certs, &server, &["a", "b", "c"]).await;
        let tunnels = open(&server, &echo, TUNNELS).await;
        are_even(&shares(&agents, TUNNELS).await);
        carry_and_stop(server, agents, tunnels).await;
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_comes_late_catches_up() {
    bounded(async {
        let certs = Certs::new();
        let echo = Target::echo().await;
        let server = Server::start(&certs, &[]);
        let mut all = agents(&certs, &server, &["early"]).await;
        let mut tunnels = open(&server, &echo, TUNNELS / 2).await;
        assert_eq!(shares(&all, TUNNELS / 2).await, [TUNNELS / 2]);
        all.extend(agents(&certs, &server, &["late"]).await);
        tunnels.extend(open(&server, &echo, TUNNELS / 2).await);
        are_even(&shares(&all, TUNNELS).await);
        carry_and_stop(server, all, tunnels).await;
    })
    .await;
}

#[tokio::test]
async fn tunnels_that_end_make_room() {
    bounded(async {
        let certs = Certs::new();
        let echo = Target::echo().await;
        let server = Server::start(&certs, &[]);
        let agents = agents(&certs, &server, &["a", "b"]).await;
        let mut tunnels = open(&server, &echo, TUNNELS).await;
        // The agent that has lost its tunnels gets the next ones.
        tunnels.truncate(TUNNELS / 3);
        shares(&agents, TUNNELS / 3).await;
        eventually("streams at the server", TUNNELS / 3, || {
            let members = server.registry.snapshot();
            members
                .iter()
                .map(|member| member.session.open_streams())
                .sum::<usize>()
        })
        .await;
        tunnels.extend(open(&server, &echo, TUNNELS / 3 * 2).await);
        are_even(&shares(&agents, TUNNELS).await);
        carry_and_stop(server, agents, tunnels).await;
    })
    .await;
}
