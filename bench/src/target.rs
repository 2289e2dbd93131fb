//! The target: a listener for each service, in two processes. Those for bulk are not those for
//! small messages, so that small messages do not wait for the target's own work.
//!
//! Uploads are counted here, where they arrive: what a client could write may still be queued.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{io, iter};

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client::CHUNK;
use crate::place::Stage;
use crate::process::{Part, say, told};

/// Bytes of a small message and of its answer.
pub const MESSAGE: usize = 64;

/// Bytes of an order: how many of the next bytes to discard, then how many to send, as two
/// big-endian numbers of 64 bits.
pub const ORDER: usize = 16;

/// How long the target may take to start or to answer.
const LIMIT: Duration = Duration::from_secs(10);

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// What clients can reach at a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Obeys orders, see [`ORDER`], one after the other.
    Orders,
    /// Discards and counts.
    Sink,
    /// Sends each message back.
    Echo,
    /// Sends one message back and closes.
    Once,
}

/// The address of each service, in the order of [`Service::ALL`].
pub type Addresses = [SocketAddr; Service::ALL.len()];

/// The target's processes; they end when this is dropped.
#[derive(Debug)]
pub struct Target {
    /// The services.
    pub at: Addresses,
    /// The service [`Service::Orders`] with a congestion control of its own, if that was asked for.
    pub other: Option<SocketAddr>,
    sunk: SocketAddr,
    _parts: [Part; 2],
}

/// The command line of a process of the target.
#[derive(Debug, Clone, Args)]
pub struct TargetArgs {
    half: Half,
    listen: IpAddr,
    /// A congestion control for one more listener.
    other: Option<String>,
}

/// A process of the target.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Half {
    Bulk,
    Small,
}

/// What a listener does for each connection.
#[derive(Debug, Clone, Copy)]
enum Work {
    Orders,
    Sink,
    /// Tells the number of bytes that the sink has received so far.
    Sunk,
    Echo {
        messages: usize,
    },
}

// === impl Service ===

impl Service {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Orders, Self::Sink, Self::Echo, Self::Once];

    /// The name under which a subject forwards it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Sink => "sink",
            Self::Echo => "echo",
            Self::Once => "once",
        }
    }

    /// Its place in [`Addresses`].
    pub const fn index(self) -> usize {
        match self {
            Self::Orders => 0,
            Self::Sink => 1,
            Self::Echo => 2,
            Self::Once => 3,
        }
    }
}

// === impl Target ===

impl Target {
    /// Starts the target at the far side of a place and waits until all its services listen; with
    /// `other`, orders are also taken by a listener whose connections have this congestion control.
    pub async fn start(stage: &Stage<'_>, other: Option<&str>) -> Result<Self> {
        let listen = stage.far_address().to_string();
        let start = |half| {
            let arguments = ["target", half, &listen].into_iter().chain(other);
            let arguments: Vec<String> = arguments.map(str::to_owned).collect();
            stage.far(|| Part::start(&arguments))
        };
        let (mut bulk, mut small) = (start("bulk")?, start("small")?);
        let [orders, sink, sunk] = addresses(&mut bulk).await?;
        let other = match other {
            Some(_) => Some(addresses::<1>(&mut bulk).await?[0]),
            None => None,
        };
        let [echo, once] = addresses(&mut small).await?;
        Ok(Self {
            at: [orders, sink, echo, once],
            other,
            sunk,
            _parts: [bulk, small],
        })
    }

    /// How many bytes the sink has received so far.
    pub async fn sunk(&self) -> Result<u64> {
        let answer = async { TcpStream::connect(self.sunk).await?.read_u64().await };
        Ok(timeout(LIMIT, answer).await??)
    }
}

async fn addresses<const N: usize>(part: &mut Part) -> Result<[SocketAddr; N]> {
    let mut addresses = [SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)); N];
    for address in &mut addresses {
        let line = part.line(LIMIT).await.context("start the target")?;
        *address = line.parse().map_err(|_| anyhow!("the target: {line}"))?;
    }
    Ok(addresses)
}

/// Serves one half of the target: prints the address of each listener and ends with stdin.
pub async fn serve(args: &TargetArgs) -> Result<()> {
    let works: &[Work] = match args.half {
        Half::Bulk => &[Work::Orders, Work::Sink, Work::Sunk],
        Half::Small => &[
            Work::Echo {
                messages: usize::MAX,
            },
            Work::Echo { messages: 1 },
        ],
    };
    let other = args
        .other
        .as_deref()
        .filter(|_| matches!(args.half, Half::Bulk));
    let listeners = works.iter().map(|work| (*work, None));
    let listeners = listeners.chain(other.map(|name| (Work::Orders, Some(name))));
    let (sunk, mut tasks) = (Arc::new(AtomicU64::new(0)), JoinSet::new());
    for (work, congestion) in listeners {
        let listener = match listen(args.listen, congestion) {
            Ok(listener) => listener,
            Err(error) => return say(&format!("{error:#}")),
        };
        say(&listener.local_addr()?.to_string())?;
        let sunk = Arc::clone(&sunk);
        tasks.spawn(accept(listener, move |stream| {
            let sunk = Arc::clone(&sunk);
            async move { work.serve(stream, &sunk).await }
        }));
    }
    tokio::select! {
        line = async { told()?.next_line().await.map_err(anyhow::Error::from) } => match line? {
            None => Ok(()),
            Some(line) => bail!("told {line:?}"),
        },
        ended = tasks.join_next() => bail!("a listener ended: {ended:?}"),
    }
}

/// Connections that a socket accepts inherit its congestion control.
fn listen(address: IpAddr, congestion: Option<&str>) -> Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    if let Some(name) = congestion {
        let set = SockRef::from(&socket).set_tcp_congestion(name.as_bytes());
        set.with_context(|| format!("set the congestion control {name}"))?;
    }
    socket.bind((address, 0).into())?;
    Ok(socket.listen(BACKLOG)?)
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
            // A connection may end in any way.
            Some(_ended) = connections.join_next() => {}
        }
    }
}

// === impl Work ===

impl Work {
    async fn serve(self, mut stream: TcpStream, sunk: &AtomicU64) -> io::Result<()> {
        match self {
            Self::Orders => obey(stream).await,
            Self::Sink => {
                let mut buffer = vec![0; CHUNK];
                loop {
                    match stream.read(&mut buffer).await? {
                        0 => return Ok(()),
                        count => sunk.fetch_add(length(count), Ordering::Relaxed),
                    };
                }
            }
            Self::Sunk => stream.write_u64(sunk.load(Ordering::Relaxed)).await,
            Self::Echo { messages } => {
                let mut message = [0; MESSAGE];
                for _ in 0..messages {
                    stream.read_exact(&mut message).await?;
                    stream.write_all(&message).await?;
                }
                Ok(())
            }
        }
    }
}

/// Serves orders until the stream ends. The first bytes come from the client in any case:
/// konnectivity may forward what a target sends unasked before its own answer to CONNECT.
async fn obey(mut stream: TcpStream) -> io::Result<()> {
    let bytes = iter::successors(Some(0_u8), |byte| Some(byte.wrapping_mul(5) ^ 0x1d));
    let bytes: Vec<u8> = bytes.take(CHUNK).collect();
    let mut buffer = vec![0; CHUNK];
    let most = |left: u64| usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
    loop {
        let (mut discard, mut send) = (stream.read_u64().await?, stream.read_u64().await?);
        while discard > 0 {
            match stream.read(&mut buffer[..most(discard)]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => discard -= length(count),
            }
        }
        while send > 0 {
            stream.write_all(&bytes[..most(send)]).await?;
            send -= length(most(send));
        }
    }
}

/// A length of at most [`CHUNK`].
fn length(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(0)
}
