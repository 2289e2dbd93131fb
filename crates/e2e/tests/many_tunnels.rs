//! Thousands of tunnels, at the same time and one after the other, leave no descriptor and no
//! memory behind.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use towline_e2e::certs::Certs;
use towline_e2e::endings::echoes;
use towline_e2e::footprint::{descriptors, memory};
use towline_e2e::programs::{Agent, Server, pair};
use towline_e2e::target::Target;
use towline_e2e::{bounded, client, eventually};
use towline_service::runtime::run;

/// Tunnels that are open at the same time.
const AT_ONCE: usize = 2_000;

/// Client, server's end, agent's end, target.
const DESCRIPTORS_EACH: usize = 4;

/// Clients that connect at the same time: no more than the system's queues hold.
const OPENING: usize = 128;

/// Tunnels one after the other: twice as many as the reference survives.
const IN_A_ROW: usize = 20_000;
const LANES: usize = 8;

/// Tunnels after which the memory of the process is stable.
const WARM: usize = 4_000;

/// Bytes by which memory may grow meanwhile: 1 KiB a tunnel would be twice as much.
const GROWTH: usize = 8 * 1024 * 1024;

// One after the other, because they count the descriptors and the memory of the process.
#[test]
fn thousands_of_tunnels_leave_nothing_behind() {
    // As a program runs: with the descriptor limit raised.
    let body = async {
        bounded(at_once()).await;
        bounded(in_a_row()).await;
        Ok(())
    };
    assert_eq!(run("many_tunnels", body), ExitCode::SUCCESS);
}

async fn at_once() {
    let certs = Certs::new();
    let echo = Target::echo().await;
    let (server, agent) = pair(&certs, &[]).await;
    echoes(&mut client::tunnel(server.tcp(0), echo.address).await).await;
    at_rest(&server, &agent).await;
    let baseline = descriptors();

    let entry = Arc::new(Semaphore::new(OPENING));
    let mut opening = JoinSet::new();
    for _ in 0..AT_ONCE {
        opening.spawn(open(Arc::clone(&entry), server.tcp(0), echo.address));
    }
    let tunnels = opening.join_all().await;
    let traffic = (server.tunnels.stats(), agent.tunnels.stats());
    assert_eq!((traffic.0.live, traffic.1.live), (AT_ONCE, AT_ONCE));
    assert_eq!(descriptors(), baseline + AT_ONCE * DESCRIPTORS_EACH);

    let mut talking = JoinSet::new();
    for mut tunnel in tunnels {
        talking.spawn(async move {
            echoes(&mut tunnel).await;
            tunnel
        });
    }
    let tunnels = talking.join_all().await;
    drop(tunnels);
    at_rest(&server, &agent).await;
    eventually("descriptors", baseline, descriptors).await;
    agent.stop().await;
    server.stop().await;
}

async fn in_a_row() {
    let certs = Certs::new();
    let echo = Target::echo().await;
    let (server, agent) = pair(&certs, &[]).await;
    lanes(WARM / LANES, server.tcp(0), echo.address).await;
    at_rest(&server, &agent).await;
    let (descriptors_before, memory_before) = (descriptors(), memory());

    lanes((IN_A_ROW - WARM) / LANES, server.tcp(0), echo.address).await;
    at_rest(&server, &agent).await;
    eventually("descriptors", descriptors_before, descriptors).await;
    let grown = memory().saturating_sub(memory_before);
    assert!(grown < GROWTH, "memory has grown by {grown} bytes");
    let session = &server.registry.snapshot()[0].session;
    assert_eq!(session.stats().open_streams, 0);
    agent.stop().await;
    server.stop().await;
}

async fn open(entry: Arc<Semaphore>, proxy: SocketAddr, target: SocketAddr) -> TcpStream {
    let _turn = entry.acquire_owned().await.expect("an open semaphore");
    client::tunnel(proxy, target).await
}

/// Opens this many short tunnels in each lane.
async fn lanes(tunnels: usize, proxy: SocketAddr, target: SocketAddr) {
    let mut lanes = JoinSet::new();
    for _ in 0..LANES {
        lanes.spawn(async move {
            for _ in 0..tunnels {
                echoes(&mut client::tunnel(proxy, target).await).await;
            }
        });
    }
    lanes.join_all().await;
}

async fn at_rest(server: &Server, agent: &Agent) {
    server.is_at_rest().await;
    agent.is_at_rest().await;
}
