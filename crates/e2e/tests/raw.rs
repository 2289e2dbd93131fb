//! Raw listeners: bytes without a request, to the upstream of an agent-tcp or to one fixed target.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use towline_e2e::certs::Certs;
use towline_e2e::programs::{Agent, Server, pair};
use towline_e2e::target::{BlackHole, Closed, Target};
use towline_e2e::{bounded, eventually};

const RAW: [&str; 2] = ["--listen", "raw=tcp://127.0.0.1:0"];

#[tokio::test]
async fn a_raw_listener_forwards_to_the_upstream_of_an_agent_tcp() {
    bounded(async {
        let certs = Certs::new();
        let echo = Target::echo().await;
        let server = Server::try_start(&certs, &RAW).unwrap();
        let agent = Agent::start_tcp(&certs, server.agents, echo.address, &[]);
        agent.is_ready().await;
        server.has_sessions(1).await;
        let mut stream = TcpStream::connect(server.tcp(0)).await.unwrap();
        echoes(&mut stream).await;
        drop(stream);
        server.is_at_rest().await;
        agent.is_at_rest().await;
        agent.stop().await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_raw_listener_with_a_target_forwards_to_it_through_a_proxy_agent() {
    bounded(async {
        let certs = Certs::new();
        let echo = Target::echo().await;
        let raw = format!("raw=tcp://127.0.0.1:0,target={}", echo.address);
        let (server, agent) = pair(&certs, &["--listen", &raw]).await;
        let mut stream = TcpStream::connect(server.tcp(1)).await.unwrap();
        echoes(&mut stream).await;
        drop(stream);
        server.is_at_rest().await;
        agent.stop().await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn each_kind_of_request_finds_its_kind_of_agent() {
    bounded(async {
        let certs = Certs::new();
        let upstream = Target::sends(b"upstream".to_vec()).await;
        let target = Target::sends(b"target".to_vec()).await;
        let raw = format!("raw=tcp://127.0.0.1:0,target={}", target.address);
        let server = Server::try_start(&certs, &[&RAW[..], &["--listen", &raw]].concat()).unwrap();
        let connect = Agent::start(&certs, server.agents, &["--agent-id", "connect"]);
        let flags = ["--agent-id", "passthrough"];
        let passthrough = Agent::start_tcp(&certs, server.agents, upstream.address, &flags);
        server.has_sessions(2).await;
        for _ in 0..20 {
            for (listener, expected) in [(0, "upstream"), (1, "target")] {
                let mut stream = TcpStream::connect(server.tcp(listener)).await.unwrap();
                let mut said = String::new();
                stream.read_to_string(&mut said).await.unwrap();
                assert_eq!(said, expected);
            }
        }
        connect.stop().await;
        passthrough.stop().await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn without_an_agent_that_serves_it_a_connection_is_reset() {
    bounded(async {
        let certs = Certs::new();
        let unix = format!("raw=unix://{}", certs.flag("raw.sock"));
        let listen = [&RAW[..], &["--listen", &unix]].concat();
        let server = Server::try_start(&certs, &listen).unwrap();
        // An agent of the other kind does not serve it.
        let agent = Agent::start(&certs, server.agents, &[]);
        server.has_sessions(1).await;
        let mut stream = TcpStream::connect(server.tcp(0)).await.unwrap();
        let error = stream.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        // A Unix socket has no reset.
        let mut stream = UnixStream::connect(server.unix(1)).await.unwrap();
        let mut said = Vec::new();
        stream.read_to_end(&mut said).await.unwrap();
        assert_eq!(said, b"");
        server.is_at_rest().await;
        agent.stop().await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn an_upstream_that_refuses_resets_the_connection() {
    bounded(async {
        let certs = Certs::new();
        let closed = Closed::new();
        let server = Server::try_start(&certs, &RAW).unwrap();
        let agent = Agent::start_tcp(&certs, server.agents, closed.address, &[]);
        agent.is_ready().await;
        server.has_sessions(1).await;
        let mut stream = TcpStream::connect(server.tcp(0)).await.unwrap();
        let error = stream.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        server.is_at_rest().await;
        agent.stop().await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn each_half_ends_alone() {
    bounded(async {
        let certs = Certs::new();
        let (tell, mut heard) = mpsc::channel(1);
        // Ends its half at once, and reads the other to its end.
        let target = Target::start(move |mut stream| {
            let tell = tell.clone();
            async move {
                let mut bytes = Vec::new();
                stream.write_all(b"bye").await.unwrap();
                stream.shutdown().await.unwrap();
                stream.read_to_end(&mut bytes).await.unwrap();
                tell.send(bytes).await.unwrap();
            }
        })
        .await;
        let counts = Target::start(counts).await;
        let raw = format!("raw=tcp://127.0.0.1:0,target={}", counts.address);
        let server = Server::try_start(&certs, &[&RAW[..], &["--listen", &raw]].concat()).unwrap();
        let agents = [
            Agent::start(&certs, server.agents, &["--agent-id", "connect"]),
            Agent::start_tcp(&certs, server.agents, target.address, &[]),
        ];
        server.has_sessions(2).await;

        let mut stream = TcpStream::connect(server.tcp(0)).await.unwrap();
        let mut said = Vec::new();
        stream.read_to_end(&mut said).await.unwrap();
        assert_eq!(said, b"bye");
        stream.write_all(b"and more").await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(heard.recv().await.unwrap(), b"and more");

        let mut stream = TcpStream::connect(server.tcp(1)).await.unwrap();
        stream.write_all(b"12345").await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read_u64().await.unwrap(), 5);
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);

        server.is_at_rest().await;
        for agent in agents {
            agent.stop().await;
        }
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn bytes_sent_before_the_upstream_is_dialed_are_kept() {
    bounded(async {
        let certs = Certs::new();
        let upstream = BlackHole::new();
        let server = Server::try_start(&certs, &RAW).unwrap();
        let agent = Agent::start_tcp(&certs, server.agents, upstream.address, &[]);
        agent.is_ready().await;
        server.has_sessions(1).await;
        let mut stream = TcpStream::connect(server.tcp(0)).await.unwrap();
        // The end of the client's half comes before the upstream is connected, too.
        stream.write_all(&[b'x'; 10_000]).await.unwrap();
        stream.shutdown().await.unwrap();
        let open = || server.registry.snapshot()[0].session.open_streams();
        eventually("streams to the agent", 1, open).await;
        let mut upstream = upstream.open().await;
        let mut heard = Vec::new();
        upstream.read_to_end(&mut heard).await.unwrap();
        assert!(heard == [b'x'; 10_000], "{} bytes", heard.len());
        upstream.write_all(b"thanks").await.unwrap();
        drop(upstream);
        let mut said = Vec::new();
        stream.read_to_end(&mut said).await.unwrap();
        assert_eq!(said, b"thanks");
        server.is_at_rest().await;
        agent.stop().await;
        server.stop().await;
    })
    .await;
}

async fn echoes(stream: &mut TcpStream) {
    stream.write_all(b"ping").await.expect("a tunnel");
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.expect("an echo");
    assert_eq!(&answer, b"ping");
}

/// Sends the number of bytes that it has read to the end.
async fn counts(mut stream: TcpStream) {
    let counted = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    let counted = counted.expect("an end of file");
    stream.write_u64(counted).await.expect("a reader");
}
