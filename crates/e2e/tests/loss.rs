//! What holds on a good network holds on one that loses, doubles and reorders datagrams.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use towline_e2e::certs::Certs;
use towline_e2e::endings::{End, Witness, echoes, end};
use towline_e2e::programs::{Agent, Server};
use towline_e2e::relay::{Impairment, Relay};
use towline_e2e::target::{Closed, Target};
use towline_e2e::{bounded, client};

/// Sessions that are set up, each with a first flight of two datagrams (ML-KEM keys are long).
const HANDSHAKES: usize = 40;

/// Bytes in each direction at the same time.
const BULK: usize = 8 * 1024 * 1024;

const TOGETHER: usize = 64;

/// Both programs, and the impaired network between them.
struct Rough {
    server: Server,
    relay: Relay,
    agent: Agent,
}

#[tokio::test]
async fn handshakes_succeed() {
    bounded(async {
        let certs = Certs::new();
        let server = Server::start(&certs, &[]);
        let relay = Relay::start(server.agents, Impairment::rough(1));
        let mut agents = Vec::new();
        for number in 0..HANDSHAKES {
            let id = format!("agent-{number}");
            agents.push(Agent::start(&certs, relay.address, &["--agent-id", &id]));
        }
        for agent in &agents {
            agent.is_ready().await;
        }
        server.has_sessions(HANDSHAKES).await;
        let toll = relay.toll();
        assert!(toll.lost > 0 && toll.delayed > 0, "{toll:?}");
        let mut leaving = JoinSet::new();
        for agent in agents {
            leaving.spawn(agent.stop());
        }
        leaving.join_all().await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn bytes_arrive_whole_in_both_directions() {
    bounded(async {
        let rough = Rough::start(2).await;
        let echo = Target::echo().await;
        let mut sent = vec![0; BULK];
        fastrand::Rng::with_seed(2).fill(&mut sent);
        let mut tunnel = client::tunnel(rough.server.tcp(0), echo.address).await;
        let (mut read, mut write) = tunnel.split();
        let say = async {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let hear = async {
            let mut got = Vec::new();
            read.read_to_end(&mut got).await.unwrap();
            got
        };
        let ((), got) = tokio::join!(say, hear);
        assert!(got == sent, "{} of {BULK} bytes, or others", got.len());
        let toll = rough.relay.toll();
        let all = toll.lost > 0 && toll.doubled > 0 && toll.delayed > 0;
        assert!(all, "{toll:?}");
        drop(tunnel);
        rough.rest_and_stop().await;
    })
    .await;
}

#[tokio::test]
async fn halves_end_one_by_one_and_resets_stay_resets() {
    bounded(async {
        let rough = Rough::start(3).await;
        let proxy = rough.server.tcp(0);
        // Answers after the end of the request.
        let answers = Target::start(|mut stream| async move {
            let mut question = Vec::new();
            stream.read_to_end(&mut question).await.expect("a question");
            stream.write_all(&question).await.expect("a listener");
        })
        .await;
        let resets = Target::start(|mut stream| async move {
            stream.read_u8().await.expect("a byte");
            stream.set_zero_linger().expect("a socket");
        })
        .await;
        let mut witness = Witness::start().await;
        for round in 0..50 {
            let mut tunnel = client::tunnel(proxy, answers.address).await;
            let question = vec![7; 1_000 * round];
            tunnel.write_all(&question).await.unwrap();
            tunnel.shutdown().await.unwrap();
            let mut answer = Vec::new();
            tunnel.read_to_end(&mut answer).await.unwrap();
            assert!(
                answer == question,
                "{} of {} bytes",
                answer.len(),
                question.len()
            );

            let mut tunnel = client::tunnel(proxy, resets.address).await;
            tunnel.write_all(b"!").await.unwrap();
            assert_eq!(end(&mut tunnel).await, End::Reset);

            let mut tunnel = client::tunnel(proxy, witness.target.address).await;
            echoes(&mut tunnel).await;
            tunnel.set_zero_linger().unwrap();
            drop(tunnel);
            assert_eq!(witness.next_end().await, End::Reset);
        }
        rough.rest_and_stop().await;
    })
    .await;
}

#[tokio::test]
async fn refusals_arrive_with_their_reason() {
    bounded(async {
        let rough = Rough::start(4).await;
        let closed = Closed::new();
        let proxy = rough.server.tcp(0);
        for _ in 0..100 {
            let refused = client::refused(proxy, closed.address).await;
            assert_eq!(refused.answer.status, 502, "{}", refused.answer.head);
            assert_eq!(refused.answer.error(), Some("connection_refused"));
        }
        rough.rest_and_stop().await;
    })
    .await;
}

#[tokio::test]
async fn many_tunnels_work_at_once() {
    bounded(async {
        let rough = Rough::start(5).await;
        let echo = Target::echo().await;
        let mut tunnels = JoinSet::new();
        for _ in 0..TOGETHER {
            tunnels.spawn(talk(rough.server.tcp(0), echo.address));
        }
        tunnels.join_all().await;
        rough.rest_and_stop().await;
    })
    .await;
}

async fn talk(proxy: SocketAddr, target: SocketAddr) {
    let mut tunnel = client::tunnel(proxy, target).await;
    for _ in 0..50 {
        echoes(&mut tunnel).await;
    }
}

// === impl Rough ===

impl Rough {
    async fn start(seed: u64) -> Self {
        let certs = Certs::new();
        let server = Server::start(&certs, &[]);
        let relay = Relay::start(server.agents, Impairment::rough(seed));
        let agent = Agent::start(&certs, relay.address, &[]);
        agent.is_ready().await;
        server.has_sessions(1).await;
        Self {
            server,
            relay,
            agent,
        }
    }

    async fn rest_and_stop(self) {
        self.server.is_at_rest().await;
        self.agent.is_at_rest().await;
        self.agent.stop().await;
        self.server.stop().await;
    }
}
