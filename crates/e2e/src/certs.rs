//! One throw-away CA per test, with the certificates of servers, agents and clients on disk.

use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::version::TLS12;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use towline_tls::devcerts::{DevCerts, Issued, Profile, Validity};
use towline_tls::load::Credentials;

/// The certificates of a test, in a folder that is removed when this is dropped.
#[derive(Debug)]
pub struct Certs {
    dir: TempDir,
    made: DevCerts,
}

// === impl Certs ===

impl Certs {
    /// Makes a new CA and its certificates.
    ///
    /// # Panics
    /// When they cannot be made or written.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let made = DevCerts::generate(Validity::days(1)).expect("certificates");
        made.write(dir.path()).expect("a writable folder");
        Self { dir, made }
    }

    /// The path of `ca.pem`, `server.pem`, `server-key.pem`, `agent.pem`, `client.pem`, …
    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// The path as a flag's value.
    ///
    /// # Panics
    /// When the temporary folder's name is not UTF-8.
    pub fn flag(&self, file: &str) -> String {
        self.path(file).to_str().expect("UTF-8").to_owned()
    }

    /// One more certificate of this CA.
    ///
    /// # Panics
    /// When the profile makes no certificate.
    pub fn issue(&self, profile: &Profile) -> Issued {
        self.made.ca.issue(profile).expect("a good profile")
    }

    /// The usual client's certificate.
    pub fn client(&self) -> Credentials {
        self.made.client.credentials()
    }

    /// The configuration of a TLS server that asks for no client certificate.
    ///
    /// # Panics
    /// Never: such a configuration needs no verifier.
    pub fn tls_server(&self) -> Arc<ServerConfig> {
        towline_tls::tcp_server(
            &self.made.server.credentials(),
            None,
            &[towline_tls::HTTP_1_1],
        )
        .expect("no verifier")
    }

    /// A TLS client that trusts this CA, with or without the client certificate.
    pub fn connector(&self, certificate: bool) -> TlsConnector {
        let client = certificate.then(|| self.client());
        self.connector_as(client.as_ref())
    }

    /// A TLS client that trusts this CA and shows these credentials.
    pub fn connector_as(&self, credentials: Option<&Credentials>) -> TlsConnector {
        let roots = self.made.ca.roots();
        TlsConnector::from(towline_tls::tcp_client(&roots, credentials))
    }

    /// A TLS client with the client certificate that offers TLS 1.2 at most.
    ///
    /// # Panics
    /// When the certificates are not usable.
    pub fn old_connector(&self) -> TlsConnector {
        let client = &self.made.client;
        let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes());
        let mut roots = RootCertStore::empty();
        roots
            .add(certificate(self.made.ca.pem()).expect("a certificate"))
            .expect("an authority");
        let key = PrivateKeyDer::from_pem_slice(client.key_pem.as_bytes()).expect("a key");
        let chain = vec![certificate(&client.certificate_pem).expect("a certificate")];
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&TLS12])
            .expect("the provider knows TLS 1.2")
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .expect("a key that fits");
        TlsConnector::from(Arc::new(config))
    }
}

impl Default for Certs {
    fn default() -> Self {
        Self::new()
    }
}
