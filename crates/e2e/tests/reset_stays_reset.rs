//! A reset on one side of a tunnel is a reset on the other, and never looks like an end of file.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use towline_e2e::bounded;
use towline_e2e::certs::Certs;
use towline_e2e::client::{self, Connection, Way, Ways};
use towline_e2e::programs::pair;
use towline_e2e::target::Target;

/// How a connection ended, as its reader sees it.
type End = Result<(), io::ErrorKind>;

/// Enough to be in flight when the reset comes.
const LONG: usize = 100_000;

const RESET: End = Err(io::ErrorKind::ConnectionReset);

#[tokio::test]
async fn a_target_that_resets_is_a_reset_for_the_client() {
    bounded(async {
        let ways = Ways::start(&[]).await;
        // Resets the connection in the middle of its answer.
        let target = Target::start(|mut stream| async move {
            stream.write_all(&vec![b'a'; LONG]).await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), b'!');
            stream.set_zero_linger().unwrap();
        })
        .await;
        for (way, expected) in [
            (Way::Tcp, &[io::ErrorKind::ConnectionReset][..]),
            (Way::Tls, &CUT),
        ] {
            for _ in 0..20 {
                let mut tunnel = ways.tunnel(way, target.address).await;
                tunnel.write_all(b"!").await.unwrap();
                let end = end(&mut tunnel).await.unwrap_err();
                assert!(expected.contains(&end), "{way:?}: {end:?}");
            }
        }
        ways.rest_and_stop().await;
    })
    .await;
}

/// TLS ends with `close_notify`; a connection that ends without it is truncated. The reset of TCP
/// below it may or may not come before the reader has read everything.
const CUT: [io::ErrorKind; 2] = [io::ErrorKind::ConnectionReset, io::ErrorKind::UnexpectedEof];

#[tokio::test]
async fn a_client_that_resets_is_a_reset_for_the_target() {
    bounded(async {
        let certs = Certs::new();
        let (server, agent) = pair(&certs, &[]).await;
        let (target, mut ends) = listens().await;
        for _ in 0..20 {
            let mut tunnel = client::tunnel(server.tcp(0), target.address).await;
            tunnel.write_all(&vec![b'a'; LONG]).await.unwrap();
            tunnel.set_zero_linger().unwrap();
            drop(tunnel);
            assert_eq!(ends.recv().await.unwrap(), RESET);
        }
        server.is_at_rest().await;
        agent.is_at_rest().await;
        agent.stop().await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_tls_client_that_is_cut_off_is_a_reset_for_the_target() {
    bounded(async {
        let ways = Ways::start(&[]).await;
        let (target, mut ends) = listens().await;
        let connector = ways.certs.connector(true);
        for _ in 0..20 {
            let mut tunnel = client::tls(&connector, ways.server.tcp(1)).await.unwrap();
            let answer = client::ask(&mut tunnel, target.address).await.unwrap();
            assert_eq!(answer.status, 200, "{}", answer.head);
            tunnel.write_all(&vec![b'a'; LONG]).await.unwrap();
            tunnel.flush().await.unwrap();
            // TCP ends with an end of file; TLS ends without `close_notify`.
            let (mut tcp, _tls) = tunnel.into_inner();
            tcp.shutdown().await.unwrap();
            assert_eq!(ends.recv().await.unwrap(), RESET);
        }
        ways.rest_and_stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_client_that_takes_no_more_is_a_reset_for_the_target() {
    bounded(async {
        let ways = Ways::start(&[]).await;
        let (tell, mut ends) = mpsc::channel(1);
        // Sends until the write fails.
        let target = Target::start(move |mut stream| {
            let tell = tell.clone();
            async move {
                let error = loop {
                    if let Err(error) = stream.write_all(&[b'a'; 10_000]).await {
                        break error;
                    }
                };
                tell.send(error.kind()).await.unwrap();
            }
        })
        .await;
        for way in Way::ALL {
            let mut tunnel = ways.tunnel(way, target.address).await;
            tunnel.read_exact(&mut vec![0; LONG]).await.unwrap();
            drop(tunnel);
            // The error of a write depends on whether the reset came before it or during it.
            let end = ends.recv().await.unwrap();
            let cut = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
            assert!(cut.contains(&end), "{way:?}: {end:?}");
        }
        ways.rest_and_stop().await;
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_is_lost_is_a_reset_for_its_clients() {
    bounded(async {
        let ways = Ways::start(&[]).await;
        let target = Target::start(endless).await;
        let mut tunnels = Vec::new();
        for way in [Way::Tcp, Way::Tls] {
            let mut tunnel = ways.tunnel(way, target.address).await;
            tunnel.read_exact(&mut vec![0; LONG]).await.unwrap();
            tunnels.push((way, tunnel));
        }
        ways.agent.vanish();
        for (way, mut tunnel) in tunnels {
            let end = end(&mut tunnel).await.unwrap_err();
            match way {
                Way::Tls => assert!(CUT.contains(&end), "{end:?}"),
                Way::Tcp | Way::Unix => assert_eq!(end, io::ErrorKind::ConnectionReset),
            }
        }
        ways.server.is_at_rest().await;
        ways.server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_server_that_stops_resets_what_does_not_end() {
    bounded(async {
        let ways = Ways::start(&["--drain-timeout", "200ms"]).await;
        let (target, mut ends) = listens().await;
        let mut tunnels = Vec::new();
        for way in Way::ALL {
            let mut tunnel = ways.tunnel(way, target.address).await;
            tunnel.write_all(b"half a sen").await.unwrap();
            tunnel.flush().await.unwrap();
            tunnels.push((way, tunnel));
        }
        ways.server.stop().await;
        for (way, mut tunnel) in tunnels {
            let end = end(&mut tunnel).await;
            match way {
                Way::Tcp => assert_eq!(end, RESET),
                Way::Tls => assert!(CUT.contains(&end.unwrap_err()), "{end:?}"),
                // The next test gives the reason.
                Way::Unix => assert_eq!(end, Ok(())),
            }
            assert_eq!(ends.recv().await.unwrap(), RESET, "{way:?}");
        }
        ways.agent.stop().await;
    })
    .await;
}

/// A documented limit: a Unix socket has no reset, so a client that must tell needs a protocol
/// that marks its end, as TLS, HTTP and every protocol of kubectl do.
#[tokio::test]
async fn a_unix_socket_shows_a_cut_as_an_end() {
    bounded(async {
        let ways = Ways::start(&[]).await;
        let target = Target::start(|mut stream| async move {
            stream.write_all(b"half a sen").await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), b'!');
            stream.set_zero_linger().unwrap();
        })
        .await;
        let mut tunnel = ways.tunnel(Way::Unix, target.address).await;
        let mut said = [0; 10];
        tunnel.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"half a sen");
        tunnel.write_all(b"!").await.unwrap();
        assert_eq!(end(&mut tunnel).await, Ok(()));
        ways.rest_and_stop().await;
    })
    .await;
}

/// A target that reports how each of its connections ended.
async fn listens() -> (Target, mpsc::Receiver<End>) {
    let (tell, ends) = mpsc::channel(8);
    let target = Target::start(move |mut stream| {
        let tell = tell.clone();
        async move {
            let end = end(&mut stream).await;
            tell.send(end).await.expect("a test that listens");
        }
    });
    (target.await, ends)
}

async fn endless(mut stream: TcpStream) {
    while stream.write_all(&[b'a'; 10_000]).await.is_ok() {}
}

async fn end(stream: &mut dyn Connection) -> End {
    let read = tokio::io::copy(stream, &mut tokio::io::sink()).await;
    read.map(drop).map_err(|error| error.kind())
}
