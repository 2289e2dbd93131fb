//! Targets: TCP servers that treat every connection alike.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};

use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A TCP server on a free port; dropping it ends it and its connections.
#[derive(Debug)]
pub struct Target {
    /// Its address.
    pub address: SocketAddr,
    _tasks: JoinSet<()>,
}

/// A port that is kept bound without a listener, so that connections are refused.
#[derive(Debug)]
pub struct Closed {
    /// Refuses connections.
    pub address: SocketAddr,
    _socket: Socket,
}

/// A listener whose queue is full, so that a dial gets no answer.
#[derive(Debug)]
pub struct BlackHole {
    /// Does not answer.
    pub address: SocketAddr,
    listener: StdTcpListener,
    queued: Vec<Socket>,
}

// === impl Target ===

impl Target {
    /// Runs `serve` for every connection.
    ///
    /// # Panics
    /// When loopback has no port left.
    pub async fn start<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::start_at("127.0.0.1:0", serve).await
    }

    /// Runs `serve` for every connection to `address`.
    ///
    /// # Panics
    /// When the address cannot be listened on.
    pub async fn start_at<F>(address: &str, serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.expect("a free port");
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

    /// Sends back what it reads, until its peer ends.
    pub async fn echo() -> Self {
        Self::start(echo).await
    }

    /// An echo on the IPv6 loopback address.
    pub async fn echo_v6() -> Self {
        Self::start_at("[::1]:0", echo).await
    }

    /// Sends `bytes` at once and closes, whatever it receives.
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

// === impl Closed ===

impl Closed {
    /// Holds a port that the system picks.
    ///
    /// # Panics
    /// When loopback has no port left.
    pub fn new() -> Self {
        let (socket, address) = bound().expect("a free port");
        Self {
            address,
            _socket: socket,
        }
    }
}

impl Default for Closed {
    fn default() -> Self {
        Self::new()
    }
}

// === impl BlackHole ===

impl BlackHole {
    /// Fills the queue of a listener on a port that the system picks.
    ///
    /// # Panics
    /// When loopback has no port left.
    pub fn new() -> Self {
        let (socket, address) = bound().expect("a free port");
        socket.listen(0).expect("a socket that listens");
        let listener = socket.into();
        // A backlog of 0 queues one connection; the system answers none beyond.
        let queued = (0..4).map(|_| dial(address).expect("a socket")).collect();
        Self {
            address,
            listener,
            queued,
        }
    }

    /// Accepts connections from now on: a dial that still waits succeeds with its next SYN, within
    /// about a second.
    ///
    /// # Panics
    /// When the listener is broken.
    pub async fn open(self) -> TcpStream {
        let Self {
            listener, queued, ..
        } = self;
        let own: Vec<_> = queued.iter().map(Socket::local_addr).collect();
        drop(queued);
        listener.set_nonblocking(true).expect("a socket");
        let listener = TcpListener::from_std(listener).expect("a listener");
        loop {
            let (stream, from) = listener.accept().await.expect("a connection");
            let from = from.into();
            if !own.iter().flatten().any(|own| *own == from) {
                return stream;
            }
        }
    }
}

impl Default for BlackHole {
    fn default() -> Self {
        Self::new()
    }
}

fn bound() -> io::Result<(Socket, SocketAddr)> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    let address = socket.local_addr()?.as_socket();
    Ok((
        socket,
        address.ok_or_else(|| io::Error::other("no IP address"))?,
    ))
}

/// Starts to connect and does not wait.
fn dial(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // The error says that the connection is in progress, which is wanted.
    drop(socket.connect(&address.into()));
    Ok(socket)
}

async fn echo(mut stream: TcpStream) {
    let (mut read, mut write) = stream.split();
    // A client that resets its connection is no failure of the target.
    if tokio::io::copy(&mut read, &mut write).await.is_ok() {
        write.shutdown().await.ok();
    }
}

/// An address of this machine on which nothing listens.
///
/// # Panics
/// When loopback has no port left.
pub async fn unused_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    listener.local_addr().expect("an address")
}
