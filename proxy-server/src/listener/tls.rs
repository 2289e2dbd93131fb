//! Clients over TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use towline_tls::ConfigError;
use towline_tls::identity::Identity;
use towline_tls::load::{Credentials, LoadError, PemPath, Roots};
use towline_tunnel::knobs::wait;

use crate::listener::Accepted;
use crate::listener::tcp::TcpDoor;

/// A client's TLS connection.
pub type ServerTlsStream = TlsStream<TcpStream>;

/// Flags of `tls://` listeners.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Clients over TLS")]
pub struct TlsArgs {
    /// Certificate chain (PEM) that clients on tls:// see.
    #[arg(long, env = "TOWLINE_TLS_CERT_FILE", value_name = "FILE")]
    #[arg(requires = "tls_private_key_file")]
    pub tls_cert_file: Option<std::path::PathBuf>,

    /// Private key (PEM) of --tls-cert-file.
    #[arg(long, env = "TOWLINE_TLS_PRIVATE_KEY_FILE", value_name = "FILE")]
    #[arg(requires = "tls_cert_file")]
    pub tls_private_key_file: Option<std::path::PathBuf>,

    /// Authorities (PEM) of the clients' certificates; with it every client must show one.
    #[arg(long, env = "TOWLINE_TLS_CLIENT_CA_FILE", value_name = "FILE")]
    #[arg(requires = "tls_cert_file")]
    pub tls_client_ca_file: Option<std::path::PathBuf>,

    /// How long a client's TLS handshake may take.
    #[arg(
        long,
        env = "TOWLINE_TLS_HANDSHAKE_TIMEOUT",
        value_name = "TIME",
        default_value = "10s"
    )]
    #[arg(value_parser = wait)]
    pub tls_handshake_timeout: Duration,
}

/// What every `tls://` listener shows and asks for.
#[derive(Debug, Clone)]
pub struct TlsConfig {
    handshake: Handshake,
    asks_for_certificates: bool,
}

/// Why there is no [`TlsConfig`].
#[derive(Debug, Error)]
pub enum TlsConfigError {
    /// A file cannot be used.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The files do not make a configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// A TCP socket that listens, and the handshake of its connections.
#[derive(Debug)]
pub struct TlsDoor {
    door: TcpDoor,
    config: TlsConfig,
}

/// A handshake that is still to be done.
#[derive(Clone)]
pub struct Handshake {
    acceptor: TlsAcceptor,
    limit: Duration,
}

// === impl TlsConfig ===

impl TlsConfig {
    /// Loads the files; nothing when no certificate is given.
    ///
    /// # Errors
    /// Which file of which flag is unusable, and why.
    pub fn load(args: &TlsArgs) -> Result<Option<Self>, TlsConfigError> {
        let (Some(cert), Some(key)) = (&args.tls_cert_file, &args.tls_private_key_file) else {
            return Ok(None);
        };
        let credentials = Credentials::load(
            &PemPath {
                flag: "--tls-cert-file",
                path: cert.clone(),
            },
            &PemPath {
                flag: "--tls-private-key-file",
                path: key.clone(),
            },
        )?;
        let roots = args
            .tls_client_ca_file
            .as_ref()
            .map(|path| {
                Roots::load(&PemPath {
                    flag: "--tls-client-ca-file",
                    path: path.clone(),
                })
            })
            .transpose()?;
        let config = towline_tls::tcp_server(&credentials, roots.as_ref())?;
        let limit = args.tls_handshake_timeout;
        Ok(Some(Self {
            handshake: Handshake {
                acceptor: TlsAcceptor::from(config),
                limit,
            },
            asks_for_certificates: roots.is_some(),
        }))
    }
}

// === impl TlsDoor ===

impl TlsDoor {
    /// Listens on `address`.
    ///
    /// # Errors
    /// What the system says, for example that the port is taken.
    pub fn bind(address: SocketAddr, config: TlsConfig) -> io::Result<Self> {
        Ok(Self {
            door: TcpDoor::bind(address)?,
            config,
        })
    }

    /// The address with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.door.local_addr()
    }

    /// Whether clients must show a certificate.
    pub fn asks_for_certificates(&self) -> bool {
        self.config.asks_for_certificates
    }

    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        let (stream, address) = self.door.accept_raw().await?;
        Ok(Accepted::tls(
            stream,
            address,
            self.config.handshake.clone(),
        ))
    }
}

// === impl Handshake ===

impl Handshake {
    /// Runs the handshake within its deadline; says who the client is when it showed a certificate.
    pub(super) async fn run(
        self,
        stream: TcpStream,
    ) -> io::Result<(Box<ServerTlsStream>, Option<Arc<str>>)> {
        let stream = timeout(self.limit, self.acceptor.accept(stream))
            .await
            .map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))??;
        let identity = match stream
            .get_ref()
            .1
            .peer_certificates()
            .and_then(<[_]>::first)
        {
            None => None,
            Some(leaf) => {
                let identity = Identity::of(leaf).map_err(io::Error::other)?;
                Some(identity.name().into())
            }
        };
        Ok((Box::new(stream), identity))
    }
}

impl std::fmt::Debug for Handshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handshake")
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}
