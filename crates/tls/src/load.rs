//! PEM files in, certificate chains, keys and roots out.
//!
//! Errors that would make a peer refuse the handshake later are found here, at load, and reported
//! in one line that names the flag, the file and the reason. Loaded values are immutable; a reload
//! makes new ones.

mod file;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use self::file::read;
pub use self::file::{MAX_FILE, PemBytes, PemPath};

/// The identity of this process: a certificate chain, leaf first, and its private key.
#[derive(Clone)]
pub struct Credentials(Arc<CertifiedKey>);

/// The certificate authorities that may have issued the certificate of a peer; never empty.
#[derive(Clone)]
pub struct Roots(Arc<RootCertStore>);

/// A file cannot be used. `Display` names the flag, the file and the reason in one line.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {reason}")]
pub struct LoadError {
    /// The file.
    pub file: PemPath,
    /// Why it cannot be used.
    pub reason: LoadReason,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadReason {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    /// It is larger than [`MAX_FILE`].
    #[error("is larger than {MAX_FILE} bytes")]
    TooLarge,
    /// It has PEM sections that are incomplete or not base64.
    #[error("is not valid PEM: {0}")]
    Malformed(&'static str),
    /// It has no PEM section of the wanted kind.
    #[error("holds no {0}")]
    Missing(&'static str),
    /// It has a section of the wanted kind that cannot be used.
    #[error("{item} cannot be used: {detail}")]
    Unusable {
        /// Which section, for example `certificate 2`.
        item: String,
        /// The message of the parser; never key material.
        detail: String,
    },
    /// The key does not match the certificate.
    #[error("does not belong to the certificate in {0}")]
    Mismatch(PemPath),
    /// The validity of a certificate starts in the future.
    #[error("certificate {position} is not valid before {date}")]
    NotYetValid {
        /// Its place in the file, from 1.
        position: usize,
        /// The first moment of its validity.
        date: Date,
    },
    /// The validity of a certificate has ended.
    #[error("certificate {position} expired on {date}")]
    Expired {
        /// Its place in the file, from 1.
        position: usize,
        /// The last moment of its validity.
        date: Date,
    },
}

/// A date of a certificate, displayed as `2026-01-31 23:59:59 UTC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date(OffsetDateTime);

// === impl Credentials ===

impl Credentials {
    /// Reads a chain (leaf first) and its private key (the first one in the file; PKCS#8, PKCS#1
    /// or SEC1, not encrypted).
    ///
    /// # Errors
    ///
    /// A file is unreadable, larger than [`MAX_FILE`], malformed or lacks a certificate or key; the
    /// key does not match the leaf; a certificate of the chain is not yet or no longer valid.
    pub fn load(cert: &PemPath, key: &PemPath) -> Result<Self, LoadError> {
        Self::load_at(cert, key, SystemTime::now().into())
    }

    fn load_at(cert: &PemPath, key: &PemPath, now: OffsetDateTime) -> Result<Self, LoadError> {
        let chain = parse_certificates(cert.with(&read(cert)?))?;
        let parsed_key = parse_key(key.with(&read(key)?))?;
        Self::check(cert, chain, key, &parsed_key, now)
    }

    /// The same as [`Credentials::load`] with files that the caller has read, at the time `now`:
    /// a function of its arguments, for a reload that compares contents before it parses them.
    ///
    /// # Errors
    ///
    /// As [`Credentials::load`], but never [`LoadReason::Unreadable`].
    pub fn parse(
        cert: PemBytes<'_>,
        key: PemBytes<'_>,
        now: SystemTime,
    ) -> Result<Self, LoadError> {
        let chain = parse_certificates(cert)?;
        let parsed_key = parse_key(key)?;
        Self::check(cert.file, chain, key.file, &parsed_key, now.into())
    }

    fn check(
        cert: &PemPath,
        chain: Vec<CertificateDer<'static>>,
        key: &PemPath,
        parsed_key: &PrivateKeyDer<'static>,
        now: OffsetDateTime,
    ) -> Result<Self, LoadError> {
        let signer = aws_lc_rs::sign::any_supported_type(parsed_key).map_err(|_| {
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

    /// Does not check the dates: development certificates include expired ones.
    pub(crate) fn from_parts(
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'static>,
    ) -> Result<Self, rustls::Error> {
        let certified = CertifiedKey::new(chain, aws_lc_rs::sign::any_supported_type(key)?);
        certified.keys_match()?;
        Ok(Self(Arc::new(certified)))
    }

    /// The certificates presented to a peer, leaf first; at least one.
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
    /// Reads a bundle of authorities. Expired ones are ignored, so a bundle may hold the old and
    /// the new authority during a rotation.
    ///
    /// # Errors
    ///
    /// The file is unreadable, larger than [`MAX_FILE`], malformed, without a certificate, or all
    /// of them have expired.
    pub fn load(file: &PemPath) -> Result<Self, LoadError> {
        Self::load_at(file, SystemTime::now().into())
    }

    fn load_at(file: &PemPath, now: OffsetDateTime) -> Result<Self, LoadError> {
        Self::parse_at(file.with(&read(file)?), now)
    }

    /// The same as [`Roots::load`] with a file that the caller has read, at the time `now`.
    ///
    /// # Errors
    ///
    /// As [`Roots::load`], but never [`LoadReason::Unreadable`].
    pub fn parse(pem: PemBytes<'_>, now: SystemTime) -> Result<Self, LoadError> {
        Self::parse_at(pem, now.into())
    }

    fn parse_at(pem: PemBytes<'_>, now: OffsetDateTime) -> Result<Self, LoadError> {
        let file = pem.file;
        let mut current = Vec::new();
        let mut expired = None;
        for (index, der) in parse_certificates(pem)?.into_iter().enumerate() {
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

    /// The number of trusted authorities; at least one.
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

/// Every certificate of a file, at least one, each accepted by the parser that verifies peers.
fn parse_certificates(pem: PemBytes<'_>) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    pem.check_size()?;
    let file = pem.file;
    let certificates = CertificateDer::pem_slice_iter(pem.bytes)
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

fn parse_key(pem: PemBytes<'_>) -> Result<PrivateKeyDer<'static>, LoadError> {
    const ENCRYPTED: &[u8] = b"ENCRYPTED";
    pem.check_size()?;
    let PemBytes { file, bytes } = pem;
    // Both encrypted forms have the word: the PKCS#8 label and the `Proc-Type` line of older files.
    if bytes
        .windows(ENCRYPTED.len())
        .any(|window| window == ENCRYPTED)
    {
        return Err(file.fails(unusable("private key", &"it is encrypted")));
    }
    PrivateKeyDer::from_pem_slice(bytes)
        .map_err(|error| file.fails(malformed(&error, "private key")))
}

/// Replaces the messages of the library, which show lines as lists of byte values, maybe of a key.
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
    // Certificates have whole seconds, and the last second is included.
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
mod tests;
