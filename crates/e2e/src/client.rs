//! A CONNECT client that sends exactly the bytes of a test, over TCP, TLS or a Unix socket.

use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::certs::Certs;
use crate::programs::{Agent, Server};

/// The head of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The whole head, empty line included.
    pub head: String,
}

/// A refusal: an answer, its body, and the end of the connection after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The head.
    pub answer: Answer,
    /// The text for a person.
    pub body: String,
}

/// How a client connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// TCP without TLS.
    Tcp,
    /// TLS with a client certificate.
    Tls,
    /// A Unix socket.
    Unix,
}

/// A client's connection, of any [`Way`].
pub trait Connection: AsyncRead + AsyncWrite + Unpin + Send + Debug {}

/// A server with a CONNECT listener for each [`Way`], and its agent.
#[derive(Debug)]
pub struct Ways {
    /// The certificates of server, agent and clients.
    pub certs: Certs,
    /// The server, with a listener for each way.
    pub server: Server,
    /// The agent, with a session.
    pub agent: Agent,
}

/// Connects to `proxy` and asks for `target`; the stream is the tunnel when the status is 200.
///
/// # Errors
/// When the connection fails.
pub async fn connect(proxy: SocketAddr, target: impl ToString) -> io::Result<(TcpStream, Answer)> {
    let mut stream = TcpStream::connect(proxy).await?;
    let answer = ask(&mut stream, target).await?;
    Ok((stream, answer))
}

/// Opens a tunnel.
///
/// # Panics
/// If it is refused.
pub async fn tunnel(proxy: SocketAddr, target: impl ToString) -> TcpStream {
    let (stream, answer) = connect(proxy, target).await.expect("a connection");
    assert_eq!(answer.status, 200, "{}", answer.head);
    stream
}

/// Connects to `proxy` over TLS.
///
/// # Errors
/// When the connection or the handshake fails.
pub async fn tls(connector: &TlsConnector, proxy: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(proxy).await?;
    // The head follows the handshake at once, as from every TLS client.
    stream.set_nodelay(true)?;
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    connector.connect(name, stream).await
}

/// Asks for `target` on a new connection to `proxy`, and expects a refusal.
///
/// # Panics
/// If it is granted, or the connection does not end after the refusal.
pub async fn refused(proxy: SocketAddr, target: impl ToString) -> Refused {
    let target = target.to_string();
    says(proxy, connect_head(&target).as_bytes()).await
}

/// Sends `bytes` on a new connection to `proxy`, and expects a refusal.
///
/// # Panics
/// If there is none, or the connection does not end after it.
pub async fn says(proxy: SocketAddr, bytes: &[u8]) -> Refused {
    let mut stream = TcpStream::connect(proxy).await.expect("a connection");
    stream.write_all(bytes).await.expect("a proxy that listens");
    read_refused(&mut stream).await
}

/// The head with which the clients here ask for `target`.
pub fn connect_head(target: impl ToString) -> String {
    let target = target.to_string();
    format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n")
}

/// Sends a CONNECT head on any stream and reads the answer's head, and no byte after it.
///
/// # Errors
/// When the stream ends before a whole head.
pub async fn ask<S>(stream: &mut S, target: impl ToString) -> io::Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin + ?Sized,
{
    stream.write_all(connect_head(target).as_bytes()).await?;
    stream.flush().await?;
    read_answer(stream).await
}

/// Reads an answer's head, and no byte after it.
///
/// # Errors
/// When the stream ends before a whole head, or the head is no answer.
pub async fn read_answer<S: AsyncRead + Unpin + ?Sized>(stream: &mut S) -> io::Result<Answer> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Answer::of(String::from_utf8_lossy(&head).into_owned())
}

/// Reads a refusal to the end of the connection.
///
/// # Panics
/// If it grants a tunnel, its length is wrong, or the connection ends with an error.
pub async fn read_refused<S: AsyncRead + Unpin>(stream: &mut S) -> Refused {
    let answer = read_answer(stream).await.expect("an answer");
    assert!(answer.status >= 400, "no refusal: {}", answer.head);
    let mut body = String::new();
    stream
        .read_to_string(&mut body)
        .await
        .expect("a body and an end of file");
    let length = answer.header("Content-Length").map(str::parse);
    assert_eq!(length, Some(Ok(body.len())), "{}{body}", answer.head);
    assert_eq!(
        answer.header("Connection"),
        Some("close"),
        "{}",
        answer.head
    );
    Refused { answer, body }
}

// === impl Answer ===

impl Answer {
    fn of(head: String) -> io::Result<Self> {
        let status = head.split(' ').nth(1);
        match status.and_then(|status| status.parse().ok()) {
            Some(status) => Ok(Self { status, head }),
            None => Err(io::Error::other(format!("no answer: {head:?}"))),
        }
    }

    /// The reason phrase.
    pub fn phrase(&self) -> &str {
        let line = self.head.lines().next().unwrap_or_default();
        line.splitn(3, ' ').nth(2).unwrap_or_default()
    }

    /// The value of the first header of this name, written as the programs write it.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// The error of Proxy-Status (RFC 9209).
    pub fn error(&self) -> Option<&str> {
        let (_, error) = self.header("Proxy-Status")?.split_once("; error=")?;
        error.split(';').next()
    }
}

// === impl Way ===

impl Way {
    /// Every way, in the order of the listeners of [`Ways`].
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Tls, Self::Unix];
}

// === impl Connection ===

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Debug> Connection for S {}

// === impl Ways ===

impl Ways {
    /// Starts both programs and waits for the session.
    ///
    /// # Panics
    /// When they do not start.
    pub async fn start(flags: &[&str]) -> Self {
        let certs = Certs::new();
        let [cert, key, ca] = ["server.pem", "server-key.pem", "ca.pem"].map(|f| certs.flag(f));
        let unix = format!("connect=unix://{}", certs.flag("front.sock"));
        let listen = [
            ["--listen", "connect=tls://127.0.0.1:0"],
            ["--listen", &unix],
            ["--tls-cert-file", &cert],
            ["--tls-private-key-file", &key],
            ["--tls-client-ca-file", &ca],
        ];
        let server = Server::start(&certs, &[listen.as_flattened(), flags].concat());
        let agent = Agent::start(&certs, server.agents, &[]);
        agent.is_ready().await;
        server.has_sessions(1).await;
        Self {
            certs,
            server,
            agent,
        }
    }

    /// Connects, and sends nothing yet.
    ///
    /// # Panics
    /// If the connection or the handshake fails.
    pub async fn enter(&self, way: Way) -> Box<dyn Connection> {
        let server = &self.server;
        match way {
            Way::Tcp => Box::new(TcpStream::connect(server.tcp(0)).await.expect("TCP")),
            Way::Tls => {
                let connector = self.certs.connector(true);
                Box::new(tls(&connector, server.tcp(1)).await.expect("TLS"))
            }
            Way::Unix => Box::new(UnixStream::connect(server.unix(2)).await.expect("Unix")),
        }
    }

    /// Opens a tunnel.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn tunnel(&self, way: Way, target: impl ToString) -> Box<dyn Connection> {
        let mut stream = self.enter(way).await;
        let answer = ask(&mut *stream, target).await.expect("an answer");
        assert_eq!(answer.status, 200, "{way:?}: {}", answer.head);
        stream
    }

    /// Waits until no tunnel is left, then stops both programs.
    ///
    /// # Panics
    /// When one of them does not end in time, or panicked.
    pub async fn rest_and_stop(self) {
        self.server.is_at_rest().await;
        self.agent.is_at_rest().await;
        self.agent.stop().await;
        self.server.stop().await;
    }
}
