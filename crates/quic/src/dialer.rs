//! An agent's endpoint for one dial.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::ClientConfig;
use quinn::crypto::rustls::QuicClientConfig;
use tokio::time::timeout;
use towline_protocol::failure::SessionError;
use towline_tls::ClientTls;

use crate::args::QuicConfig;
use crate::connection::{QuicConnection, connection_error};
use crate::endpoint::{EndpointError, SocketBuffers, open};
use crate::transport_config::{Side, transport_config};

/// How an agent dials.
#[derive(Debug, Clone)]
pub struct DialConfig {
    /// Certificates and protocols.
    pub tls: ClientTls,
    /// QUIC and UDP settings.
    pub quic: QuicConfig,
    /// How often to ping; the server's idle timeout must be longer.
    pub keep_alive: Duration,
}

/// A fresh socket for one dial, so that a redial leaves broken NAT or load balancer state behind.
#[derive(Debug)]
pub struct QuicDialer {
    endpoint: quinn::Endpoint,
    buffers: SocketBuffers,
    config: ClientConfig,
}

// === impl QuicDialer ===

impl QuicDialer {
    /// Opens a socket of the address family of `server`.
    ///
    /// # Errors
    /// When the system gives no socket, or the TLS configuration is not TLS 1.3.
    pub fn bind(server: SocketAddr, dial: &DialConfig) -> Result<Self, EndpointError> {
        let address = match server {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let tls = QuicClientConfig::try_from(ClientTls::clone(&dial.tls))
            .map_err(|_| EndpointError::Tls)?;
        let mut config = ClientConfig::new(Arc::new(tls));
        config.transport_config(transport_config(&dial.quic, Side::Agent(dial.keep_alive)));
        let (endpoint, buffers) = open(address, None, &dial.quic)
            .map_err(|source| EndpointError::Socket { address, source })?;
        Ok(Self {
            endpoint,
            buffers,
            config,
        })
    }

    /// Dials the server and verifies that its certificate carries `name`.
    ///
    /// # Errors
    /// When there is no answer within `limit`, or either side's certificate is refused.
    pub async fn dial(
        self,
        server: SocketAddr,
        name: &str,
        limit: Duration,
    ) -> Result<QuicConnection, SessionError> {
        let connecting = self
            .endpoint
            .connect_with(self.config, server, name)
            .map_err(|error| SessionError::Unusable(error.to_string()))?;
        let connection = timeout(limit, connecting)
            .await
            .map_err(|_elapsed| SessionError::HandshakeTimeout)?
            .map_err(connection_error)?;
        QuicConnection::new(connection, Some((self.endpoint, self.buffers)))
    }
}
