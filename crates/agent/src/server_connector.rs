//! How an agent connects to a server: resolve its name, dial it, exchange hello and welcome.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::lookup_host;
use tokio::time::timeout;
use towline_protocol::control::{Hello, Welcome};
use towline_protocol::failure::SessionError;
use towline_protocol::target::{Host, Target};
use towline_quic::dialer::{DialConfig, QuicDialer};
use towline_quic::endpoint::EndpointError;
use towline_session::control_stream::{ControlStream, ControlStreamError};
use towline_session::dialect::Dialect;
use towline_session::session::Session;
use tracing::debug;

/// Connects to servers; clones share everything.
pub trait ServerConnector: Clone + Send + Sync + 'static {
    /// Establishes a session to the server. The future may be dropped at any time.
    ///
    /// # Errors
    /// Why there is no session.
    fn connect(
        &self,
        server: &Target,
    ) -> impl Future<Output = Result<Established, DialError>> + Send;
}

/// A session that a server has welcomed.
#[derive(Debug)]
pub struct Established {
    /// The session.
    pub session: Session,
    /// Its control stream and the server's welcome; nothing on a legacy session.
    pub control: Option<(ControlStream, Welcome)>,
}

/// Why a server could not be connected to.
#[derive(Debug, Error)]
pub enum DialError {
    /// The server's name does not resolve, or not in time.
    #[error("cannot resolve {0}: {1}")]
    Resolve(Target, String),
    /// No UDP socket.
    #[error(transparent)]
    Bind(#[from] EndpointError),
    /// No connection to any address; this is the error of the last one.
    #[error("{0}: {1}")]
    Handshake(SocketAddr, SessionError),
    /// The server did not welcome the agent.
    #[error("{0}: {1}")]
    Hello(SocketAddr, ControlStreamError),
}

/// How to connect to servers over QUIC.
#[derive(Debug, Clone)]
pub struct QuicConnectorConfig {
    /// The name that the servers' certificates must carry; else each server's own.
    pub server_name: Option<String>,
    /// How to dial.
    pub dial: DialConfig,
    /// How the agent introduces itself.
    pub hello: Hello,
}

/// Connects over QUIC.
#[derive(Debug, Clone)]
pub struct QuicConnector(Arc<QuicConnectorConfig>);

// === impl DialError ===

impl DialError {
    /// The value of the metric label `phase`.
    #[must_use]
    pub const fn phase(&self) -> &'static str {
        match self {
            Self::Resolve(..) => "resolve",
            Self::Bind(_) => "bind",
            Self::Handshake(..) => "handshake",
            Self::Hello(..) => "greeting",
        }
    }
}

// === impl QuicConnector ===

impl ServerConnector for QuicConnector {
    /// Tries every address of the server's name, which is resolved anew each time.
    async fn connect(&self, server: &Target) -> Result<Established, DialError> {
        let mut last = DialError::Resolve(server.clone(), "no address".to_owned());
        for address in self.resolve(server).await? {
            match self.connect_address(server, address).await {
                Ok(established) => return Ok(established),
                Err(error) => {
                    debug!(%error, "connecting to one address failed");
                    last = error;
                }
            }
        }
        Err(last)
    }
}

impl QuicConnector {
    /// A connector with this configuration.
    pub fn new(config: QuicConnectorConfig) -> Self {
        Self(Arc::new(config))
    }

    async fn resolve(&self, server: &Target) -> Result<Vec<SocketAddr>, DialError> {
        let failed = |why: String| DialError::Resolve(server.clone(), why);
        match &server.host {
            Host::Ip(ip) => Ok(vec![SocketAddr::new(*ip, server.port)]),
            Host::Name(name) => timeout(self.timeout(), lookup_host((&**name, server.port)))
                .await
                .map_err(|_elapsed| failed("no answer in time".to_owned()))?
                .map(Iterator::collect)
                .map_err(|error| failed(error.to_string())),
        }
    }

    async fn connect_address(
        &self,
        server: &Target,
        address: SocketAddr,
    ) -> Result<Established, DialError> {
        let QuicConnectorConfig {
            server_name,
            dial,
            hello,
        } = &*self.0;
        let own_name = certificate_name(&server.host);
        let name = server_name.as_deref().unwrap_or(&own_name);
        let handshake = |error| DialError::Handshake(address, error);
        let connection = QuicDialer::bind(address, dial)?
            .dial(address, name, self.timeout())
            .await
            .map_err(handshake)?;
        let session = Session::over_quic(connection, hello.max_streams).map_err(handshake)?;
        let control = match session.dialect() {
            Dialect::Legacy => None,
            Dialect::Towline => Some(
                ControlStream::handshake(&session, hello.clone(), self.timeout())
                    .await
                    .map_err(|error| DialError::Hello(address, error))?,
            ),
        };
        Ok(Established { session, control })
    }

    /// How long each step may take.
    fn timeout(&self) -> Duration {
        self.0.dial.quic.handshake_timeout
    }
}

/// The name or address that a server's certificate must carry.
fn certificate_name(host: &Host) -> String {
    match host {
        Host::Ip(ip) => ip.to_string(),
        Host::Name(name) => name.trim_end_matches('.').to_owned(),
    }
}
