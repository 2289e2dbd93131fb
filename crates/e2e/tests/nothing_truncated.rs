//! What a peer writes before it closes arrives to the last byte, in either direction.

use std::net::SocketAddr;
use std::sync::Arc;

use fastrand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use towline_e2e::certs::Certs;
use towline_e2e::client::{self, Way, Ways};
use towline_e2e::programs::pair;
use towline_e2e::target::Target;
use towline_e2e::{bounded, eventually};

const TRANSFERS: u64 = 500;

/// Transfers at the same time.
const LANES: u64 = 8;

/// From nothing to several times the initial size of any buffer or window on the way.
const LONGEST: usize = 300 * 1024;

/// More than all buffers of one connection hold after Linux has grown them.
const LATE: usize = 24 * 1024 * 1024;

#[tokio::test]
async fn what_a_target_writes_before_it_closes_arrives() {
    bounded(async {
        let certs = Certs::new();
        let (server, agent) = pair(&certs, &[]).await;
        // Sends the bytes of the number that it reads, and closes.
        let target = Target::start(|mut stream| async move {
            let number = stream.read_u64().await.unwrap();
            stream.write_all(&bytes(number)).await.unwrap();
        })
        .await;
        let (proxy, target) = (server.tcp(0), target.address);
        in_lanes(move |number| download(proxy, target, number)).await;
        server.is_at_rest().await;
        agent.is_at_rest().await;
        agent.stop().await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn what_a_client_writes_before_it_closes_arrives() {
    bounded(async {
        let certs = Certs::new();
        let (server, agent) = pair(&certs, &[]).await;
        let (target, mut heard) = listens().await;
        let (proxy, address) = (server.tcp(0), target.address);
        in_lanes(move |number| upload(proxy, address, number)).await;
        let mut numbers = Vec::new();
        for _ in 0..TRANSFERS {
            numbers.push(heard.recv().await.unwrap().unwrap());
        }
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..TRANSFERS));
        server.is_at_rest().await;
        agent.is_at_rest().await;
        agent.stop().await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn neither_tls_nor_a_unix_socket_loses_a_byte() {
    bounded(async {
        let ways = Ways::start(&[]).await;
        let says = Target::start(|mut stream| async move {
            let number = stream.read_u64().await.unwrap();
            stream.write_all(&bytes(number)).await.unwrap();
        })
        .await;
        let (listens, mut heard) = listens().await;
        for number in 0..50 {
            for way in [Way::Tls, Way::Unix] {
                let mut tunnel = ways.tunnel(way, says.address).await;
                tunnel.write_u64(number).await.unwrap();
                let mut got = Vec::new();
                tunnel.read_to_end(&mut got).await.unwrap();
                assert_same(number, &got);
                let mut tunnel = ways.tunnel(way, listens.address).await;
                tunnel.write_u64(number).await.unwrap();
                tunnel.write_all(&bytes(number)).await.unwrap();
                // TLS ends with close_notify: without it a close is a truncation.
                tunnel.shutdown().await.unwrap();
                drop(tunnel);
                assert_eq!(heard.recv().await.unwrap(), Ok(number), "{way:?}");
            }
        }
        ways.rest_and_stop().await;
    })
    .await;
}

/// A reader that starts late lets every buffer on the way fill up, so that each end has to keep
/// what its socket does not take.
#[tokio::test]
async fn readers_that_start_late_miss_nothing() {
    bounded(async {
        let ways = Ways::start(&[]).await;
        let said = random(7, LATE);
        let sent = said.clone();
        let says = Target::start(move |mut stream| {
            let sent = sent.clone();
            async move {
                stream.write_all(&sent).await.unwrap();
                assert_eq!(stream.read_u8().await.unwrap(), b'!');
            }
        })
        .await;
        let listen = Arc::new(Notify::new());
        let listening = Arc::clone(&listen);
        let (tell, mut heard) = mpsc::channel(1);
        let listens = Target::start(move |mut stream| {
            let (tell, listening) = (tell.clone(), Arc::clone(&listening));
            async move {
                let mut got = Vec::new();
                listening.notified().await;
                stream.read_to_end(&mut got).await.unwrap();
                tell.send(got).await.unwrap();
            }
        })
        .await;
        for way in Way::ALL {
            let mut tunnel = ways.tunnel(way, says.address).await;
            let stalled = || ways.server.tunnels.stats().stalled;
            eventually("tunnels whose client takes nothing", 1, stalled).await;
            // The other direction goes on meanwhile.
            let passed = || ways.server.tunnels.stats().to_target;
            let more = passed() + 1;
            tunnel.write_all(b"!").await.unwrap();
            tunnel.flush().await.unwrap();
            eventually("bytes to targets", more, passed).await;
            let mut got = Vec::new();
            tunnel.read_to_end(&mut got).await.unwrap();
            assert!(got == said, "{way:?}: {} bytes, or others", got.len());
            drop(tunnel);

            let mut tunnel = ways.tunnel(way, listens.address).await;
            let write = async {
                tunnel.write_all(&said).await.unwrap();
                tunnel.shutdown().await.unwrap();
            };
            let wake = async {
                let stalled = || ways.agent.tunnels.stats().stalled;
                eventually("tunnels whose target takes nothing", 1, stalled).await;
                listen.notify_one();
            };
            tokio::join!(write, wake);
            let got = heard.recv().await.unwrap();
            assert!(got == said, "{way:?}: {} bytes, or others", got.len());
        }
        ways.rest_and_stop().await;
    })
    .await;
}

/// Asks for the bytes of `number`, reads them to their end, and closes.
async fn download(proxy: SocketAddr, target: SocketAddr, number: u64) {
    let mut tunnel = client::tunnel(proxy, target).await;
    tunnel.write_u64(number).await.expect("a tunnel");
    let mut got = Vec::new();
    tunnel.read_to_end(&mut got).await.expect("an end of file");
    assert_same(number, &got);
}

/// Writes the bytes of `number` and closes, both halves at once.
async fn upload(proxy: SocketAddr, target: SocketAddr, number: u64) {
    let mut tunnel = client::tunnel(proxy, target).await;
    tunnel.write_u64(number).await.expect("a tunnel");
    tunnel.write_all(&bytes(number)).await.expect("a tunnel");
}

/// A target that reports the number of every complete upload, or what was wrong with it.
async fn listens() -> (Target, mpsc::UnboundedReceiver<Result<u64, String>>) {
    let (tell, heard) = mpsc::unbounded_channel();
    let target = Target::start(move |stream| {
        let tell = tell.clone();
        async move { drop(tell.send(hear(stream).await)) }
    });
    (target.await, heard)
}

async fn hear(mut stream: TcpStream) -> Result<u64, String> {
    let number = stream.read_u64().await.map_err(|error| error.to_string())?;
    let mut got = Vec::new();
    let read = stream.read_to_end(&mut got).await;
    read.map_err(|error| format!("{number} after {} bytes: {error}", got.len()))?;
    let expected = bytes(number);
    if got == expected {
        Ok(number)
    } else {
        Err(format!(
            "{number}: {} of {} bytes",
            got.len(),
            expected.len()
        ))
    }
}

/// Does every transfer, [`LANES`] at the same time.
async fn in_lanes<F>(transfer: impl Fn(u64) -> F + Clone + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut lanes = JoinSet::new();
    for lane in 0..LANES {
        let transfer = transfer.clone();
        lanes.spawn(async move {
            for number in (lane..TRANSFERS).step_by(usize::try_from(LANES).expect("few lanes")) {
                transfer(number).await;
            }
        });
    }
    while let Some(ended) = lanes.join_next().await {
        ended.expect("a lane without a failure");
    }
}

/// The bytes of a transfer: length and content differ by number, and are the same in every run.
fn bytes(number: u64) -> Vec<u8> {
    let mut lengths = Rng::with_seed(number);
    let length = match number {
        0..8 => usize::try_from(number).expect("a few"),
        8 => LONGEST,
        _ => lengths.usize(..=LONGEST),
    };
    random(number, length)
}

fn random(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

fn assert_same(number: u64, got: &[u8]) {
    let expected = bytes(number);
    assert!(
        got == expected,
        "transfer {number}: {} of {} bytes, the same up to {:?}",
        got.len(),
        expected.len(),
        got.iter()
            .zip(&expected)
            .position(|(got, sent)| got != sent)
    );
}
