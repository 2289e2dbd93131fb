//! What tunnels lead to: a thread on the far side that does what each connection orders.
//!
//! An order is two numbers of eight bytes, then as many bytes as the first says, which are
//! swallowed; then the target sends as many as the second says and waits for the next order. One
//! more listener sends everything back.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{io, panic};

use anyhow::{Context, Result, anyhow};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use towline_bench::client::CHUNK;
use towline_service::runtime;

use crate::wan::{Side, Wan};

/// Bytes of an order's two numbers.
pub const ORDER: usize = 16;

/// How long the target may take to listen.
const LIMIT: Duration = Duration::from_secs(5);

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 128;

/// A running target; it ends when this is dropped.
#[derive(Debug)]
pub struct Target {
    ports: Vec<u16>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What a listener's connections want.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Orders,
    Echo,
}

// === impl Target ===

impl Target {
    /// Starts a target with a listener whose connections have the namespace's own congestion
    /// control of the kernel's, and a second one if they shall have another.
    ///
    /// # Errors
    /// When the kernel does not have that, or the thread cannot be started.
    pub fn start(wan: &Wan, other: Option<&str>) -> Result<Self> {
        let sockets = wan.namespace(Side::Far).run(|| {
            let orders = [None].into_iter().chain(other.map(Some));
            let sockets = orders.chain([None]).map(socket);
            sockets.collect::<Result<Vec<_>>>()
        })?;
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = mpsc::channel();
        let thread = thread::Builder::new().name("target".to_owned());
        let thread = thread.spawn(move || {
            // Whoever waits for the ports sees that nobody tells them.
            let served =
                runtime::shard().map(|shard| shard.block_on(serve(sockets, &tell, stopped)));
            drop(served);
        })?;
        let ports = told
            .recv_timeout(LIMIT)
            .context("the target does not listen")?;
        Ok(Self {
            ports,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where the listener with this index is, for both sides.
    pub fn at(&self, index: usize) -> SocketAddr {
        SocketAddr::from((Side::Far.address(), self.ports[index]))
    }

    /// Where messages of any kind are sent back.
    pub fn echo(&self) -> SocketAddr {
        self.at(self.ports.len() - 1)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            panic::resume_unwind(panic);
        }
    }
}

fn socket(congestion: Option<&str>) -> Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    if let Some(name) = congestion {
        // Connections that it accepts inherit it.
        let set = SockRef::from(&socket).set_tcp_congestion(name.as_bytes());
        set.with_context(|| format!("the kernel has no congestion control {name}"))?;
    }
    socket.bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))?;
    Ok(socket)
}

async fn serve(
    sockets: Vec<TcpSocket>,
    ports: &mpsc::Sender<Vec<u16>>,
    stopped: oneshot::Receiver<()>,
) -> Result<()> {
    let listen = |socket: TcpSocket| socket.listen(BACKLOG);
    let listeners: Vec<TcpListener> = sockets.into_iter().map(listen).collect::<io::Result<_>>()?;
    let port = |listener: &TcpListener| Ok(listener.local_addr()?.port());
    ports.send(listeners.iter().map(port).collect::<Result<_>>()?)?;
    let (mut all, orders) = (JoinSet::new(), listeners.len() - 1);
    for (index, listener) in listeners.into_iter().enumerate() {
        let kind = if index < orders {
            Kind::Orders
        } else {
            Kind::Echo
        };
        all.spawn(accept(listener, kind));
    }
    tokio::select! {
        _dropped = stopped => Ok(()),
        ended = all.join_next() => Err(anyhow!("a listener ended: {ended:?}")),
    }
}

async fn accept(listener: TcpListener, kind: Kind) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                stream.set_nodelay(true)?;
                connections.spawn(async move {
                    match kind {
                        Kind::Orders => obey(stream).await,
                        Kind::Echo => echo(stream).await,
                    }
                });
            }
            // How a peer ends its connection is its own business.
            Some(_ended) = connections.join_next() => {}
        }
    }
}

async fn obey(mut stream: TcpStream) -> io::Result<()> {
    let bytes = vec![0x5a; CHUNK];
    let mut sink = vec![0; CHUNK];
    loop {
        let (mut swallow, mut send) = (stream.read_u64().await?, stream.read_u64().await?);
        while swallow > 0 {
            let most = usize::try_from(swallow).unwrap_or(CHUNK).min(CHUNK);
            match stream.read(&mut sink[..most]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => swallow -= u64::try_from(count).unwrap_or(swallow),
            }
        }
        while send > 0 {
            let most = usize::try_from(send).unwrap_or(CHUNK).min(CHUNK);
            stream.write_all(&bytes[..most]).await?;
            send -= u64::try_from(most).unwrap_or(send);
        }
    }
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let (mut reader, mut writer) = stream.split();
    tokio::io::copy(&mut reader, &mut writer)
        .await
        .map(|_bytes| ())
}
