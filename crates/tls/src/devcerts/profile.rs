//! The contents of a certificate to issue: names, usage and dates.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyUsagePurpose, SanType,
};

/// How long before now validity starts, for machines whose clocks are behind.
const BACKDATED: Duration = Duration::from_hours(1);

/// The dates between which a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    first: SystemTime,
    last: SystemTime,
}

/// A certificate to ask a [`DevCa`](super::DevCa) for.
#[derive(Clone, Debug)]
pub struct Profile {
    common_name: Option<String>,
    names: Vec<Name>,
    usage: ExtendedKeyUsagePurpose,
    validity: Validity,
}

#[derive(Clone, Debug)]
enum Name {
    Uri(String),
    Dns(String),
    Ip(IpAddr),
}

// === impl Validity ===

impl Validity {
    /// From one hour ago until this many days from now.
    pub fn days(days: u16) -> Self {
        let now = SystemTime::now();
        Self {
            first: now - BACKDATED,
            last: now + Duration::from_hours(24) * u32::from(days),
        }
    }

    /// One day that ended an hour ago.
    pub fn expired() -> Self {
        let last = SystemTime::now() - BACKDATED;
        Self {
            first: last - Duration::from_hours(24),
            last,
        }
    }

    /// One day that starts in an hour.
    pub fn not_yet() -> Self {
        let first = SystemTime::now() + BACKDATED;
        Self {
            first,
            last: first + Duration::from_hours(24),
        }
    }

    /// Parameters with these dates and no name.
    pub(super) fn params(self) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.not_before = self.first.into();
        params.not_after = self.last.into();
        params
    }
}

// === impl Profile ===

impl Profile {
    /// A server's certificate for these DNS names and IP addresses, valid for a day.
    pub fn server(names: &[&str]) -> Self {
        let names = names.iter().map(|name| match name.parse() {
            Ok(ip) => Name::Ip(ip),
            Err(_) => Name::Dns((*name).to_owned()),
        });
        Self {
            common_name: None,
            names: names.collect(),
            usage: ExtendedKeyUsagePurpose::ServerAuth,
            validity: Validity::days(1),
        }
    }

    /// A certificate for an agent or a client, without names, valid for a day.
    pub fn client() -> Self {
        Self {
            common_name: None,
            names: Vec::new(),
            usage: ExtendedKeyUsagePurpose::ClientAuth,
            validity: Validity::days(1),
        }
    }

    /// Adds a URI to the subject alternative name.
    pub fn uri(mut self, uri: &str) -> Self {
        self.names.push(Name::Uri(uri.to_owned()));
        self
    }

    /// Adds a DNS name to the subject alternative name.
    pub fn dns(mut self, name: &str) -> Self {
        self.names.push(Name::Dns(name.to_owned()));
        self
    }

    /// Sets the subject's common name.
    pub fn common_name(mut self, name: &str) -> Self {
        self.common_name = Some(name.to_owned());
        self
    }

    /// Sets when the certificate is valid.
    pub const fn valid(mut self, validity: Validity) -> Self {
        self.validity = validity;
        self
    }

    pub(super) fn params(&self) -> Result<CertificateParams, rcgen::Error> {
        let mut params = self.validity.params();
        if let Some(name) = &self.common_name {
            params
                .distinguished_name
                .push(DnType::CommonName, name.as_str());
        }
        for name in &self.names {
            params.subject_alt_names.push(match name {
                Name::Uri(uri) => SanType::URI(uri.as_str().try_into()?),
                Name::Dns(name) => SanType::DnsName(name.as_str().try_into()?),
                Name::Ip(ip) => SanType::IpAddress(*ip),
            });
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![self.usage.clone()];
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }
}
