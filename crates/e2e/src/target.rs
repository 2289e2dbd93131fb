//! Targets: TCP servers that do one thing to each connection.

use std::future::Future;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A TCP server on a free port; it and its connections end when it is dropped.
#[derive(Debug)]
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    _tasks: JoinSet<()>,
}

// === impl Target ===

impl Target {
    /// Does `serve` to every connection.
    ///
    /// # Panics
    /// When loopback has no port left.
    pub async fn start<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                        connections.spawn(serve(stream));
                    },
                    Some(_ended) = connections.join_next() => {}
                }
            }
        });
        Self {
            address,
            _tasks: tasks,
        }
    }

    /// Sends back what it reads, and ends when its peer has.
    pub async fn echo() -> Self {
        Self::start(|mut stream| async move {
            let (mut read, mut write) = stream.split();
            // A client that resets its echo is no failure of the target.
            if tokio::io::copy(&mut read, &mut write).await.is_ok() {
                write.shutdown().await.ok();
            }
        })
        .await
    }

    /// Sends `bytes` at once and closes, whatever it is sent.
    pub async fn sends(bytes: Vec<u8>) -> Self {
        Self::start(move |mut stream| {
            let bytes = bytes.clone();
            async move {
                if stream.write_all(&bytes).await.is_ok() {
                    stream.shutdown().await.ok();
                    // Until the client has closed: a close on unread bytes would be a reset.
                    stream.read_to_end(&mut Vec::new()).await.ok();
                }
            }
        })
        .await
    }
}

/// An address of this machine on which nothing listens.
///
/// # Panics
/// When loopback has no port left.
pub async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    listener.local_addr().expect("an address")
}
