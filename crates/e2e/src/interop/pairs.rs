//! What every mixed pair of ours and a peer of the legacy dialect must be able to do. Each function
//! is a test; [`interop_pairs!`](crate::interop_pairs) makes them tests of one family of peers.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::interop::exchange::exchange;
use crate::programs::Agent;
use crate::{admin, client};

mod our_server;
mod pools;
mod their_server;

pub use our_server::*;
pub use pools::*;
pub use their_server::*;

/// A transfer longer than our stream window and every socket buffer on its way.
const BULK: u64 = 20 * 1024 * 1024;

/// Requests one after the other, so that a leak for each of them would show.
const REQUESTS: usize = 200;

/// How many of them run at the same time.
const AT_A_TIME: usize = 10;

/// Bytes of each, in each direction: more than a packet, less than a window.
const SMALL: u64 = 4 * 1024;

/// How long a server may take to use an agent after it has logged its session.
const EVENTUALLY: Duration = Duration::from_secs(10);

/// A name that never resolves (RFC 6761 §6.4).
const UNKNOWN_HOST: &str = "host.invalid:80";

/// A raw listener on a free port.
const RAW: [&str; 2] = ["--listen", "raw=tcp://127.0.0.1:0"];

/// The name in a server's certificate that agents of the dialect expect.
const SERVER_NAME: [&str; 2] = ["--server-name", "quic-tunnel-server"];

/// Makes a test of every scenario, against one family of peers.
#[macro_export]
macro_rules! interop_pairs {
    ($family:expr) => {
        $crate::interop_pairs!(
            $family;
            our_server_serves_through_a_connect_agent
            our_server_says_why_a_connect_agent_refused
            our_server_gives_up_on_a_connect_agent_that_dials_on
            our_server_serves_through_a_passthrough_agent
            our_server_resets_what_a_passthrough_agent_cannot_connect
            our_server_refuses_legacy_agents
            our_server_takes_agents_back
            our_proxy_agent_serves_their_server
            our_proxy_agent_tells_their_clients_why_not
            our_agent_tcp_serves_their_server
            our_agent_tcp_ends_what_it_cannot_connect
            their_server_takes_our_agents_back
            our_server_mixes_connect_agents
            our_server_mixes_passthrough_agents
            their_server_mixes_agents
        );
    };
    ($family:expr; $($scenario:ident)+) => {
        $(
            #[tokio::test]
            #[ignore = "needs the programs that `make interop` builds"]
            async fn $scenario() {
                $crate::bounded($crate::interop::pairs::$scenario($family)).await;
            }
        )+
    };
}

/// Opens a tunnel, and exchanges through it.
async fn connect_exchange(proxy: SocketAddr, to: SocketAddr, bytes: u64) {
    let mut tunnel = client::tunnel(proxy, to).await;
    exchange(&mut tunnel, bytes).await.expect("an exchange");
}

/// Runs all requests, some at the same time.
async fn many<F>(request: impl Fn() -> F + Clone + Send + 'static)
where
    F: Future<Output = ()> + Send,
{
    let mut workers = JoinSet::new();
    for _ in 0..AT_A_TIME {
        let request = request.clone();
        workers.spawn(async move {
            for _ in 0..REQUESTS / AT_A_TIME {
                request().await;
            }
        });
    }
    while let Some(ended) = workers.join_next().await {
        ended.expect("every request succeeds");
    }
}

/// Waits until a server that has logged its agents also serves through them.
async fn serves(proxy: SocketAddr, to: SocketAddr) {
    let works = || async move {
        match client::connect(proxy, to).await {
            Ok((mut tunnel, answer)) if answer.status == 200 => {
                exchange(&mut tunnel, SMALL).await.is_ok()
            }
            _ => false,
        }
    };
    until("a tunnel through their server", works).await;
}

/// Tries again until it works, for a bounded time.
async fn until<F: Future<Output = bool>>(what: &str, works: impl Fn() -> F) {
    let deadline = Instant::now() + EVENTUALLY;
    while !works().await {
        assert!(Instant::now() < deadline, "{what}: still fails");
        sleep(Duration::from_millis(5)).await;
    }
}

/// The status line and headers of a refusal.
async fn refused(proxy: SocketAddr, target: impl ToString) -> String {
    client::refused(proxy, target).await.answer.head
}

/// Connects to a raw listener, and expects the end of the connection without a byte.
async fn ends_without_a_byte(listener: SocketAddr) {
    let mut stream = TcpStream::connect(listener).await.expect("a listener");
    // A raw stream of the dialect shows itself to the agent with its first byte.
    stream.write_all(b"hello").await.expect("a listener");
    let mut got = Vec::new();
    // An end of file or a reset: the dialect knows both.
    stream.read_to_end(&mut got).await.ok();
    assert_eq!(got, b"");
}

/// Waits until an agent of ours has counted its tunnels, and asserts that it served some of all,
/// but not all.
async fn shared(ours: &Agent, all: usize) {
    ours.is_at_rest().await;
    let metrics = admin::metrics(ours.admin).await;
    let served = metrics.sum("towline_agent_tunnels_total");
    let all = u32::try_from(all).expect("a few hundred");
    assert!(0.0 < served && served < f64::from(all), "{served} of {all}");
}
