//! The local end of a tunnel: what a splice asks of a socket beyond reading and writing.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A local socket that can end with a reset instead of an end of file.
pub trait Socket: AsyncRead + AsyncWrite + Unpin + Send {
    /// Makes the coming close an abort (TCP RST), as far as the socket knows such a thing.
    fn abort_on_close(&self);

    /// What went wrong with the socket that no read or write has told yet (`SO_ERROR`).
    fn failure(&self) -> Option<io::Error>;
}

/// The local end of a live tunnel: closing it is an abort until it has been told its end of file.
/// Whatever was not told must not look finished.
pub(super) struct LocalEnd<S: Socket> {
    pub(super) socket: S,
    ended: bool,
}

/// Sets up a TCP socket for tunnels: no delay for small writes, and probes that find out when a
/// silent peer is gone: after a minute of silence one every 10 s, the end after six unanswered.
///
/// On Linux a listening socket hands both on to the connections that it accepts.
///
/// # Errors
/// What the system says, on a socket that is no TCP socket.
pub fn prepare(socket: &impl AsFd) -> io::Result<()> {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(10))
        .with_retries(6);
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&keepalive)
}

// === impl LocalEnd ===

impl<S: Socket> LocalEnd<S> {
    pub(super) fn new(socket: S) -> Self {
        Self {
            socket,
            ended: false,
        }
    }

    /// The socket has been told its end of file.
    pub(super) fn ended(&mut self) {
        self.ended = true;
    }
}

impl<S: Socket> Drop for LocalEnd<S> {
    fn drop(&mut self) {
        if !self.ended {
            self.socket.abort_on_close();
        }
    }
}

// === impl Socket ===

impl Socket for TcpStream {
    fn abort_on_close(&self) {
        // Fails only on a socket that is gone already.
        self.set_zero_linger().ok();
    }

    fn failure(&self) -> Option<io::Error> {
        self.take_error().unwrap_or_else(Some)
    }
}
