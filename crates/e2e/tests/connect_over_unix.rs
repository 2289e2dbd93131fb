//! CONNECT over a Unix socket, and the lifecycle of the socket's file.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use towline_e2e::certs::Certs;
use towline_e2e::programs::{Server, pair};
use towline_e2e::target::Target;
use towline_e2e::{bounded, client};

#[tokio::test]
async fn bytes_go_both_ways_and_the_file_goes_with_the_server() {
    bounded(async {
        let certs = Certs::new();
        let echo = Target::echo().await;
        let (server, agent) = pair(&certs, &["--listen", &front(&certs)]).await;
        let path = server.unix(1);
        assert_eq!(path, certs.path("front.sock"));
        let mut tunnel = UnixStream::connect(&path).await.unwrap();
        let answer = client::ask(&mut tunnel, echo.address).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.head);
        tunnel.write_all(b"ping").await.unwrap();
        let mut bytes = [0; 4];
        tunnel.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"ping");
        drop(tunnel);
        server.is_at_rest().await;
        agent.stop().await;
        server.stop().await;
        assert!(!path.exists(), "the socket's file outlives its server");
    })
    .await;
}

#[tokio::test]
async fn only_the_owner_may_connect_unless_a_flag_says_more() {
    bounded(async {
        let certs = Certs::new();
        let front = front(&certs);
        for (flags, expected) in [
            (&["--listen", &front][..], 0o600),
            (&["--listen", &front, "--unix-mode", "0660"], 0o660),
            (&["--listen", &front, "--unix-mode", "777"], 0o777),
        ] {
            let server = Server::try_start(&certs, flags).unwrap();
            assert_eq!(mode(&server.unix(0)), expected, "{flags:?}");
            server.stop().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_stale_socket_is_replaced() {
    bounded(async {
        let certs = Certs::new();
        let path = certs.path("front.sock");
        drop(StdUnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a killed server leaves its file");
        let server = Server::try_start(&certs, &["--listen", &front(&certs)]).unwrap();
        UnixStream::connect(&path).await.unwrap();
        server.stop().await;
        assert!(!path.exists());
    })
    .await;
}

#[tokio::test]
async fn a_live_socket_and_another_file_stay() {
    bounded(async {
        let certs = Certs::new();
        let front = front(&certs);
        let flags = ["--listen", &*front];
        let server = Server::try_start(&certs, &flags).unwrap();
        let path = server.unix(0);
        let error = Server::try_start(&certs, &flags).unwrap_err();
        let expected = format!(
            "--listen: cannot listen on unix://{}: another process listens there",
            path.display()
        );
        assert_eq!(error, expected);
        UnixStream::connect(&path).await.unwrap();
        server.stop().await;
        fs::write(&path, "mine").unwrap();
        let error = Server::try_start(&certs, &flags).unwrap_err();
        assert!(
            error.ends_with("a file that is not a socket is there"),
            "{error}"
        );
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    })
    .await;
}

fn front(certs: &Certs) -> String {
    format!("connect=unix://{}", certs.flag("front.sock"))
}

fn mode(path: &Path) -> u32 {
    let file = fs::metadata(path).expect("a file");
    file.permissions().mode() & 0o777
}
