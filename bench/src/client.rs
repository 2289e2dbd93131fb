//! The client's end of a tunnel: a direct connection, or CONNECT through a proxy.

use std::error::Error;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{fmt, io};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::target::{MESSAGE, ORDER};

/// Bytes that bulk rows read or write at once: large, so that the generator costs little.
pub const CHUNK: usize = 256 * 1024;

/// How long opening a tunnel, or one exchange on it, may take: far above any latency under load.
pub const LIMIT: Duration = Duration::from_secs(5);

/// The longest head of an answer that is read.
const MAX_HEAD: usize = 4096;

/// How a client reaches a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Route {
    /// With a TCP connection to the target's address.
    Direct,
    /// With CONNECT to the proxy at this address.
    Proxy(SocketAddr),
    /// With CONNECT to the proxy at the abstract Unix socket with this number.
    Unix(u16),
}

/// A target, and the way to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// How it is reached.
    pub route: Route,
    /// Its address, as the proxy reaches it.
    pub target: SocketAddr,
}

/// A download whose bytes are counted; clones share the count.
#[derive(Debug, Clone, Default)]
pub struct Flow(Arc<AtomicU64>);

/// Nothing was refused and nothing broke, but nothing came within the limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimedOut(pub String);

// === impl Route ===

impl Route {
    /// The name of an abstract Unix socket, without the byte in front that makes it abstract.
    pub fn unix_name(number: u16) -> String {
        format!("towline-bench-{number}")
    }
}

// === impl Entry ===

impl Entry {
    /// Opens a tunnel within [`LIMIT`].
    ///
    /// Bytes that a target sends unasked right behind the proxy's answer may be lost.
    pub async fn open(self) -> Result<TcpStream> {
        let opened = timeout(LIMIT, self.open_unbounded()).await;
        opened.with_context(|| TimedOut(format!("no tunnel within {LIMIT:?}")))?
    }

    async fn open_unbounded(self) -> Result<TcpStream> {
        let Self { route, target } = self;
        let connected = match route {
            Route::Direct => return connect(target).await.context("connect"),
            Route::Proxy(proxy) => connect(proxy).await,
            Route::Unix(number) => connect_unix(number).await,
        };
        let mut stream = connected.context("connect")?;
        let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.context("CONNECT")?;
        read_answer(&mut stream).await.context("CONNECT")?;
        Ok(stream)
    }
}

// === impl Flow ===

impl Flow {
    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Orders so many bytes from the target, and counts them until the flow has as many.
    pub async fn receive(self, mut stream: TcpStream, bytes: u64) -> Result<()> {
        order(&mut stream, &mut [0; ORDER], bytes).await?;
        let mut buffer = vec![0; CHUNK];
        while self.bytes() < bytes {
            let count = stream.read(&mut buffer).await.context("receive")?;
            ensure!(count > 0, "a stream ended early");
            self.0.fetch_add(u64::try_from(count)?, Ordering::Relaxed);
        }
        Ok(())
    }
}

// === impl TimedOut ===

impl Error for TimedOut {}

impl fmt::Display for TimedOut {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Sends a message that orders so many bytes; its first [`ORDER`] bytes are the order, and the
/// target discards the others.
pub async fn order(stream: &mut TcpStream, message: &mut [u8], bytes: u64) -> Result<()> {
    let (head, rest) = message.split_at_mut(ORDER);
    let (discard, send) = head.split_at_mut(ORDER / 2);
    discard.copy_from_slice(&u64::try_from(rest.len())?.to_be_bytes());
    send.copy_from_slice(&bytes.to_be_bytes());
    stream.write_all(message).await.context("send an order")
}

/// Sends one message to an echo service and reads it back within [`LIMIT`].
pub async fn exchange(stream: &mut TcpStream) -> Result<()> {
    let exchanged = timeout(LIMIT, exchange_unbounded(stream, 0)).await;
    exchanged.with_context(|| TimedOut(format!("no answer to a message within {LIMIT:?}")))?
}

/// Sends one message that carries `number` and reads it back, without a deadline of its own.
pub async fn exchange_unbounded(stream: &mut TcpStream, number: u64) -> Result<()> {
    let mut message = [0x2e; MESSAGE];
    message[..8].copy_from_slice(&number.to_be_bytes());
    let mut answer = [0; MESSAGE];
    stream.write_all(&message).await.context("send a message")?;
    let read = stream.read_exact(&mut answer).await;
    read.context("read a message back")?;
    ensure!(answer == message, "other bytes came back");
    Ok(())
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A Unix socket is read, written and closed like one of TCP; only TCP's own options are missing.
async fn connect_unix(number: u16) -> io::Result<TcpStream> {
    let stream = UnixStream::connect(format!("\0{}", Route::unix_name(number))).await?;
    let socket = OwnedFd::from(stream.into_std()?);
    TcpStream::from_std(socket.into())
}

async fn read_answer(stream: &mut TcpStream) -> Result<()> {
    let mut buffer = [0; MAX_HEAD];
    let mut filled = 0;
    loop {
        match stream.read(&mut buffer[filled..]).await? {
            0 => bail!("the proxy closed within its answer ({filled} bytes)"),
            count => filled += count,
        }
        if is_granted(&buffer[..filled])? {
            return Ok(());
        }
    }
}

/// Whether the head is complete and has status 200; false while it has no end.
fn is_granted(head: &[u8]) -> Result<bool> {
    if !head.windows(4).any(|window| window == b"\r\n\r\n") {
        ensure!(head.len() < MAX_HEAD, "the answer has no end");
        return Ok(false);
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    ensure!(line.split(' ').nth(1) == Some("200"), "answered {line:?}");
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_granted_once_it_is_complete() {
        let answer = b"HTTP/1.1 200 OK\r\nDate: x\r\n\r\nbytes";
        let end = answer.len() - b"bytes".len();
        for length in 0..end {
            assert!(!is_granted(&answer[..length]).unwrap(), "{length}");
        }
        assert!(is_granted(&answer[..end]).unwrap());
        assert!(is_granted(answer).unwrap());
    }

    #[test]
    fn a_refusal_is_an_error() {
        let refused = is_granted(b"HTTP/1.1 502 refused\r\n\r\n").unwrap_err();
        assert_eq!(refused.to_string(), r#"answered "HTTP/1.1 502 refused""#);
        assert!(is_granted(b"\r\n\r\n").is_err());
        assert!(is_granted(&[b'x'; MAX_HEAD]).is_err());
    }
}
