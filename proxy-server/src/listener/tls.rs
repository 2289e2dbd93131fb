//! Clients over TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use towline_quic::args::wait;
use towline_tls::identity::Identity;
use towline_tls::load::{Credentials, LoadError, PemPath, Roots};
use towline_tls::{ConfigError, tcp_server};

use crate::listener::Accepted;
use crate::listener::tcp::TcpListener;

/// A client's TLS connection.
pub type ServerTlsStream = TlsStream<TcpStream>;

/// Flags of `tls://` listeners.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Clients over TLS")]
pub struct TlsArgs {
    /// Certificate chain (PEM) that clients on tls:// see; required for a tls:// listener.
    #[arg(long, env = "TOWLINE_TLS_CERT_FILE", value_name = "FILE")]
    #[arg(requires = "tls_private_key_file")]
    pub tls_cert_file: Option<std::path::PathBuf>,

    /// Private key (PEM) of --tls-cert-file.
    #[arg(long, env = "TOWLINE_TLS_PRIVATE_KEY_FILE", value_name = "FILE")]
    #[arg(requires = "tls_cert_file")]
    pub tls_private_key_file: Option<std::path::PathBuf>,

    /// Authorities (PEM) of the clients' certificates; with it every client must present one.
    ///
    /// Set it on every tls:// listener that other machines can reach.
    #[arg(long, env = "TOWLINE_TLS_CLIENT_CA_FILE", value_name = "FILE")]
    #[arg(requires = "tls_cert_file")]
    pub tls_client_ca_file: Option<std::path::PathBuf>,

    /// How long a client's TLS handshake may take; raise it for clients on slow links.
    #[arg(
        long,
        env = "TOWLINE_TLS_HANDSHAKE_TIMEOUT",
        value_name = "TIME",
        default_value = "10s"
    )]
    #[arg(value_parser = wait)]
    pub tls_handshake_timeout: Duration,
}

/// The certificates that every `tls://` listener presents and requires.
#[derive(Debug, Clone)]
pub struct TlsConfig {
    credentials: Credentials,
    /// Authorities of the clients' certificates; without them clients need none.
    roots: Option<Roots>,
    limit: Duration,
}

/// The TLS of one listener.
#[derive(Debug, Clone)]
pub struct ListenerTls {
    handshake: Handshake,
    requires_certificates: bool,
}

/// A TCP socket that listens, and the handshake of its connections.
#[derive(Debug)]
pub struct TlsListener {
    tcp: TcpListener,
    tls: ListenerTls,
}

/// What a client's TLS handshake told.
#[derive(Debug, Clone)]
pub struct TlsInfo {
    /// The server name that the client asked for (SNI, RFC 6066 §3).
    pub server_name: Option<Arc<str>>,
    /// The application protocol that both agreed on (ALPN, RFC 7301).
    pub alpn: Option<Vec<u8>>,
    /// The client's name by its verified certificate, where the listener asks for one.
    pub identity: Option<Arc<str>>,
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
    pub fn load(args: &TlsArgs) -> Result<Option<Self>, LoadError> {
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
        Ok(Some(Self {
            credentials,
            roots,
            limit: args.tls_handshake_timeout,
        }))
    }

    /// The TLS of a listener that speaks these application protocols (ALPN), the preferred first.
    ///
    /// # Errors
    /// When the authorities make no verifier.
    pub fn listener(&self, alpn: &[&[u8]]) -> Result<ListenerTls, ConfigError> {
        let config = tcp_server(&self.credentials, self.roots.as_ref(), alpn)?;
        Ok(ListenerTls {
            handshake: Handshake {
                acceptor: TlsAcceptor::from(config),
                limit: self.limit,
            },
            requires_certificates: self.roots.is_some(),
        })
    }
}

// === impl TlsListener ===

impl TlsListener {
    /// Listens on `address`.
    ///
    /// # Errors
    /// What the system says, for example that the port is taken.
    pub fn bind(address: SocketAddr, tls: ListenerTls) -> io::Result<Self> {
        Ok(Self {
            tcp: TcpListener::bind(address)?,
            tls,
        })
    }

    /// The address with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.tcp.local_addr()
    }

    /// Whether clients must present a certificate.
    pub fn requires_certificates(&self) -> bool {
        self.tls.requires_certificates
    }

    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        let (stream, address) = self.tcp.accept_raw().await?;
        Ok(Accepted::tls(stream, address, self.tls.handshake.clone()))
    }
}

// === impl Handshake ===

impl Handshake {
    /// Runs the handshake within its deadline.
    pub(super) async fn run(
        self,
        stream: TcpStream,
    ) -> io::Result<(Box<ServerTlsStream>, TlsInfo)> {
        let stream = timeout(self.limit, self.acceptor.accept(stream))
            .await
            .map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))??;
        let (_, session) = stream.get_ref();
        let identity = match session.peer_certificates().and_then(<[_]>::first) {
            None => None,
            Some(leaf) => {
                let identity = Identity::of(leaf).map_err(io::Error::other)?;
                Some(identity.name().into())
            }
        };
        let info = TlsInfo {
            server_name: session.server_name().map(Arc::from),
            alpn: session.alpn_protocol().map(<[u8]>::to_vec),
            identity,
        };
        Ok((Box::new(stream), info))
    }
}

impl std::fmt::Debug for Handshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handshake")
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}
