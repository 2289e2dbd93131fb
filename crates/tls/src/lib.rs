//! Certificates and keys in, rustls configurations out.
//!
//! The only crate that chooses the crypto provider (aws-lc-rs), protocol versions, key exchange,
//! cipher order and ALPN. Every configuration is made here with the same provider, passed
//! explicitly, so nothing depends on a process-wide default. A configuration is a function of the
//! values that [`load`] returns: after a reload of these, make a new one and swap it whole.
//!
//! There is no 0-RTT (it can be replayed) and no session resumption: a resumed session skips the
//! check of the client's certificate, so it would outlive the expiry of the certificate or the
//! removal of its root. Sessions last for hours, so the cost of full handshakes is negligible.

pub mod devcerts;
pub mod identity;
pub mod load;

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};

pub use crate::identity::{Identity, IdentityError};
pub use crate::load::{Credentials, LoadError, PemBytes, PemPath, Roots};

/// AES-128-GCM first: the cheapest cipher on machines with AES instructions. A longer key adds no
/// protection against known attacks.
const CIPHER_SUITES: &[SupportedCipherSuite] = &[
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// QUIC requires TLS 1.3 (RFC 9001 §4.2).
const QUIC_VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13];

/// TLS 1.2 is for clients that cannot be upgraded with the server.
const TCP_VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// The ALPN protocol of HTTP/1.1 (RFC 7301 §6).
pub const HTTP_1_1: &[u8] = b"http/1.1";

/// A server's side of TLS, as [`quic_server`] and [`tcp_server`] make it.
pub type ServerTls = Arc<ServerConfig>;

/// A client's side of TLS, as [`quic_client`] and [`tcp_client`] make it.
pub type ClientTls = Arc<ClientConfig>;

/// A server configuration could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No verifier of client certificates can be made from the roots.
    #[error("client certificates cannot be verified: {0}")]
    Verifier(VerifierBuilderError),
}

/// Configuration of a QUIC server for agents: TLS 1.3, and a client certificate that one of
/// `clients` issued is required.
///
/// # Errors
///
/// No verifier can be made from the roots.
pub fn quic_server(
    credentials: &Credentials,
    clients: &Roots,
    alpn: &[&[u8]],
) -> Result<ServerTls, ConfigError> {
    server(credentials, Some(clients), QUIC_VERSIONS, alpn)
}

/// Configuration of a QUIC client: TLS 1.3, presents `credentials`, trusts servers whose
/// certificate one of `servers` issued.
pub fn quic_client(credentials: &Credentials, servers: &Roots, alpn: &[&[u8]]) -> ClientTls {
    client(servers, Some(credentials), QUIC_VERSIONS, alpn)
}

/// Configuration of a TCP server for clients: TLS 1.2 and 1.3, these ALPN protocols, the preferred
/// one first. With roots, a client certificate is required; without, none is requested.
///
/// # Errors
///
/// No verifier can be made from the roots.
pub fn tcp_server(
    credentials: &Credentials,
    clients: Option<&Roots>,
    alpn: &[&[u8]],
) -> Result<ServerTls, ConfigError> {
    server(credentials, clients, TCP_VERSIONS, alpn)
}

/// Configuration of a TCP client: TLS 1.2 and 1.3, ALPN `http/1.1`, trusts servers whose
/// certificate one of `servers` issued.
pub fn tcp_client(servers: &Roots, credentials: Option<&Credentials>) -> ClientTls {
    client(servers, credentials, TCP_VERSIONS, &[HTTP_1_1])
}

fn server(
    credentials: &Credentials,
    clients: Option<&Roots>,
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, ConfigError> {
    let provider = provider();
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .expect("the provider has cipher suites for every version used");
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(roots) => builder.with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(roots.store(), provider)
                .build()
                .map_err(ConfigError::Verifier)?,
        ),
    };
    let mut config =
        builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(credentials.certified())));
    config.alpn_protocols = owned(alpn);
    // Otherwise the order of the client decides (OpenSSL: AES-256 first).
    config.ignore_client_order = true;
    config.max_early_data_size = 0;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

fn client(
    servers: &Roots,
    credentials: Option<&Credentials>,
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&[u8]],
) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .expect("the provider has cipher suites for every version used")
        .with_root_certificates(servers.store());
    let mut config = match credentials {
        None => builder.with_no_client_auth(),
        Some(own) => {
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own.certified())))
        }
    };
    config.alpn_protocols = owned(alpn);
    config.enable_early_data = false;
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: CIPHER_SUITES.to_vec(),
        // The post-quantum hybrid first: recorded traffic stays safe from later quantum attacks.
        kx_groups: vec![
            kx_group::X25519MLKEM768,
            kx_group::X25519,
            kx_group::SECP256R1,
            kx_group::SECP384R1,
        ],
        ..aws_lc_rs::default_provider()
    })
}

fn owned(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|protocol| protocol.to_vec()).collect()
}
