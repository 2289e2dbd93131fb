//! Development certificates for the quick start, the demonstration and the tests.
//!
//! [`DevCerts`] is the usual set: an authority whose key is not written, and a server, an agent and
//! a client. [`DevCa`] and [`Profile`] make other certificates for tests: expired, not yet valid,
//! of another authority, for another name, with more identities.

mod profile;

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

pub use self::profile::{Profile, Validity};
use crate::load::{Credentials, PemPath, Roots};

/// The names of [`DevCerts::server`]; the programs of the quick start dial the first two.
pub const SERVER_NAMES: &[&str] = &[
    "localhost",
    "quic-tunnel-server",
    "proxy-server",
    "127.0.0.1",
    "::1",
];

/// The identity of [`DevCerts::agent`].
pub const AGENT_URI: &str = "spiffe://towline.test/agent";

/// The identity of [`DevCerts::client`].
pub const CLIENT_URI: &str = "spiffe://towline.test/client";

/// Keys can be read by their owner alone, from the moment that the file exists.
const KEY_MODE: u32 = 0o600;
const CERTIFICATE_MODE: u32 = 0o644;

/// A certificate authority; its key exists in memory only.
pub struct DevCa {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

/// A certificate and its key, in memory.
#[derive(Clone)]
pub struct Issued {
    /// The certificate as PEM.
    pub certificate_pem: String,
    /// The private key as PEM (PKCS#8).
    pub key_pem: String,
    credentials: Credentials,
}

/// The set of the quick start.
#[derive(Debug)]
pub struct DevCerts {
    /// The authority that issued the three below, and can issue more.
    pub ca: DevCa,
    /// For proxy-server, with [`SERVER_NAMES`].
    pub server: Issued,
    /// For agents, with [`AGENT_URI`].
    pub agent: Issued,
    /// For clients, with [`CLIENT_URI`].
    pub client: Issued,
}

/// The certificates could not be made or written.
#[derive(Debug, thiserror::Error)]
pub enum DevCertsError {
    /// A name is not valid in a certificate, or the system has no randomness.
    #[error("cannot make a certificate: {0}")]
    Generate(#[from] rcgen::Error),
    /// The certificate that was made is refused by rustls.
    #[error("cannot use the certificate made: {0}")]
    Unusable(#[from] rustls::Error),
    /// The file exists, and is not overwritten: it may be the only copy of a key.
    #[error("{0:?} exists already")]
    Exists(PathBuf),
    /// The file or folder cannot be written.
    #[error("cannot write {path:?}: {error}")]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system reported.
        error: io::Error,
    },
}

// === impl DevCa ===

impl DevCa {
    /// Makes an authority with a new key (ECDSA P-256) and a unique name.
    ///
    /// # Errors
    ///
    /// The system has no randomness.
    pub fn generate(validity: Validity) -> Result<Self, DevCertsError> {
        let key = KeyPair::generate()?;
        let mut params = validity.params();
        // Verifiers expect authorities with different keys to have different names. The first byte
        // of the key is the same for all: it is the encoding of the point.
        let tag: String = key
            .public_key_raw()
            .iter()
            .skip(1)
            .take(4)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        params
            .distinguished_name
            .push(DnType::CommonName, format!("Towline development CA {tag}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            pem: certificate.pem(),
            certificate: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        })
    }

    /// Issues one certificate with a new key.
    ///
    /// # Errors
    ///
    /// A name of the profile is not valid in a certificate.
    pub fn issue(&self, profile: &Profile) -> Result<Issued, DevCertsError> {
        let key = KeyPair::generate()?;
        let certificate = profile.params()?.signed_by(&key, &self.issuer)?;
        let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(Issued {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            credentials: Credentials::from_parts(vec![certificate.der().clone()], &der)?,
        })
    }

    /// The certificate of the authority as PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Roots that trust this authority alone.
    pub fn roots(&self) -> Roots {
        Roots::from_certificates(std::slice::from_ref(&self.certificate))
            .expect("generate made a certificate that parses")
    }

    /// Writes the certificate, not the key, to a new file.
    ///
    /// # Errors
    ///
    /// The file exists or cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), DevCertsError> {
        write_new(path, CERTIFICATE_MODE, &self.pem)
    }
}

impl fmt::Debug for DevCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DevCa { key: redacted }")
    }
}

// === impl Issued ===

impl Issued {
    /// The credentials for a configuration; the dates are not checked.
    pub fn credentials(&self) -> Credentials {
        self.credentials.clone()
    }

    /// The certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        self.credentials
            .chain()
            .first()
            .expect("issue made a chain of one")
    }

    /// Writes `NAME.pem` and `NAME-key.pem` into a folder that exists, and returns their paths as
    /// the values of `--cert-file` and `--cert-key`.
    ///
    /// # Errors
    ///
    /// A file exists or cannot be written.
    pub fn write(&self, dir: &Path, name: &str) -> Result<(PemPath, PemPath), DevCertsError> {
        let cert = dir.join(format!("{name}.pem"));
        let key = dir.join(format!("{name}-key.pem"));
        write_new(&cert, CERTIFICATE_MODE, &self.certificate_pem)?;
        write_new(&key, KEY_MODE, &self.key_pem)?;
        Ok((
            PemPath {
                flag: "--cert-file",
                path: cert,
            },
            PemPath {
                flag: "--cert-key",
                path: key,
            },
        ))
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Issued { key: redacted }")
    }
}

// === impl DevCerts ===

impl DevCerts {
    /// The files that [`DevCerts::write`] makes.
    pub const FILES: &[&str] = &[
        "ca.pem",
        "server.pem",
        "server-key.pem",
        "agent.pem",
        "agent-key.pem",
        "client.pem",
        "client-key.pem",
    ];

    /// Makes the set; all certificates have this validity.
    ///
    /// # Errors
    ///
    /// The system has no randomness.
    pub fn generate(validity: Validity) -> Result<Self, DevCertsError> {
        let ca = DevCa::generate(validity)?;
        let server = Profile::server(SERVER_NAMES).common_name("proxy-server");
        let agent = Profile::client().uri(AGENT_URI).common_name("agent");
        let client = Profile::client().uri(CLIENT_URI).common_name("client");
        Ok(Self {
            server: ca.issue(&server.valid(validity))?,
            agent: ca.issue(&agent.valid(validity))?,
            client: ca.issue(&client.valid(validity))?,
            ca,
        })
    }

    /// Writes [`DevCerts::FILES`] into a folder, which is created if needed. Keys have mode 0600;
    /// the key of the authority is not written.
    ///
    /// # Errors
    ///
    /// One of the files exists (then nothing is written), or cannot be written.
    pub fn write(&self, dir: &Path) -> Result<(), DevCertsError> {
        fs::create_dir_all(dir).map_err(|error| DevCertsError::Write {
            path: dir.to_owned(),
            error,
        })?;
        for file in Self::FILES {
            let path = dir.join(file);
            if path.symlink_metadata().is_ok() {
                return Err(DevCertsError::Exists(path));
            }
        }
        self.ca.write(&dir.join("ca.pem"))?;
        for (issued, name) in [
            (&self.server, "server"),
            (&self.agent, "agent"),
            (&self.client, "client"),
        ] {
            issued.write(dir, name)?;
        }
        Ok(())
    }
}

fn write_new(path: &Path, mode: u32, text: &str) -> Result<(), DevCertsError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => DevCertsError::Exists(path.to_owned()),
            _ => DevCertsError::Write {
                path: path.to_owned(),
                error,
            },
        })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_written_set_loads_and_its_keys_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("made/on/demand");
        DevCerts::generate(Validity::days(1))
            .unwrap()
            .write(&out)
            .unwrap();
        let mut files: Vec<_> = fs::read_dir(&out)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        files.sort();
        let mut expected = DevCerts::FILES.to_vec();
        expected.sort_unstable();
        assert_eq!(files, expected);
        for name in ["server", "agent", "client"] {
            let cert = PemPath {
                flag: "--cert-file",
                path: out.join(format!("{name}.pem")),
            };
            let key = PemPath {
                flag: "--cert-key",
                path: out.join(format!("{name}-key.pem")),
            };
            let mode = fs::metadata(&key.path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
            Credentials::load(&cert, &key).unwrap();
        }
        Roots::load(&PemPath {
            flag: "--ca-file",
            path: out.join("ca.pem"),
        })
        .unwrap();
    }

    #[test]
    fn nothing_is_overwritten_and_then_nothing_is_written() {
        for file in DevCerts::FILES {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(file);
            fs::write(&path, "precious").unwrap();
            let certs = DevCerts::generate(Validity::days(1)).unwrap();
            let error = certs.write(dir.path()).unwrap_err();
            assert_eq!(error.to_string(), format!("{path:?} exists already"));
            assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn one_pair_does_not_overwrite_either() {
        let dir = tempfile::tempdir().unwrap();
        let certs = DevCerts::generate(Validity::days(1)).unwrap();
        certs.agent.write(dir.path(), "extra").unwrap();
        let error = certs.client.write(dir.path(), "extra").unwrap_err();
        assert!(matches!(error, DevCertsError::Exists(_)), "{error}");
        let kept = fs::read_to_string(dir.path().join("extra-key.pem")).unwrap();
        assert_eq!(kept, certs.agent.key_pem);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let certs = DevCerts::generate(Validity::days(1)).unwrap();
        let error = certs.write(&file).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("cannot write {file:?}: File exists (os error 17)")
        );
    }

    #[test]
    fn a_name_that_no_certificate_can_hold_is_an_error() {
        let ca = DevCa::generate(Validity::days(1)).unwrap();
        let error = ca.issue(&Profile::client().dns("\u{fc}")).unwrap_err();
        assert!(matches!(error, DevCertsError::Generate(_)), "{error}");
    }
}
