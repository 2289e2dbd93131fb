//! The identity of a peer, read from the certificate that the handshake has verified.

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The longest name accepted, in bytes: the limit of a SPIFFE id, far above any DNS name.
pub const MAX_NAME: usize = 2048;

/// The names in one certificate. Each is at most [`MAX_NAME`] bytes without control characters,
/// so it can be written into a log line or a metric as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// URIs of the subject alternative name, in the certificate's order.
    pub uris: Vec<String>,
    /// DNS names of the subject alternative name, in the certificate's order.
    pub dns_names: Vec<String>,
    /// The common name of the subject, if it has exactly one.
    pub common_name: Option<String>,
}

/// A certificate has no usable name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The verifier cannot parse it.
    #[error("the certificate cannot be parsed: {0}")]
    Unparsable(String),
    /// It has neither URI nor DNS name nor one common name.
    #[error("the certificate has no URI, DNS name or common name")]
    Nameless,
    /// One of its names is empty, longer than [`MAX_NAME`] or has control characters.
    #[error("the certificate has an unprintable, empty or too long name")]
    BadName,
}

// === impl Identity ===

impl Identity {
    /// Reads the names. The certificate must have been verified by the handshake.
    ///
    /// # Errors
    ///
    /// The certificate cannot be parsed, has no name, or has one that is empty, too long or has
    /// control characters.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        // The alternative names come from the parser that verified the chain, so that the two
        // cannot disagree; it does not read common names.
        let verified = EndEntityCert::try_from(certificate)
            .map_err(|error| IdentityError::Unparsable(error.to_string()))?;
        let identity = Self {
            uris: verified.valid_uri_names().map(str::to_owned).collect(),
            dns_names: verified.valid_dns_names().map(str::to_owned).collect(),
            common_name: common_name(certificate)?,
        };
        let mut names = identity.names().peekable();
        if names.peek().is_none() {
            Err(IdentityError::Nameless)
        } else if names.all(is_printable) {
            drop(names);
            Ok(identity)
        } else {
            Err(IdentityError::BadName)
        }
    }

    /// The name that identifies the peer: its first URI, else its first DNS name, else its common
    /// name.
    pub fn name(&self) -> &str {
        self.names().next().unwrap_or_default()
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        let alternative = self.uris.iter().chain(&self.dns_names);
        alternative.chain(&self.common_name).map(String::as_str)
    }
}

fn common_name(certificate: &CertificateDer<'_>) -> Result<Option<String>, IdentityError> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|error| IdentityError::Unparsable(error.to_string()))?;
    let mut names = parsed.subject().iter_common_name();
    let (Some(name), None) = (names.next(), names.next()) else {
        return Ok(None);
    };
    name.as_str()
        .map(|text| Some(text.to_owned()))
        .map_err(|_| IdentityError::BadName)
}

fn is_printable(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME && !name.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devcerts::{DevCa, Profile, Validity};

    fn identity_of(profile: &Profile) -> Result<Identity, IdentityError> {
        let ca = DevCa::generate(Validity::days(1)).unwrap();
        Identity::of(ca.issue(profile).unwrap().certificate())
    }

    #[test]
    fn the_name_is_the_first_uri_else_dns_else_common_name() {
        let cn = Profile::client().common_name("by-cn");
        let dns = cn.clone().dns("a.test").dns("b.test");
        let uri = dns
            .clone()
            .uri("spiffe://x.test/1")
            .uri("spiffe://x.test/2");
        let cases = [
            (&cn, "by-cn"),
            (&dns, "a.test"),
            (&uri, "spiffe://x.test/1"),
        ];
        for (profile, name) in cases {
            assert_eq!(identity_of(profile).unwrap().name(), name);
        }
        let all = Identity {
            uris: vec!["spiffe://x.test/1".into(), "spiffe://x.test/2".into()],
            dns_names: vec!["a.test".into(), "b.test".into()],
            common_name: Some("by-cn".into()),
        };
        assert_eq!(identity_of(&uri).unwrap(), all);
    }

    #[test]
    fn a_certificate_without_a_usable_name_is_refused() {
        let long = "a".repeat(MAX_NAME);
        assert_eq!(
            identity_of(&Profile::client().uri(&long)).unwrap().name(),
            long
        );
        let cases = [
            (Profile::client(), IdentityError::Nameless),
            (Profile::server(&["127.0.0.1"]), IdentityError::Nameless),
            (
                Profile::client().common_name("two\nlines"),
                IdentityError::BadName,
            ),
            (
                Profile::client().uri("a:\u{1b}[31m").common_name("fine"),
                IdentityError::BadName,
            ),
            (
                Profile::client().uri("").common_name("fine"),
                IdentityError::BadName,
            ),
            (
                Profile::client().uri(&format!("{long}a")),
                IdentityError::BadName,
            ),
        ];
        for (profile, error) in cases {
            assert_eq!(identity_of(&profile), Err(error), "{profile:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_certificate_are_an_error_at_every_length() {
        let ca = DevCa::generate(Validity::days(1)).unwrap();
        let whole = ca
            .issue(&Profile::client().uri("a:b"))
            .unwrap()
            .certificate()
            .to_vec();
        for end in 0..whole.len() {
            let part = CertificateDer::from(&whole[..end]);
            let error = Identity::of(&part).unwrap_err();
            assert!(
                matches!(error, IdentityError::Unparsable(_)),
                "{end}: {error}"
            );
        }
        assert_eq!(
            Identity::of(&CertificateDer::from(whole)).unwrap().name(),
            "a:b"
        );
    }
}
