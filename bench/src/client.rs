//! The client's end of a tunnel: straight to the target, or through a proxy with CONNECT.

use std::error::Error;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::str::FromStr;
use std::time::Duration;
use std::{fmt, io};

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::target::MESSAGE;

/// Bytes that bulk rows read or write at once: large, so that the generator costs little.
pub const CHUNK: usize = 256 * 1024;

/// How long opening a tunnel, or one exchange on it, may take. Far above any latency under load:
/// what takes longer stands still.
pub const LIMIT: Duration = Duration::from_secs(5);

/// The longest head of an answer that is read.
const MAX_HEAD: usize = 4096;

/// How a client reaches a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// With a connection of its own.
    Direct,
    /// With CONNECT to the proxy at this address.
    Proxy(SocketAddr),
    /// With CONNECT to the proxy at the abstract Unix socket with this number.
    Unix(u16),
}

/// What a tunnel waits for longer than [`LIMIT`]: the subject stands still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoodStill(pub String);

// === impl Route ===

impl Route {
    /// Opens a tunnel within [`LIMIT`].
    ///
    /// What a target sends unasked right behind the proxy's answer may be lost: ask before it does.
    ///
    /// # Errors
    /// When it is refused, breaks or takes too long.
    pub async fn open(self, target: SocketAddr) -> Result<TcpStream> {
        let opened = timeout(LIMIT, self.open_unbounded(target)).await;
        opened.with_context(|| StoodStill(format!("no tunnel within {LIMIT:?}")))?
    }

    /// Opens a tunnel to the target's source and asks for bytes.
    ///
    /// # Errors
    /// Those of [`Route::open`].
    pub async fn download(self, source: SocketAddr) -> Result<TcpStream> {
        let mut stream = self.open(source).await?;
        stream.write_u8(0).await.context("ask for bytes")?;
        Ok(stream)
    }

    /// The name of an abstract Unix socket, without the byte in front that makes it abstract.
    pub fn unix_name(number: u16) -> String {
        format!("towline-bench-{number}")
    }

    async fn open_unbounded(self, target: SocketAddr) -> Result<TcpStream> {
        let connected = match self {
            Self::Direct => return connect(target).await.context("connect"),
            Self::Proxy(proxy) => connect(proxy).await,
            Self::Unix(number) => connect_unix(number).await,
        };
        let mut stream = connected.context("connect")?;
        let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.context("CONNECT")?;
        read_answer(&mut stream).await.context("CONNECT")?;
        Ok(stream)
    }
}

/// As the command line of [`crate::downloads`] has it.
impl fmt::Display for Route {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct => formatter.write_str("direct"),
            Self::Proxy(proxy) => write!(formatter, "proxy={proxy}"),
            Self::Unix(number) => write!(formatter, "unix={number}"),
        }
    }
}

impl FromStr for Route {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once('=') {
            None if text == "direct" => Ok(Self::Direct),
            Some(("proxy", address)) => Ok(Self::Proxy(address.parse()?)),
            Some(("unix", number)) => Ok(Self::Unix(number.parse()?)),
            _ => bail!("no route: {text:?}"),
        }
    }
}

// === impl StoodStill ===

impl Error for StoodStill {}

impl fmt::Display for StoodStill {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A socket that is read, written and closed like one of TCP; only TCP's own options are missing.
async fn connect_unix(number: u16) -> io::Result<TcpStream> {
    let stream = UnixStream::connect(format!("\0{}", Route::unix_name(number))).await?;
    let socket = OwnedFd::from(stream.into_std()?);
    TcpStream::from_std(socket.into())
}

/// Sends one message and reads it back within [`LIMIT`].
///
/// # Errors
/// When the tunnel breaks, other bytes come back, or it takes too long.
pub async fn exchange(stream: &mut TcpStream) -> Result<()> {
    let exchanged = timeout(LIMIT, exchange_unbounded(stream, 0)).await;
    exchanged.with_context(|| StoodStill(format!("no answer to a message within {LIMIT:?}")))?
}

/// Sends one message that carries `number` and reads it back, without a deadline of its own.
///
/// # Errors
/// When the tunnel breaks or other bytes come back.
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

/// Whether the head is whole and says 200; not yet when it has no end.
fn is_granted(head: &[u8]) -> Result<bool> {
    if !head.windows(4).any(|window| window == b"\r\n\r\n") {
        ensure!(head.len() < MAX_HEAD, "the answer has no end");
        return Ok(false);
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let status = line.split(' ').nth(1);
    ensure!(status == Some("200"), "answered {line:?}");
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_read_as_it_is_written() {
        let proxy = Route::Proxy("127.0.0.1:1".parse().unwrap());
        for route in [Route::Direct, proxy, Route::Unix(7)] {
            assert_eq!(route.to_string().parse::<Route>().unwrap(), route);
        }
        for wrong in ["", "proxy", "proxy=1", "unix=x", "direct=1"] {
            assert!(wrong.parse::<Route>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_answer_is_granted_once_it_is_whole() {
        let answer = b"HTTP/1.1 200 OK\r\nDate: x\r\n\r\nbytes";
        let end = answer.len() - b"bytes".len();
        for length in 0..end {
            assert!(!is_granted(&answer[..length]).unwrap(), "{length}");
        }
        assert!(is_granted(&answer[..end]).unwrap());
        assert!(is_granted(answer).unwrap());
    }

    #[test]
    fn a_refusal_is_told() {
        let refused = is_granted(b"HTTP/1.1 502 refused\r\n\r\n").unwrap_err();
        assert_eq!(refused.to_string(), r#"answered "HTTP/1.1 502 refused""#);
        assert!(is_granted(b"\r\n\r\n").is_err());
        assert!(is_granted(&[b'x'; MAX_HEAD]).is_err());
    }
}
