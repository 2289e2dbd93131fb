//! Sessions over QUIC: the UDP socket that agents dial, and its accept loop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use thiserror::Error;
use towline_protocol::code::SessionCode;
use towline_quic::args::QuicConfig;
use towline_quic::endpoint::{EndpointError, SocketBuffers};
use towline_quic::listener::{Incoming, QuicListener};
use towline_service::tasks::Tasks;
use towline_session::dialect::ALPN;
use towline_session::session::Session;
use towline_tls::load::{Credentials, LoadError, PemPath, Roots};
use towline_tls::{ConfigError, ServerTls, quic_server};
use tracing::{Instrument, info_span};

use crate::accept::{Accept, AcceptError};
use crate::admit::Admission;

/// Flags of the UDP listener for agents.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Agents")]
pub struct QuicListenArgs {
    /// UDP address that agents dial.
    #[arg(
        long,
        env = "TOWLINE_LISTEN_QUIC",
        value_name = "IP:PORT",
        default_value = "0.0.0.0:8888"
    )]
    pub listen_quic: SocketAddr,

    /// Certificate chain (PEM) that agents see.
    #[arg(long, env = "TOWLINE_CERT_FILE", value_name = "FILE", required = true)]
    pub cert_file: PathBuf,

    /// Private key (PEM) of --cert-file.
    #[arg(long, env = "TOWLINE_CERT_KEY", value_name = "FILE", required = true)]
    pub cert_key: PathBuf,

    /// Authorities (PEM) of the agents' certificates; an agent without one is refused.
    #[arg(
        long,
        env = "TOWLINE_CLIENT_CA_FILE",
        value_name = "FILE",
        required = true
    )]
    pub client_ca_file: PathBuf,
}

/// The UDP listener for agents.
#[derive(Debug, Clone)]
pub struct QuicListenConfig {
    /// The address that agents dial.
    pub address: SocketAddr,
    /// Certificates and protocols.
    pub tls: ServerTls,
    /// QUIC and UDP settings.
    pub quic: QuicConfig,
}

/// Why the files of the agents' side cannot be used.
#[derive(Debug, Error)]
pub enum QuicTlsError {
    /// A file cannot be used.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The files do not make a configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// The open UDP socket, and what happens to the sessions that agents dial.
#[derive(Debug)]
pub struct QuicAgents {
    listener: QuicListener,
    admission: Arc<Admission>,
    max_streams: u32,
}

// === impl QuicListenArgs ===

impl QuicListenArgs {
    /// Loads the files.
    ///
    /// # Errors
    /// Which file of which flag is unusable, and why.
    pub fn config(&self, quic: QuicConfig) -> Result<QuicListenConfig, QuicTlsError> {
        let file = |flag, path: &PathBuf| PemPath {
            flag,
            path: path.clone(),
        };
        let credentials = Credentials::load(
            &file("--cert-file", &self.cert_file),
            &file("--cert-key", &self.cert_key),
        )?;
        let roots = Roots::load(&file("--client-ca-file", &self.client_ca_file))?;
        Ok(QuicListenConfig {
            address: self.listen_quic,
            // The legacy protocol is offered even where legacy agents are refused: a session that
            // is closed with words tells more than a handshake that fails.
            tls: quic_server(&credentials, &roots, &ALPN)?,
            quic,
        })
    }
}

// === impl QuicAgents ===

impl QuicAgents {
    /// Opens the UDP socket.
    ///
    /// # Errors
    /// When the address is taken or not this machine's.
    pub fn bind(
        config: &QuicListenConfig,
        admission: Arc<Admission>,
    ) -> Result<Self, EndpointError> {
        let listener = QuicListener::bind(config.address, config.tls.clone(), &config.quic)?;
        Ok(Self {
            listener,
            admission,
            max_streams: config.quic.max_streams,
        })
    }

    /// The address that agents dial.
    pub fn local_addr(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    /// What the kernel gave for the asked UDP buffers.
    pub fn buffers(&self) -> SocketBuffers {
        self.listener.buffers()
    }

    /// Serves one agent, from its first packet to the end of its session, as a task of `tasks`.
    pub(crate) fn spawn(&self, incoming: Incoming, tasks: &Tasks) {
        let span = info_span!("agent", remote = %incoming.remote_addr());
        let (admission, max_streams) = (Arc::clone(&self.admission), self.max_streams);
        let serve = async move {
            let session = incoming
                .handshake()
                .await
                .and_then(|connection| Session::over_quic(connection, max_streams));
            match session {
                Ok(session) => admission.serve(session).await,
                Err(error) => admission.handshake_failed(&error),
            }
        };
        tasks.spawn("agent", serve.instrument(span));
    }

    /// Closes what is still open and waits until the agents have acknowledged it, at most `limit`.
    pub(crate) async fn close(&self, reason: &str, limit: Duration) {
        self.listener.close(SessionCode::Closed, reason);
        self.listener.close_acknowledged(limit).await;
    }
}

impl Accept for QuicAgents {
    type Item = Incoming;

    async fn accept(&self) -> Result<Incoming, AcceptError> {
        self.listener.accept().await.ok_or(AcceptError::Closed)
    }
}
