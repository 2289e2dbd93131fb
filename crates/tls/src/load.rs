//! PEM files in, certificate chains, keys and roots out.
//!
//! Everything that would make a peer refuse the handshake later is refused here, at start, with
//! one line that names the flag, the file and the reason.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The largest PEM file read, in bytes; a system's whole bundle of roots is a fifth of it.
pub const MAX_FILE: u64 = 1024 * 1024;

/// A PEM file and the command-line flag that named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PemPath {
    /// The flag as typed, for example `--cert-file`.
    pub flag: &'static str,
    /// Where the file is.
    pub path: PathBuf,
}

/// What this process proves its identity with: a certificate chain, leaf first, and its key.
#[derive(Clone)]
pub struct Credentials(Arc<CertifiedKey>);

/// The certificate authorities that a peer's certificate may come from; never empty.
#[derive(Clone)]
pub struct Roots(Arc<RootCertStore>);

/// A file that cannot be used. `Display` is the whole story in one line.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {reason}")]
pub struct LoadError {
    /// The file to look at.
    pub file: PemPath,
    /// What is wrong with it.
    pub reason: LoadReason,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadReason {
    /// The operating system does not give us its bytes.
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    /// It is larger than [`MAX_FILE`].
    #[error("is larger than {MAX_FILE} bytes")]
    TooLarge,
    /// It has PEM sections that are cut short or not base64.
    #[error("is not valid PEM: {0}")]
    Malformed(&'static str),
    /// It has no PEM section of the kind looked for.
    #[error("holds no {0}")]
    Missing(&'static str),
    /// It has a section of the right kind that cannot serve.
    #[error("{item} cannot be used: {detail}")]
    Unusable {
        /// Which section, for example `certificate 2`.
        item: String,
        /// What the parser said; never key material.
        detail: String,
    },
    /// The key is not the one that the certificate was made for.
    #[error("does not belong to the certificate in {0}")]
    Mismatch(PemPath),
    /// A certificate's validity starts in the future.
    #[error("certificate {position} is not valid before {date}")]
    NotYetValid {
        /// Its place in the file, from 1.
        position: usize,
        /// The first moment of its validity.
        date: Date,
    },
    /// A certificate's validity is over.
    #[error("certificate {position} expired on {date}")]
    Expired {
        /// Its place in the file, from 1.
        position: usize,
        /// The last moment of its validity.
        date: Date,
    },
}

/// A moment as certificates have it, shown as `2026-01-31 23:59:59 UTC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date(OffsetDateTime);

// === impl PemPath ===

impl PemPath {
    fn fails(&self, reason: LoadReason) -> LoadError {
        LoadError {
            file: self.clone(),
            reason,
        }
    }
}

impl fmt::Display for PemPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.flag, self.path)
    }
}

// === impl Credentials ===

impl Credentials {
    /// Reads a chain (leaf first) and its private key (the first one in the file; PKCS#8, PKCS#1
    /// or SEC1, not encrypted).
    ///
    /// # Errors
    ///
    /// A file is unreadable, larger than [`MAX_FILE`], malformed or without what it is for; the
    /// key is not the leaf's; a certificate of the chain is not yet or no longer valid.
    pub fn load(cert: &PemPath, key: &PemPath) -> Result<Self, LoadError> {
        Self::load_at(cert, key, SystemTime::now().into())
    }

    fn load_at(cert: &PemPath, key: &PemPath, now: OffsetDateTime) -> Result<Self, LoadError> {
        let chain = read_certificates(cert)?;
        let signer = aws_lc_rs::sign::any_supported_type(&read_key(key)?).map_err(|_| {
            key.fails(unusable(
                "private key",
                &"not RSA of 2048 to 8192 bits, ECDSA or Ed25519",
            ))
        })?;
        let certified = CertifiedKey::new(chain, signer);
        certified.keys_match().map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => key.fails(LoadReason::Mismatch(cert.clone())),
            other => cert.fails(unusable("certificate 1", &other)),
        })?;
        for (index, der) in certified.cert.iter().enumerate() {
            check_dates(index + 1, der, now).map_err(|reason| cert.fails(reason))?;
        }
        Ok(Self(Arc::new(certified)))
    }

    /// Whatever the dates say: the development certificates include expired ones.
    pub(crate) fn from_parts(
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'static>,
    ) -> Result<Self, rustls::Error> {
        let certified = CertifiedKey::new(chain, aws_lc_rs::sign::any_supported_type(key)?);
        certified.keys_match()?;
        Ok(Self(Arc::new(certified)))
    }

    /// The certificates that a peer is shown, leaf first; at least one.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.0.cert
    }

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Credentials {{ chain: {} certificates, key: redacted }}",
            self.0.cert.len()
        )
    }
}

// === impl Roots ===

impl Roots {
    /// Reads a bundle of authorities. Expired ones are left out, for they can never serve again;
    /// a bundle may hold the old and the new authority during a rotation.
    ///
    /// # Errors
    ///
    /// The file is unreadable, larger than [`MAX_FILE`], malformed, without a certificate, or all
    /// of them have expired.
    pub fn load(file: &PemPath) -> Result<Self, LoadError> {
        Self::load_at(file, SystemTime::now().into())
    }

    fn load_at(file: &PemPath, now: OffsetDateTime) -> Result<Self, LoadError> {
        let mut current = Vec::new();
        let mut expired = None;
        for (index, der) in read_certificates(file)?.into_iter().enumerate() {
            match check_dates(index + 1, &der, now) {
                Ok(()) | Err(LoadReason::NotYetValid { .. }) => current.push(der),
                Err(reason @ LoadReason::Expired { .. }) => expired = Some(reason),
                Err(reason) => return Err(file.fails(reason)),
            }
        }
        match expired {
            Some(reason) if current.is_empty() => Err(file.fails(reason)),
            _ => Self::from_certificates(&current)
                .map_err(|error| file.fails(unusable("a certificate", &error))),
        }
    }

    pub(crate) fn from_certificates(
        certificates: &[CertificateDer<'_>],
    ) -> Result<Self, webpki::Error> {
        let mut store = RootCertStore::empty();
        for der in certificates {
            store
                .roots
                .push(webpki::anchor_from_trusted_cert(der)?.to_owned());
        }
        Ok(Self(Arc::new(store)))
    }

    /// How many authorities are trusted; at least one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn store(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.0)
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots({})", self.len())
    }
}

// === impl Date ===

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (date, (hour, minute, second)) = (self.0.date(), self.0.to_hms());
        write!(f, "{date} {hour:02}:{minute:02}:{second:02} UTC")
    }
}

/// Every certificate of a file, at least one, each accepted by the parser that peers use.
fn read_certificates(file: &PemPath) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let bytes = read(file)?;
    let certificates = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| file.fails(malformed(&error, "certificate")))?;
    if certificates.is_empty() {
        return Err(file.fails(LoadReason::Missing("certificate")));
    }
    for (index, der) in certificates.iter().enumerate() {
        webpki::EndEntityCert::try_from(der)
            .map_err(|error| file.fails(unusable(&format!("certificate {}", index + 1), &error)))?;
    }
    Ok(certificates)
}

fn read_key(file: &PemPath) -> Result<PrivateKeyDer<'static>, LoadError> {
    const ENCRYPTED: &[u8] = b"ENCRYPTED";
    let bytes = read(file)?;
    // Both forms have the word: the PKCS#8 label and the `Proc-Type` line of older files.
    if bytes
        .windows(ENCRYPTED.len())
        .any(|window| window == ENCRYPTED)
    {
        return Err(file.fails(unusable("private key", &"it is encrypted")));
    }
    PrivateKeyDer::from_pem_slice(&bytes)
        .map_err(|error| file.fails(malformed(&error, "private key")))
}

fn read(file: &PemPath) -> Result<Vec<u8>, LoadError> {
    let mut bytes = Vec::new();
    File::open(&file.path)
        .and_then(|open| open.take(MAX_FILE + 1).read_to_end(&mut bytes))
        .map_err(|error| file.fails(LoadReason::Unreadable(error)))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= MAX_FILE) {
        Ok(bytes)
    } else {
        Err(file.fails(LoadReason::TooLarge))
    }
}

/// The library's own texts show lines as lists of byte values, and might show a key's.
fn malformed(error: &pem::Error, wanted: &'static str) -> LoadReason {
    match error {
        pem::Error::NoItemsFound => LoadReason::Missing(wanted),
        pem::Error::MissingSectionEnd { .. } => LoadReason::Malformed("a section has no end line"),
        pem::Error::IllegalSectionStart { .. } => LoadReason::Malformed("a bad BEGIN line"),
        pem::Error::Base64Decode(_) => LoadReason::Malformed("a section is not base64"),
        _ => LoadReason::Malformed("a section cannot be read"),
    }
}

fn unusable(item: &str, detail: &dyn fmt::Display) -> LoadReason {
    LoadReason::Unusable {
        item: item.to_owned(),
        detail: detail.to_string(),
    }
}

fn check_dates(
    position: usize,
    der: &CertificateDer<'_>,
    now: OffsetDateTime,
) -> Result<(), LoadReason> {
    let (_, certificate) = X509Certificate::from_der(der)
        .map_err(|error| unusable(&format!("certificate {position}"), &error))?;
    let first = certificate.validity().not_before.to_datetime();
    let last = certificate.validity().not_after.to_datetime();
    // Certificates count whole seconds, and the last one is included.
    if now.unix_timestamp() < first.unix_timestamp() {
        Err(LoadReason::NotYetValid {
            position,
            date: Date(first),
        })
    } else if now.unix_timestamp() > last.unix_timestamp() {
        Err(LoadReason::Expired {
            position,
            date: Date(last),
        })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::devcerts::{DevCa, Issued, Profile, Validity};

    /// Writes `cert` and `key` into a folder and loads them; the error with the folder cut out.
    fn load_text(cert: &str, key: &str) -> Result<Credentials, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = |flag, name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            PemPath { flag, path }
        };
        let cert = file("--cert-file", "cert.pem", cert);
        let key = file("--cert-key", "key.pem", key);
        Credentials::load(&cert, &key).map_err(|error| line(&error, dir.path()))
    }

    fn line(error: &LoadError, dir: &Path) -> String {
        let line = error
            .to_string()
            .replace(&format!("{}/", dir.display()), "");
        assert!(!line.contains('\n'), "{line:?}");
        line
    }

    fn ca() -> DevCa {
        DevCa::generate(Validity::days(1)).unwrap()
    }

    fn issue(ca: &DevCa) -> Issued {
        ca.issue(&Profile::client().uri("a:b")).unwrap()
    }

    #[test]
    fn each_fault_has_its_line() {
        let ca = ca();
        let (good, other) = (issue(&ca), issue(&ca));
        let (cert, key) = (good.certificate_pem.as_str(), good.key_pem.as_str());
        let cut = |pem: &str| pem[..pem.len() / 2].to_owned();
        let spoilt = |pem: &str| pem.replacen("MI", "!!", 1);
        let section =
            |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
        let huge = " ".repeat(usize::try_from(MAX_FILE).unwrap() + 1);
        let not_der = format!("{cert}{}", section("CERTIFICATE"));
        let cases: &[(&str, &str, &str)] = &[
            ("", key, r#"--cert-file "cert.pem": holds no certificate"#),
            (key, key, r#"--cert-file "cert.pem": holds no certificate"#),
            (cert, "", r#"--cert-key "key.pem": holds no private key"#),
            (cert, cert, r#"--cert-key "key.pem": holds no private key"#),
            (
                &huge,
                key,
                r#"--cert-file "cert.pem": is larger than 1048576 bytes"#,
            ),
            (
                cert,
                &huge,
                r#"--cert-key "key.pem": is larger than 1048576 bytes"#,
            ),
            (
                &cut(cert),
                key,
                r#"--cert-file "cert.pem": is not valid PEM: a section has no end line"#,
            ),
            (
                cert,
                &cut(key),
                r#"--cert-key "key.pem": is not valid PEM: a section has no end line"#,
            ),
            (
                cert,
                &spoilt(key),
                r#"--cert-key "key.pem": is not valid PEM: a section is not base64"#,
            ),
            (
                "-----BEGIN CERTIFICATE\n",
                key,
                r#"--cert-file "cert.pem": is not valid PEM: a bad BEGIN line"#,
            ),
            (
                &not_der,
                key,
                r#"--cert-file "cert.pem": certificate 2 cannot be used: TrailingData(SignedData)"#,
            ),
            (
                cert,
                &section("PRIVATE KEY"),
                "--cert-key \"key.pem\": private key cannot be used: \
                 not RSA of 2048 to 8192 bits, ECDSA or Ed25519",
            ),
            (
                cert,
                &section("ENCRYPTED PRIVATE KEY"),
                r#"--cert-key "key.pem": private key cannot be used: it is encrypted"#,
            ),
            (
                cert,
                &other.key_pem,
                "--cert-key \"key.pem\": does not belong to the certificate in \
                 --cert-file \"cert.pem\"",
            ),
        ];
        for (cert, key, expected) in cases {
            assert_eq!(load_text(cert, key).unwrap_err(), *expected);
        }
        assert_eq!(
            load_text(cert, key).unwrap().chain(),
            [good.certificate().clone()]
        );
    }

    #[test]
    fn a_file_that_cannot_be_read_says_what_the_system_said() {
        let dir = tempfile::tempdir().unwrap();
        let folder = PemPath {
            flag: "--ca-file",
            path: dir.path().join(""),
        };
        let absent = PemPath {
            flag: "--ca-file",
            path: dir.path().join("no\n.pem"),
        };
        let cases = [
            (
                folder,
                r#"--ca-file "": cannot be read: Is a directory (os error 21)"#,
            ),
            (
                absent,
                r#"--ca-file "no\n.pem": cannot be read: No such file or directory (os error 2)"#,
            ),
        ];
        for (file, expected) in cases {
            assert_eq!(line(&Roots::load(&file).unwrap_err(), dir.path()), expected);
        }
    }

    #[test]
    fn the_dates_of_the_whole_chain_are_checked_to_the_second() {
        let ca = ca();
        let dir = tempfile::tempdir().unwrap();
        let leaf = ca
            .issue(&Profile::client().valid(Validity::days(30)))
            .unwrap();
        let (cert, key) = leaf.write(dir.path(), "leaf").unwrap();
        let both = leaf.certificate_pem.clone() + ca.pem();
        fs::write(&cert.path, both).unwrap();
        let dates = |der: &CertificateDer<'_>| {
            let (_, parsed) = X509Certificate::from_der(der).unwrap();
            let validity = parsed.validity();
            (
                validity.not_before.to_datetime(),
                validity.not_after.to_datetime(),
            )
        };
        let at =
            |now| Credentials::load_at(&cert, &key, now).map_err(|error| line(&error, dir.path()));
        let chain = at(SystemTime::now().into()).unwrap();
        let (leaf_first, _) = dates(&chain.chain()[0]);
        let (_, ca_last) = dates(&chain.chain()[1]);
        let second = Duration::from_secs(1);
        let expected = |what: &str, date| {
            format!(
                r#"--cert-file "leaf.pem": certificate {what} {}"#,
                Date(date)
            )
        };
        assert_eq!(
            at(leaf_first - second).unwrap_err(),
            expected("1 is not valid before", leaf_first)
        );
        at(ca_last + Duration::from_millis(999)).unwrap();
        assert_eq!(
            at(ca_last + second).unwrap_err(),
            expected("2 expired on", ca_last)
        );
    }

    #[test]
    fn dates_are_shown_in_full() {
        let date = Date((UNIX_EPOCH + Duration::from_secs(981_173_106)).into());
        assert_eq!(date.to_string(), "2001-02-03 04:05:06 UTC");
    }

    #[test]
    fn expired_and_future_certificates_are_refused_at_load() {
        let ca = ca();
        for (validity, text) in [
            (Validity::expired(), "certificate 1 expired on"),
            (Validity::not_yet(), "certificate 1 is not valid before"),
        ] {
            let issued = ca.issue(&Profile::client().valid(validity)).unwrap();
            let error = load_text(&issued.certificate_pem, &issued.key_pem).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn roots_leave_out_the_expired_and_refuse_to_be_empty() {
        let dir = tempfile::tempdir().unwrap();
        let file = PemPath {
            flag: "--ca-file",
            path: dir.path().join("ca.pem"),
        };
        let old = DevCa::generate(Validity::expired()).unwrap();
        let next = DevCa::generate(Validity::not_yet()).unwrap();
        let load = |text: String| {
            fs::write(&file.path, text).unwrap();
            Roots::load(&file).map_err(|error| line(&error, dir.path()))
        };
        assert_eq!(
            load([old.pem(), ca().pem(), next.pem()].concat())
                .unwrap()
                .len(),
            2
        );
        let error = load(old.pem().to_owned()).unwrap_err();
        assert!(
            error.starts_with(r#"--ca-file "ca.pem": certificate 1 expired on 2"#),
            "{error}"
        );
        let error = load("# nothing yet\n".to_owned()).unwrap_err();
        assert_eq!(error, r#"--ca-file "ca.pem": holds no certificate"#);
    }

    #[test]
    fn debug_shows_no_key() {
        let issued = issue(&ca());
        let credentials = load_text(&issued.certificate_pem, &issued.key_pem).unwrap();
        let expected = "Credentials { chain: 1 certificates, key: redacted }";
        assert_eq!(format!("{credentials:?}"), expected);
        assert_eq!(format!("{issued:?}"), "Issued { key: redacted }");
    }
}
