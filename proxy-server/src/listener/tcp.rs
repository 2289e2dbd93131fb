//! Clients over plain TCP.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;
use towline_session::local_stream::configure_tcp;

use crate::listener::Accepted;

/// Connections that may wait to be accepted; the system's own limit may be lower.
const BACKLOG: i32 = 4_096;

/// A TCP socket that listens.
#[derive(Debug)]
pub struct TcpListener {
    listener: tokio::net::TcpListener,
    local: SocketAddr,
}

// === impl TcpListener ===

impl TcpListener {
    /// Listens on `address`.
    ///
    /// # Errors
    /// What the system says, for example that the port is taken.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        if address.is_ipv6() {
            // `[::]` takes IPv4 clients as well, whatever the system's default is.
            socket.set_only_v6(false)?;
        }
        // A restart must not wait for the connections of its predecessor to time out.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        // Handed on to every accepted connection, which saves the calls there.
        configure_tcp(&socket)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener = tokio::net::TcpListener::from_std(socket.into())?;
        let local = listener.local_addr()?;
        Ok(Self { listener, local })
    }

    /// The address with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        let (stream, address) = self.accept_raw().await?;
        Ok(Accepted::tcp(stream, address))
    }

    pub(super) async fn accept_raw(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.listener.accept().await
    }
}
