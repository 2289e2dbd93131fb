//! Where a client's bytes come from: TCP, TLS over TCP, or a Unix socket.

pub mod address;
pub mod tcp;
pub mod tls;
pub mod unix;

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use towline_session::local_stream::LocalStream;

pub use crate::listener::address::{Address, AddressError};
use crate::listener::tls::{ServerTlsStream, TlsInfo};
use crate::request::ClientAddress;

/// An open listener of any kind.
#[derive(Debug)]
pub enum Listener {
    /// Plain TCP.
    Tcp(tcp::TcpListener),
    /// TLS over TCP.
    Tls(tls::TlsListener),
    /// A Unix socket.
    Unix(unix::UnixListener),
}

/// Why a listener could not be opened.
#[derive(Debug, Error)]
pub enum ListenerError {
    /// The system refused the address.
    #[error("cannot listen on {address}")]
    Address {
        /// The address as configured.
        address: Address,
        /// What the system said.
        source: io::Error,
    },
    /// Something at the path of a Unix socket must not be replaced.
    #[error("cannot listen on unix://{}: {why}", path.display())]
    Occupied {
        /// The path asked for.
        path: PathBuf,
        /// What is there.
        why: &'static str,
    },
    /// A TLS listener without a certificate.
    #[error("cannot listen on {0}: tls:// needs --tls-cert-file and --tls-private-key-file")]
    NoCertificate(Address),
}

/// A connection that was accepted; nothing has been read from it.
#[derive(Debug)]
pub struct Accepted {
    /// The client's address.
    pub address: ClientAddress,
    raw: Raw,
}

#[derive(Debug)]
enum Raw {
    Tcp(TcpStream),
    Tls(TcpStream, tls::Handshake),
    Unix(UnixStream),
}

/// A client's connection, ready for its frontend.
#[derive(Debug)]
pub enum ClientStream {
    /// Plain TCP.
    Tcp(TcpStream),
    /// TLS over TCP.
    Tls(Box<ServerTlsStream>),
    /// A Unix socket.
    Unix(UnixStream),
}

// === impl Listener ===

impl Listener {
    /// The next connection. Cancel-safe.
    ///
    /// # Errors
    /// What the system says: a connection that died in the queue, or no descriptors left.
    pub async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => listener.accept().await,
            Self::Tls(listener) => listener.accept().await,
            Self::Unix(listener) => listener.accept().await,
        }
    }

    /// The address that clients use, with the real port.
    pub fn local_address(&self) -> Address {
        match self {
            Self::Tcp(listener) => Address::Tcp(listener.local_addr()),
            Self::Tls(listener) => Address::Tls(listener.local_addr()),
            Self::Unix(listener) => Address::Unix(listener.path().to_owned()),
        }
    }

    /// Whether the address may be reached from other machines, and clients need no certificate.
    pub fn is_open_to_the_network(&self) -> bool {
        match self {
            Self::Tcp(listener) => !listener.local_addr().ip().is_loopback(),
            Self::Tls(listener) => {
                !listener.requires_certificates() && !listener.local_addr().ip().is_loopback()
            }
            Self::Unix(_) => false,
        }
    }
}

// === impl Accepted ===

impl Accepted {
    pub(crate) fn tcp(stream: TcpStream, address: std::net::SocketAddr) -> Self {
        Self {
            address: ClientAddress::Ip(address),
            raw: Raw::Tcp(stream),
        }
    }

    pub(crate) fn tls(
        stream: TcpStream,
        address: std::net::SocketAddr,
        handshake: tls::Handshake,
    ) -> Self {
        Self {
            address: ClientAddress::Ip(address),
            raw: Raw::Tls(stream, handshake),
        }
    }

    pub(crate) fn unix(stream: UnixStream) -> Self {
        Self {
            address: ClientAddress::Unix,
            raw: Raw::Unix(stream),
        }
    }

    /// Makes the connection ready for a frontend: the TLS handshake, within its deadline.
    ///
    /// # Errors
    /// When the handshake fails or is slow.
    pub async fn open(self) -> io::Result<(ClientStream, Option<TlsInfo>)> {
        match self.raw {
            Raw::Tcp(stream) => Ok((ClientStream::Tcp(stream), None)),
            Raw::Unix(stream) => Ok((ClientStream::Unix(stream), None)),
            Raw::Tls(stream, handshake) => {
                // Boxed, so that the connection's future does not keep its size for life.
                let (stream, info) = Box::pin(handshake.run(stream)).await?;
                Ok((ClientStream::Tls(stream), Some(info)))
            }
        }
    }
}

// === impl ClientStream ===

impl AsyncRead for ClientStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl LocalStream for ClientStream {
    /// A Unix socket knows no reset: its peer reads an end of file, or `ECONNRESET` when bytes of
    /// its own were left unread.
    fn abort_on_close(&self) {
        match self {
            Self::Tcp(stream) => stream.abort_on_close(),
            Self::Tls(stream) => stream.get_ref().0.abort_on_close(),
            Self::Unix(_) => {}
        }
    }

    fn failure(&self) -> Option<io::Error> {
        match self {
            Self::Tcp(stream) => stream.failure(),
            Self::Tls(stream) => stream.get_ref().0.failure(),
            Self::Unix(stream) => stream.take_error().unwrap_or_else(Some),
        }
    }
}
