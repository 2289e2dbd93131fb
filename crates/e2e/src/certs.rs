//! One throw-away CA per test, with everybody's certificates on disk.

use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;
use tokio_rustls::TlsConnector;
use towline_tls::devcerts::{DevCerts, Validity};
use towline_tls::load::{Credentials, PemPath, Roots};

/// The certificates of a test, in a folder that goes with it.
#[derive(Debug)]
pub struct Certs {
    dir: TempDir,
}

// === impl Certs ===

impl Certs {
    /// Makes a new CA and its certificates.
    ///
    /// # Panics
    /// When they cannot be made or written.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        DevCerts::generate(Validity::days(1))
            .expect("certificates")
            .write(dir.path())
            .expect("a writable folder");
        Self { dir }
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

    /// A TLS client that trusts this CA, with the client certificate or without one.
    ///
    /// # Panics
    /// When the files were tampered with.
    pub fn connector(&self, certificate: bool) -> TlsConnector {
        let file = |name| PemPath {
            flag: "test",
            path: self.path(name),
        };
        let roots = Roots::load(&file("ca.pem")).expect("roots");
        let credentials = certificate.then(|| {
            Credentials::load(&file("client.pem"), &file("client-key.pem")).expect("credentials")
        });
        let config = towline_tls::tcp_client(&roots, credentials.as_ref());
        TlsConnector::from(Arc::clone(&config))
    }
}

impl Default for Certs {
    fn default() -> Self {
        Self::new()
    }
}
