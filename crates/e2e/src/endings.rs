//! How connections end: finished, or reset. A test must tell one from the other.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::target::Target;

/// Ends that a witness keeps until the test asks for them.
const SEEN: usize = 4_096;

/// How a connection ended, as its reader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// An end of file: the peer has sent all.
    Finished,
    /// A reset: the peer did not finish.
    Reset,
}

/// An echo that reports how each of its connections ended.
#[derive(Debug)]
pub struct Witness {
    /// The echo.
    pub target: Target,
    ends: mpsc::Receiver<End>,
}

/// Reads to the end and returns how it came.
///
/// # Panics
/// If it is neither an end of file nor a reset.
pub async fn end<S: AsyncRead + Unpin>(stream: &mut S) -> End {
    let mut rest = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut rest).await {
            Ok(0) => return End::Finished,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return End::Reset,
            Err(error) => panic!("neither finished nor reset: {error}"),
        }
    }
}

/// Sends some bytes to an echo and reads them back.
///
/// # Panics
/// If they do not come back unchanged.
pub async fn echoes<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    let sent = fastrand::u64(..).to_be_bytes();
    stream
        .write_all(&sent)
        .await
        .expect("a tunnel that takes bytes");
    let mut got = [0; 8];
    stream
        .read_exact(&mut got)
        .await
        .expect("bytes that come back");
    assert_eq!(got, sent);
}

// === impl Witness ===

impl Witness {
    /// Starts it on a free port.
    ///
    /// # Panics
    /// When loopback has no port left.
    pub async fn start() -> Self {
        let (tell, ends) = mpsc::channel(SEEN);
        let target = Target::start(move |stream| {
            let tell = tell.clone();
            async move {
                let end = echo(stream).await;
                tell.try_send(end).expect("a test that asks for the ends");
            }
        })
        .await;
        Self { target, ends }
    }

    /// How the next connection to end has ended.
    ///
    /// # Panics
    /// When the echo is gone.
    pub async fn next_end(&mut self) -> End {
        self.ends.recv().await.expect("the echo runs")
    }
}

/// After a write that fails, a read gives the reason.
async fn echo(mut stream: TcpStream) -> End {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut bytes).await {
            Ok(0) => {
                stream.shutdown().await.ok();
                return End::Finished;
            }
            Ok(count) => {
                if stream.write_all(&bytes[..count]).await.is_err() {
                    return End::Reset;
                }
            }
            Err(_) => return End::Reset,
        }
    }
}
