//! QUIC as a transport.

use std::net::SocketAddr;

use towline_protocol::code::SessionCode;
use towline_protocol::failure::{OpenError, SessionError};
use towline_quic::connection::QuicConnection;

use crate::transport::{BoxFuture, RawStream, Transport, TransportKind, TransportStats};

impl Transport for QuicConnection {
    fn kind(&self) -> TransportKind {
        TransportKind::Quic
    }

    fn remote_addr(&self) -> SocketAddr {
        self.remote_addr()
    }

    fn try_open(&self) -> Result<RawStream, OpenError> {
        self.try_open().map(RawStream::Quic)
    }

    fn accept(&self) -> BoxFuture<'_, Result<RawStream, SessionError>> {
        Box::pin(async { self.accept().await.map(RawStream::Quic) })
    }

    fn closed(&self) -> BoxFuture<'_, SessionError> {
        Box::pin(self.closed())
    }

    fn close_reason(&self) -> Option<SessionError> {
        self.close_reason()
    }

    fn close(&self, code: SessionCode, reason: &str) {
        self.close(code, reason);
    }

    fn close_acknowledged(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.close_acknowledged())
    }

    fn stats(&self) -> TransportStats {
        TransportStats {
            path: Some(self.stats()),
            socket_buffers: self.socket_buffers(),
        }
    }
}
