//! The target: a listener for each thing that a row needs, in two processes. Those for bulk are
//! not those for small messages, so that these are not kept waiting by the target's own work.
//!
//! `source` sends from the first byte that it gets until its peer is gone, `sink` swallows and
//! counts, `sunk` tells how much all sinks have swallowed; `echo` sends back, `once` sends one
//! message back and closes first. What is uploaded is counted here, where it arrives: what a
//! client could write may still be queued.

use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{io, iter};

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};
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

/// The target's processes, as the generator holds them; they end when this is dropped.
#[derive(Debug)]
pub struct Target {
    /// Where it listens.
    pub at: Addresses,
    sunk: SocketAddr,
    _processes: [Child; 2],
}

/// What a process of the target is told on its command line.
#[derive(Debug, Clone, Copy, Args)]
pub struct TargetArgs {
    /// Which services it has.
    part: Part,
}

/// A process of the target.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Part {
    /// What moves many bytes.
    Bulk,
    /// What answers messages.
    Small,
}

/// What is listened for.
#[derive(Debug, Clone, Copy)]
enum Service {
    Source,
    Sink,
    Sunk,
    Echo,
    Once,
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
        let (bulk, [source, sink, sunk]) = start("bulk").await?;
        let (small, [echo, once]) = start("small").await?;
        Ok(Self {
            at: Addresses {
                source,
                sink,
                echo,
                once,
            },
            sunk,
            _processes: [bulk, small],
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

// === impl Part ===

impl Part {
    /// Its services, in the order in which the addresses are told.
    fn services(self) -> &'static [Service] {
        match self {
            Self::Bulk => &[Service::Source, Service::Sink, Service::Sunk],
            Self::Small => &[Service::Echo, Service::Once],
        }
    }
}

// === impl Service ===

impl Service {
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

/// Starts the part of the target with this name and waits until all its services listen.
async fn start<const N: usize>(part: &str) -> Result<(Child, [SocketAddr; N])> {
    let mut process = Command::new("/proc/self/exe")
        .args(["target", part])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("start the target")?;
    let stdout = process.stdout.take().context("the target has a stdout")?;
    let mut lines = BufReader::new(stdout).lines();
    let mut services = Vec::new();
    while services.len() < N {
        let line = timeout(LIMIT, lines.next_line()).await??;
        services.push(line.context("the target ended")?.parse()?);
    }
    let services = <[SocketAddr; N]>::try_from(services);
    let services = services.map_err(|_| anyhow!("not as many services as were asked for"))?;
    Ok((process, services))
}

/// Is a part of the target: prints an address per service and serves until stdin ends, as it does
/// when the process that started it is gone.
///
/// # Errors
/// When it cannot listen.
pub async fn serve(args: &TargetArgs) -> Result<()> {
    let sunk = Arc::new(AtomicU64::new(0));
    let mut listeners = JoinSet::new();
    for service in args.part.services() {
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
