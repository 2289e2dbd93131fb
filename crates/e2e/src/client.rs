//! A CONNECT client that says exactly what a test tells it to.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// The head of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The whole head, empty line included.
    pub head: String,
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

/// Opens a tunnel, which must be granted.
///
/// # Panics
/// When it is not.
pub async fn tunnel(proxy: SocketAddr, target: impl ToString) -> TcpStream {
    let (stream, answer) = connect(proxy, target).await.expect("a connection");
    assert_eq!(answer.status, 200, "{}", answer.head);
    stream
}

/// Sends a CONNECT head on any stream and reads the answer's head, not a byte more.
///
/// # Errors
/// When the stream ends before a whole head.
pub async fn ask<S>(stream: &mut S, target: impl ToString) -> io::Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let target = target.to_string();
    let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.flush().await?;
    read_answer(stream).await
}

/// Reads an answer's head, not a byte more.
///
/// # Errors
/// When the stream ends before a whole head, or the head is no answer.
pub async fn read_answer<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Answer> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("no answer: {head:?}")))?;
    Ok(Answer { status, head })
}
