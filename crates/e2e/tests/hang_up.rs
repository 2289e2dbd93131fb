//! Clients that disconnect while their target is dialed leave no stream and no descriptor.

use std::net::SocketAddr;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;
use towline_e2e::client::{Way, Ways, connect_head};
use towline_e2e::endings::echoes;
use towline_e2e::footprint::descriptors;
use towline_e2e::target::{BlackHole, Target};
use towline_e2e::{admin, bounded, client, eventually};

/// Clients that dial at the same time.
const TOGETHER: usize = 64;

/// Rounds of each way and manner: 2,048 cancelled dials in all.
const ROUNDS: usize = 8;

/// A client, the server's end of its connection, and the agent's attempt.
const DESCRIPTORS_EACH: usize = 3;

/// A client that waits for its answer.
enum Waiting {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

#[derive(Debug, Clone, Copy)]
enum Manner {
    /// Closes the connection, as a program that gives up.
    Close,
    /// Resets the connection, as a program that is killed with bytes unread.
    Reset,
}

// The only test in this file, because it counts the descriptors of the process.
#[tokio::test]
async fn cancelled_dials_leave_nothing_behind() {
    bounded(async {
        let ways = Ways::start(&[]).await;
        let hole = BlackHole::new();
        let echo = Target::echo().await;
        for way in Way::ALL {
            echoes(&mut ways.tunnel(way, echo.address).await).await;
        }
        at_rest(&ways).await;
        let baseline = descriptors();
        let mut cancelled = 0;
        for way in [Way::Tcp, Way::Tls] {
            for manner in [Manner::Close, Manner::Reset] {
                for _ in 0..ROUNDS {
                    let waiting = dial(&ways, way, hole.address).await;
                    let dialing = (TOGETHER, baseline + TOGETHER * DESCRIPTORS_EACH);
                    eventually("streams and descriptors during the dials", dialing, || {
                        (open_streams(&ways), descriptors())
                    })
                    .await;
                    for client in waiting {
                        client.hang_up(manner).await;
                    }
                    at_rest(&ways).await;
                    eventually("descriptors", baseline, descriptors).await;
                    cancelled += TOGETHER;
                }
            }
        }
        for (admin, metric) in [
            (ways.server.admin, "towline_server_tunnels_total"),
            (ways.agent.admin, "towline_agent_tunnels_total"),
        ] {
            let count = f64::from(u32::try_from(cancelled).unwrap());
            let is = |metrics: &towline_e2e::openmetrics::Metrics| {
                metrics.value(metric, &[("outcome", "cancelled")]) == count
            };
            admin::metrics_become("cancelled dials", admin, is).await;
        }
        for way in Way::ALL {
            echoes(&mut ways.tunnel(way, echo.address).await).await;
        }
        at_rest(&ways).await;
        eventually("descriptors", baseline, descriptors).await;
        ways.rest_and_stop().await;
    })
    .await;
}

async fn at_rest(ways: &Ways) {
    ways.server.is_at_rest().await;
    ways.agent.is_at_rest().await;
}

fn open_streams(ways: &Ways) -> usize {
    let members = ways.server.registry.snapshot();
    members
        .iter()
        .map(|member| member.session.open_streams())
        .sum()
}

/// [`TOGETHER`] clients that have asked for the target.
async fn dial(ways: &Ways, way: Way, target: SocketAddr) -> Vec<Waiting> {
    let mut asking = JoinSet::new();
    for _ in 0..TOGETHER {
        let (tcp, tls) = (ways.server.tcp(0), ways.server.tcp(1));
        let connector = ways.certs.connector(true);
        asking.spawn(async move {
            let mut client = match way {
                Way::Tls => Waiting::Tls(Box::new(
                    client::tls(&connector, tls).await.expect("a connection"),
                )),
                _ => Waiting::Tcp(TcpStream::connect(tcp).await.expect("a connection")),
            };
            client.say(connect_head(target).as_bytes()).await;
            client
        });
    }
    asking.join_all().await
}

// === impl Waiting ===

impl Waiting {
    async fn say(&mut self, bytes: &[u8]) {
        match self {
            Self::Tcp(stream) => stream
                .write_all(bytes)
                .await
                .expect("a peer that takes bytes"),
            Self::Tls(stream) => {
                stream
                    .write_all(bytes)
                    .await
                    .expect("a peer that takes bytes");
                stream.flush().await.expect("a peer that takes bytes");
            }
        }
    }

    async fn hang_up(mut self, manner: Manner) {
        match (&mut self, manner) {
            (Self::Tcp(stream), Manner::Reset) => stream.set_zero_linger().expect("a socket"),
            (Self::Tls(stream), Manner::Reset) => {
                stream.get_ref().0.set_zero_linger().expect("a socket")
            }
            (Self::Tcp(_), Manner::Close) => {}
            (Self::Tls(stream), Manner::Close) => {
                stream.shutdown().await.expect("a peer that takes the end")
            }
        }
    }
}
