//! Readers that stop reading do not slow the others, and the memory that they hold is bounded by
//! the budget.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use towline_e2e::certs::Certs;
use towline_e2e::endings::{End, echoes, end};
use towline_e2e::programs::{Agent, Server, pair};
use towline_e2e::target::Target;
use towline_e2e::{admin, bounded, client, eventually};

/// Readers that stop reading; four of them block the reference.
const STALLED: usize = 4;

/// The memory that a tunnel holds at most, in bytes.
const WINDOW: u64 = 2 * 1024 * 1024;

/// A window counts as used up with this many bytes in flight: credit is returned in eighths.
const USED_UP: u64 = WINDOW / 8 * 7;

/// Windows that fit into [`BUDGET`].
const AFFORDED: usize = 3;
const BUDGET: [&str; 2] = ["--stall-budget", "6MiB"];

/// Bytes of each transfer of the fifth.
const BULK: usize = 64 * 1024 * 1024;

#[tokio::test]
async fn clients_that_never_read_do_not_slow_a_fifth() {
    bounded(async {
        let certs = Certs::new();
        let (endless, bulk, echo) = (
            endless().await,
            Target::sends(vec![7; BULK]).await,
            Target::echo().await,
        );
        let (server, agent) = pair(&certs, &[]).await;
        let alone = quickest(async || download(server.tcp(0), bulk.address).await).await;
        let mut stuck = Vec::new();
        for count in 1..=STALLED {
            stuck.push(asleep(server.tcp(0), endless.address).await);
            downloads_stall(&server, &agent, count).await;
        }

        let beside = quickest(async || download(server.tcp(0), bulk.address).await).await;
        assert_not_slowed(alone, beside);
        let mut fifth = client::tunnel(server.tcp(0), echo.address).await;
        for _ in 0..500 {
            echoes(&mut fifth).await;
        }
        let traffic = server.tunnels.stats();
        assert_eq!((traffic.stalled, traffic.stalled_resets), (STALLED, 0));
        drop((stuck, fifth));
        rest_and_stop(server, agent).await;
    })
    .await;
}

#[tokio::test]
async fn targets_that_never_read_do_not_slow_a_fifth() {
    bounded(async {
        let certs = Certs::new();
        let (never_reads, sink, echo) = (
            never_reads().await,
            counting_sink().await,
            Target::echo().await,
        );
        let (server, agent) = pair(&certs, &[]).await;
        let alone = quickest(async || upload(server.tcp(0), sink.address).await).await;
        let mut stuck = JoinSet::new();
        for count in 1..=STALLED {
            let mut tunnel = client::tunnel(server.tcp(0), never_reads.address).await;
            stuck.spawn(async move { floods(&mut tunnel).await });
            uploads_stall(&server, &agent, count).await;
        }

        let beside = quickest(async || upload(server.tcp(0), sink.address).await).await;
        assert_not_slowed(alone, beside);
        let mut fifth = client::tunnel(server.tcp(0), echo.address).await;
        for _ in 0..500 {
            echoes(&mut fifth).await;
        }
        let traffic = agent.tunnels.stats();
        assert_eq!((traffic.stalled, traffic.stalled_resets), (STALLED, 0));
        drop((never_reads, fifth));
        assert_eq!(stuck.join_all().await, [End::Reset; STALLED]);
        rest_and_stop(server, agent).await;
    })
    .await;
}

#[tokio::test]
async fn a_client_that_is_reset_is_noticed_though_its_target_never_reads() {
    bounded(async {
        let certs = Certs::new();
        let never_reads = never_reads().await;
        let (server, agent) = pair(&certs, &[]).await;
        let mut tunnel = client::tunnel(server.tcp(0), never_reads.address).await;
        tunnel.set_zero_linger().unwrap();
        tokio::select! {
            end = floods(&mut tunnel) => panic!("ended by itself: {end:?}"),
            () = uploads_stall(&server, &agent, 1) => {}
        }
        drop(tunnel);
        rest_and_stop(server, agent).await;
    })
    .await;
}

#[tokio::test]
async fn a_lost_session_is_noticed_though_the_client_never_reads() {
    bounded(async {
        let certs = Certs::new();
        let endless = endless().await;
        let (server, agent) = pair(&certs, &["--quic-idle-timeout", "2500ms"]).await;
        let mut tunnel = asleep(server.tcp(0), endless.address).await;
        downloads_stall(&server, &agent, 1).await;
        agent.vanish();
        server.is_at_rest().await;
        assert_eq!(end(&mut tunnel).await, End::Reset);
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn clients_that_never_read_end_at_the_budget_the_longest_stalled_first() {
    bounded(async {
        let certs = Certs::new();
        let endless = endless().await;
        let (server, agent) = pair(&certs, &BUDGET).await;
        let mut stuck = Vec::new();
        for count in 1..=AFFORDED {
            stuck.push(asleep(server.tcp(0), endless.address).await);
            downloads_stall(&server, &agent, count).await;
        }
        for overloads in 1..=2 {
            stuck.push(asleep(server.tcp(0), endless.address).await);
            // One after the other, because reading from a client ends its stall.
            eventually("resets for the budget", overloads, || {
                server.tunnels.stats().stalled_resets
            })
            .await;
            assert_eq!(end(&mut stuck.remove(0)).await, End::Reset);
            downloads_stall(&server, &agent, AFFORDED).await;
        }
        // The others still get what was in flight to them, and more.
        let mut bytes = vec![0; 8 * 1024 * 1024];
        for tunnel in &mut stuck {
            tunnel.read_exact(&mut bytes).await.unwrap();
        }
        let metrics = admin::metrics(server.admin).await;
        let ended = metrics.value("towline_server_tunnels_total", &[("outcome", "overload")]);
        assert_eq!(ended, 2.0);
        assert_eq!(metrics.value("towline_server_overloads_total", &[]), 2.0);
        drop(stuck);
        rest_and_stop(server, agent).await;
    })
    .await;
}

#[tokio::test]
async fn targets_that_never_read_end_at_the_budget_the_longest_stalled_first() {
    bounded(async {
        let certs = Certs::new();
        let never_reads = never_reads().await;
        let server = Server::start(&certs, &[]);
        let agent = Agent::start(&certs, server.agents, &BUDGET);
        server.has_sessions(1).await;
        let (tell, mut ended) = mpsc::channel(8);
        let mut stuck = JoinSet::new();
        let mut stall = async |number: usize| {
            let mut tunnel = client::tunnel(server.tcp(0), never_reads.address).await;
            let tell = tell.clone();
            stuck.spawn(async move {
                let end = floods(&mut tunnel).await;
                tell.send((number, end)).await.unwrap();
            });
        };
        for number in 0..AFFORDED {
            stall(number).await;
            uploads_stall(&server, &agent, number + 1).await;
        }
        for number in 0..2 {
            stall(AFFORDED + number).await;
            assert_eq!(ended.recv().await, Some((number, End::Reset)));
            uploads_stall(&server, &agent, AFFORDED).await;
        }
        assert_eq!(agent.tunnels.stats().stalled_resets, 2);
        let metrics = admin::metrics(agent.admin).await;
        let ended = metrics.value("towline_agent_tunnels_total", &[("outcome", "overload")]);
        assert_eq!(ended, 2.0);
        drop(never_reads);
        stuck.join_all().await;
        rest_and_stop(server, agent).await;
    })
    .await;
}

/// A client with a tunnel that never reads; its receive buffer does not grow.
async fn asleep(proxy: SocketAddr, target: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(64 * 1024).expect("a socket");
    let mut stream = socket.connect(proxy).await.expect("a connection");
    let answer = client::ask(&mut stream, target).await.expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.head);
    stream
}

/// Sends until the connection ends.
async fn floods(stream: &mut TcpStream) -> End {
    let bytes = vec![9; 64 * 1024];
    let mut answer = [0; 1];
    let (mut read, mut write) = stream.split();
    loop {
        // The system reports a reset once, to a read or to a write.
        let failed = tokio::select! {
            biased;
            read = read.read(&mut answer) => match read {
                Ok(_) => return End::Finished,
                Err(error) => error,
            },
            wrote = write.write(&bytes) => match wrote {
                Ok(_) => continue,
                Err(error) => error,
            },
        };
        assert_eq!(failed.kind(), std::io::ErrorKind::ConnectionReset);
        return End::Reset;
    }
}

/// Waits until this many clients are stalled and their windows are used up.
async fn downloads_stall(server: &Server, agent: &Agent, count: usize) {
    eventually("stalled clients, windows used up", (count, true), || {
        let (near, far) = (server.tunnels.stats(), agent.tunnels.stats());
        let on_the_way = far.to_client.saturating_sub(near.to_client);
        (near.stalled, on_the_way >= windows(count))
    })
    .await;
}

/// Waits until this many targets are stalled and their windows are used up.
async fn uploads_stall(server: &Server, agent: &Agent, count: usize) {
    eventually("stalled targets, windows used up", (count, true), || {
        let (near, far) = (server.tunnels.stats(), agent.tunnels.stats());
        let on_the_way = near.to_target.saturating_sub(far.to_target);
        (far.stalled, on_the_way >= windows(count))
    })
    .await;
}

fn windows(count: usize) -> u64 {
    u64::try_from(count).expect("a small number") * USED_UP
}

/// The shortest of three runs, because other processes share the machine.
async fn quickest(mut run: impl AsyncFnMut()) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let began = Instant::now();
        run().await;
        best = best.min(began.elapsed());
    }
    best
}

/// Used-up windows of other tunnels must not slow a transfer; the factor allows for a loaded
/// machine.
fn assert_not_slowed(alone: Duration, beside: Duration) {
    assert!(beside < alone * 3, "{alone:?} alone, {beside:?} beside");
}

async fn download(proxy: SocketAddr, source: SocketAddr) {
    let mut tunnel = client::tunnel(proxy, source).await;
    let mut bytes = vec![0; 256 * 1024];
    let mut got = 0;
    loop {
        match tunnel.read(&mut bytes).await.expect("bytes") {
            0 => break,
            count => got += count,
        }
    }
    assert_eq!(got, BULK);
}

async fn upload(proxy: SocketAddr, sink: SocketAddr) {
    let mut tunnel = client::tunnel(proxy, sink).await;
    tunnel
        .write_all(&vec![7; BULK])
        .await
        .expect("a peer that takes bytes");
    tunnel.shutdown().await.expect("a peer that takes the end");
    assert_eq!(
        tunnel.read_u64().await.expect("bytes"),
        u64::try_from(BULK).expect("a small number")
    );
}

/// A target that sends without end.
async fn endless() -> Target {
    Target::start(|mut stream| async move {
        let bytes = vec![5; 64 * 1024];
        while stream.write_all(&bytes).await.is_ok() {}
    })
    .await
}

/// A target that accepts connections and never reads.
async fn never_reads() -> Target {
    Target::start(|stream| async move {
        let _held = stream;
        std::future::pending().await
    })
    .await
}

/// A target that reads to the end and sends the number of bytes.
async fn counting_sink() -> Target {
    Target::start(|mut stream| async move {
        let (mut read, mut write) = stream.split();
        let count = tokio::io::copy(&mut read, &mut tokio::io::sink()).await;
        write
            .write_u64(count.expect("a whole upload"))
            .await
            .expect("a peer that takes bytes");
    })
    .await
}

async fn rest_and_stop(server: Server, agent: Agent) {
    server.is_at_rest().await;
    agent.is_at_rest().await;
    agent.stop().await;
    server.stop().await;
}
