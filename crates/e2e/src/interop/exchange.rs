//! A request and a response without an end of file, which agents of the legacy dialect do not
//! forward.
//!
//! The client sends a length and that many bytes, and receives as many; then the target closes,
//! and the client after it.

use std::io;
use std::net::SocketAddr;

use fastrand::Rng;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::target::Target;

/// Bytes made and checked at a time.
const CHUNK: usize = 64 * 1024;

/// A target that serves such exchanges on every connection.
pub async fn target() -> Target {
    Target::start(|mut stream| async move {
        // An error shows at the client, which does not receive what it expects.
        answer(&mut stream).await.ok();
    })
    .await
}

/// Sends `bytes` bytes, and receives and checks as many.
///
/// # Errors
/// If the connection ends before, or the bytes differ.
pub async fn exchange<S>(stream: &mut S, bytes: u64) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let seed = fastrand::u64(..);
    stream.write_u64(seed).await?;
    stream.write_u64(bytes).await?;
    send(stream, Rng::with_seed(seed), bytes).await?;
    expect(stream, Rng::with_seed(!seed), bytes).await
}

/// Exchanges over a new connection without a CONNECT.
///
/// # Errors
/// As [`exchange`].
pub async fn exchange_raw(listener: SocketAddr, bytes: u64) -> io::Result<()> {
    let mut stream = TcpStream::connect(listener).await?;
    exchange(&mut stream, bytes).await
}

async fn answer(stream: &mut TcpStream) -> io::Result<()> {
    let seed = stream.read_u64().await?;
    let bytes = stream.read_u64().await?;
    expect(stream, Rng::with_seed(seed), bytes).await?;
    send(stream, Rng::with_seed(!seed), bytes).await?;
    stream.shutdown().await?;
    // Until the client has closed: a close on unread bytes would be a reset.
    stream.read_to_end(&mut Vec::new()).await.map(drop)
}

async fn send<S: AsyncWrite + Unpin>(
    stream: &mut S,
    mut random: Rng,
    bytes: u64,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut left = bytes;
    while left > 0 {
        let length = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        random.fill(&mut chunk);
        stream.write_all(&chunk[..length]).await?;
        left -= length as u64;
    }
    stream.flush().await
}

async fn expect<S: AsyncRead + Unpin>(
    stream: &mut S,
    mut random: Rng,
    bytes: u64,
) -> io::Result<()> {
    let (mut expected, mut chunk) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut left = bytes;
    while left > 0 {
        let length = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        random.fill(&mut expected);
        stream.read_exact(&mut chunk[..length]).await?;
        if chunk[..length] != expected[..length] {
            let at = bytes - left;
            return Err(io::Error::other(format!(
                "other bytes within {length} of {at}"
            )));
        }
        left -= length as u64;
    }
    Ok(())
}
