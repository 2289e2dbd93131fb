//! The target: a process of its own with a listener for each thing that a row needs.
//!
//! `source` sends from the first byte that it gets until its peer is gone, `sink` swallows and counts, `echo` sends back, `once`
//! sends one message back and closes first, `sunk` tells how much all sinks have swallowed. What
//! is uploaded is counted here, where it arrives: what a client could write may still be queued.

use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{io, iter};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client::CHUNK;

/// Bytes of a small message and of its answer.
pub const MESSAGE: usize = 64;

/// How long the target may take to start or to answer.
const LIMIT: Duration = Duration::from_secs(10);

/// Where clients find the target's services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// Sends from the first byte that it gets until its peer is gone.
    pub source: SocketAddr,
    /// Swallows.
    pub sink: SocketAddr,
    /// Sends back what it gets.
    pub echo: SocketAddr,
    /// Sends back one message and closes.
    pub once: SocketAddr,
}

/// The target's process, as the generator holds it; it ends when this is dropped.
#[derive(Debug)]
pub struct Target {
    /// Where it listens.
    pub at: Addresses,
    sunk: SocketAddr,
    _process: Child,
}

/// What is listened for, in the order in which the addresses are told.
#[derive(Debug, Clone, Copy)]
enum Service {
    Source,
    Sink,
    Echo,
    Once,
    Sunk,
}

// === impl Addresses ===

impl From<[SocketAddr; 4]> for Addresses {
    /// In the order of [`Addresses::named`].
    fn from([source, sink, echo, once]: [SocketAddr; 4]) -> Self {
        Self {
            source,
            sink,
            echo,
            once,
        }
    }
}

impl Addresses {
    /// Each with the name of its service.
    pub fn named(&self) -> [(&'static str, SocketAddr); 4] {
        [
            ("source", self.source),
            ("sink", self.sink),
            ("echo", self.echo),
            ("once", self.once),
        ]
    }
}

// === impl Target ===

impl Target {
    /// Starts the target and waits until it listens.
    ///
    /// # Errors
    /// When it does not.
    pub async fn start() -> Result<Self> {
        let mut process = Command::new("/proc/self/exe")
            .arg("target")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("start the target")?;
        let stdout = process.stdout.take().context("the target has a stdout")?;
        let mut lines = BufReader::new(stdout).lines();
        let mut next = async || -> Result<SocketAddr> {
            let line = timeout(LIMIT, lines.next_line()).await??;
            Ok(line.context("the target ended")?.parse()?)
        };
        let services = [next().await?, next().await?, next().await?, next().await?];
        Ok(Self {
            at: Addresses::from(services),
            sunk: next().await?,
            _process: process,
        })
    }

    /// How many bytes all sinks have swallowed so far.
    ///
    /// # Errors
    /// When the target does not answer.
    pub async fn sunk(&self) -> Result<u64> {
        let answer = async { TcpStream::connect(self.sunk).await?.read_u64().await };
        Ok(timeout(LIMIT, answer).await??)
    }
}

// === impl Service ===

impl Service {
    const ALL: [Self; 5] = [Self::Source, Self::Sink, Self::Echo, Self::Once, Self::Sunk];

    async fn serve(self, stream: TcpStream, sunk: &AtomicU64) -> io::Result<()> {
        match self {
            Self::Source => source(stream).await,
            Self::Sink => sink(stream, sunk).await,
            Self::Echo => echo(stream, usize::MAX).await,
            Self::Once => echo(stream, 1).await,
            Self::Sunk => sunk_so_far(stream, sunk).await,
        }
    }
}

/// Is the target: prints an address per service and serves until stdin ends, as it does when the
/// process that started it is gone.
///
/// # Errors
/// When it cannot listen.
pub async fn serve() -> Result<()> {
    let sunk = Arc::new(AtomicU64::new(0));
    let mut listeners = JoinSet::new();
    for service in Service::ALL {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        writeln!(io::stdout().lock(), "{}", listener.local_addr()?)?;
        let sunk = Arc::clone(&sunk);
        listeners.spawn(accept(listener, move |stream| {
            let sunk = Arc::clone(&sunk);
            async move { service.serve(stream, &sunk).await }
        }));
    }
    let mut stdin = tokio::io::stdin();
    tokio::select! {
        ended = stdin.read_u8() => match ended {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            other => bail!("stdin says nothing, but {other:?}"),
        },
        ended = listeners.join_next() => bail!("a listener ended: {ended:?}"),
    }
}

async fn accept<F>(listener: TcpListener, serve: impl Fn(TcpStream) -> F) -> io::Result<()>
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                stream.set_nodelay(true)?;
                connections.spawn(serve(stream));
            }
            // How a peer ends its connection is its own business.
            Some(_ended) = connections.join_next() => {}
        }
    }
}

/// Asked first, as servers are: konnectivity may send what comes unasked before its own answer.
async fn source(mut stream: TcpStream) -> io::Result<()> {
    stream.read_u8().await?;
    let bytes: Vec<u8> = iter::successors(Some(0_u8), |byte| Some(byte.wrapping_mul(5) ^ 0x1d))
        .take(CHUNK)
        .collect();
    loop {
        stream.write_all(&bytes).await?;
    }
}

async fn sink(mut stream: TcpStream, sunk: &AtomicU64) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            // A length fits: it is at most that of the buffer.
            count => sunk.fetch_add(u64::try_from(count).unwrap_or(0), Ordering::Relaxed),
        };
    }
}

async fn echo(mut stream: TcpStream, messages: usize) -> io::Result<()> {
    let mut message = [0; MESSAGE];
    for _ in 0..messages {
        stream.read_exact(&mut message).await?;
        stream.write_all(&message).await?;
    }
    Ok(())
}

async fn sunk_so_far(mut stream: TcpStream, sunk: &AtomicU64) -> io::Result<()> {
    stream.write_u64(sunk.load(Ordering::Relaxed)).await
}
