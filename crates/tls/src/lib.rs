//! Certificates and keys in, rustls configurations out.
//!
//! The only place that chooses the crypto provider (aws-lc-rs), protocol versions, key exchange,
//! cipher order and ALPN. Every configuration is made here with the same provider, passed
//! explicitly, so nothing depends on a process-wide default.
//!
//! There is no 0-RTT (it can be replayed) and no session resumption: a resumed session would skip
//! the check of the client's certificate, and outlive its expiry or the removal of its root.
//! Sessions live for hours, so one full handshake costs nothing that can be measured.

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

/// AES-128-GCM first: the cheapest with AES instructions, which every server machine has, and
/// strong enough; a larger key buys nothing against today's attacks.
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

/// QUIC is defined for TLS 1.3 only (RFC 9001 §4.2).
const QUIC_VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13];

/// TLS 1.2 is for clients that we do not choose.
const TCP_VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// What is spoken inside TLS over TCP; peers that send no ALPN are served as well.
const HTTP_1_1: &[u8] = b"http/1.1";

/// A server configuration that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The roots do not make a verifier of client certificates.
    #[error("client certificates cannot be verified: {0}")]
    Verifier(VerifierBuilderError),
}

/// For QUIC, towards agents: TLS 1.3, and a certificate from `clients` is required.
///
/// # Errors
///
/// The roots do not make a verifier.
pub fn quic_server(
    credentials: &Credentials,
    clients: &Roots,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, ConfigError> {
    server(credentials, Some(clients), QUIC_VERSIONS, alpn)
}

/// For QUIC, towards a server: TLS 1.3, showing `credentials`, trusting `servers`.
pub fn quic_client(
    credentials: &Credentials,
    servers: &Roots,
    alpn: &[&[u8]],
) -> Arc<ClientConfig> {
    client(servers, Some(credentials), QUIC_VERSIONS, alpn)
}

/// For TCP, towards clients: TLS 1.2 and 1.3, ALPN `http/1.1`. With roots a client certificate is
/// required; without, none is asked for.
///
/// # Errors
///
/// The roots do not make a verifier.
pub fn tcp_server(
    credentials: &Credentials,
    clients: Option<&Roots>,
) -> Result<Arc<ServerConfig>, ConfigError> {
    server(credentials, clients, TCP_VERSIONS, &[HTTP_1_1])
}

/// For TCP, towards a server: TLS 1.2 and 1.3, ALPN `http/1.1`, trusting `servers`.
pub fn tcp_client(servers: &Roots, credentials: Option<&Credentials>) -> Arc<ClientConfig> {
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
    // Else a peer with another taste (OpenSSL: AES-256 first) would choose.
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
        // The hybrid first: what is recorded today stays secret from tomorrow's quantum computers.
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
