//! Where a tunnel leads: the `host:port` a client asks for, read strictly.
//!
//! Whatever parses can be written into a head unchanged: a target holds no space, no control
//! character and nothing that a resolver would read in another way than this module does.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use thiserror::Error;

/// Longest name in bytes, without a trailing dot (RFC 1035 §2.3.4 less its length octets).
pub const MAX_NAME: usize = 253;

/// Longest label of a name in bytes (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;

/// The host and port at the far end of a tunnel, in authority form (RFC 9112 §3.2.3).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// The host to reach.
    pub host: Host,
    /// The TCP port, never 0 in a target that was parsed.
    pub port: u16,
}

/// A host: a name for the agent's resolver, or an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// A name of at most [`MAX_NAME`] bytes of `[A-Za-z0-9._-]`, as the client spelled it
    /// (compare it ignoring case), with or without a trailing dot. Made by parsing only.
    Name(Box<str>),
    /// An address literal.
    Ip(IpAddr),
}

/// Why a text is not a [`Target`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TargetError {
    /// There is no `:port` behind the host.
    #[error("target has no port")]
    NoPort,
    /// The port is not a decimal number of at most five digits up to 65535.
    #[error("port of the target is not a number up to 65535")]
    BadPort,
    /// The port is 0.
    #[error("the port of a target cannot be 0")]
    ZeroPort,
    /// Nothing stands before the port.
    #[error("target has no host")]
    NoHost,
    /// An IPv6 address without its brackets, brackets around something else, or a whole URL.
    #[error("target is neither host:port nor [IPv6 address]:port")]
    BadBrackets,
    /// The name has a forbidden character, an empty or overlong label, or ends in a number.
    #[error("host of the target is not a valid name")]
    BadName,
}

// === impl Target ===

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (address, behind) = rest.split_once(']').ok_or(TargetError::BadBrackets)?;
            let address: Ipv6Addr = address.parse().map_err(|_| TargetError::BadBrackets)?;
            let port = behind.strip_prefix(':').ok_or(TargetError::NoPort)?;
            (Host::Ip(address.into()), port)
        } else {
            let (host, port) = text.rsplit_once(':').ok_or(TargetError::NoPort)?;
            (parse_host(host)?, port)
        };
        Ok(Self {
            host,
            port: parse_port(port)?,
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

// === impl Host ===

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Ip(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

fn parse_host(host: &str) -> Result<Host, TargetError> {
    if host.is_empty() {
        return Err(TargetError::NoHost);
    }
    if host.contains(':') {
        return Err(TargetError::BadBrackets);
    }
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return Ok(Host::Ip(address.into()));
    }
    let labels = host.strip_suffix('.').unwrap_or(host);
    let valid = labels.len() <= MAX_NAME
        && labels.split('.').all(is_label)
        && !labels.rsplit('.').next().is_some_and(is_number);
    if valid {
        Ok(Host::Name(host.into()))
    } else {
        Err(TargetError::BadName)
    }
}

fn is_label(label: &str) -> bool {
    (1..=MAX_LABEL).contains(&label.len())
        && label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// Whether resolvers take a name with this last label for an IPv4 address: `127.1`, `0x7f000001`
/// and `2130706433` all reach loopback, and would slip past a policy on names.
fn is_number(label: &str) -> bool {
    let hex = label
        .strip_prefix("0x")
        .or_else(|| label.strip_prefix("0X"));
    match hex {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => label.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

fn parse_port(port: &str) -> Result<u16, TargetError> {
    let plain = port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse() {
        _ if port.is_empty() => Err(TargetError::NoPort),
        Ok(0) if plain => Err(TargetError::ZeroPort),
        Ok(port) if plain => Ok(port),
        _ => Err(TargetError::BadPort),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_is_valid_and_writes_it_back() {
        let longest = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(61));
        assert_eq!(longest.len(), MAX_NAME);
        for text in [
            "example.com:443",
            "Example.COM:443",
            "example.com.:443",
            "localhost:1",
            "a_b-c.svc:65535",
            "3com.4u:80",
            "10.0.0.7:10250",
            "[::1]:80",
            "[fd00::10]:8443",
            "[::ffff:10.0.0.7]:1",
            "xn--bcher-kva.example:1",
            &format!("{longest}:1"),
            &format!("{longest}.:1"),
        ] {
            let target: Target = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(target.to_string(), text);
        }
    }

    #[test]
    fn tells_addresses_from_names() {
        let host = |text: &str| text.parse::<Target>().unwrap().host;
        assert_eq!(
            host("10.0.0.7:1"),
            Host::Ip(Ipv4Addr::new(10, 0, 0, 7).into())
        );
        assert_eq!(host("[::1]:1"), Host::Ip(Ipv6Addr::LOCALHOST.into()));
        assert_eq!(host("ten.0.0.x7:1"), Host::Name("ten.0.0.x7".into()));
    }

    #[test]
    fn writes_the_canonical_form() {
        for (text, canonical) in [("h:00080", "h:80"), ("[0:0::0:1]:1", "[::1]:1")] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), canonical);
        }
    }

    #[test]
    fn says_what_is_wrong() {
        use TargetError::{BadBrackets, BadName, BadPort, NoHost, NoPort, ZeroPort};
        let long_label = format!("{}.com:1", "a".repeat(64));
        let long_name = format!("{0}.{0}.{0}.{1}:1", "a".repeat(63), "b".repeat(62));
        for (text, error) in [
            ("", NoPort),
            ("example.com", NoPort),
            ("example.com:", NoPort),
            ("[::1]", NoPort),
            ("[::1]:", NoPort),
            ("[::1]80", NoPort),
            ("example.com:http", BadPort),
            ("example.com:+80", BadPort),
            ("example.com:-1", BadPort),
            ("example.com:65536", BadPort),
            ("example.com:000080", BadPort),
            ("example.com:80/", BadPort),
            ("example.com: 80", BadPort),
            ("example.com:0", ZeroPort),
            ("[::1]:00000", ZeroPort),
            (":80", NoHost),
            ("::1:80", BadBrackets),
            ("[::1:80", BadBrackets),
            ("[]:80", BadBrackets),
            ("[10.0.0.7]:80", BadBrackets),
            ("[fe80::1%eth0]:80", BadBrackets),
            ("[v1.x]:80", BadBrackets),
            ("http://example.com:80", BadBrackets),
            ("user@example.com:80", BadName),
            ("user:password@example.com:80", BadBrackets),
            ("exam ple.com:80", BadName),
            ("example.com\r\nX: y:80", BadBrackets),
            ("bücher.example:80", BadName),
            (".:80", BadName),
            ("..:80", BadName),
            (".com:80", BadName),
            ("a..b:80", BadName),
            ("a.b..:80", BadName),
            ("2130706433:80", BadName),
            ("127.1:80", BadName),
            ("127.0.0.01:80", BadName),
            ("127.0.0.1.:80", BadName),
            ("0x7f000001:80", BadName),
            ("0X7F.0x1:80", BadName),
            ("256.0.0.1:80", BadName),
            (&long_label, BadName),
            (&long_name, BadName),
        ] {
            assert_eq!(text.parse::<Target>(), Err(error), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_round_trips(text in "\\PC{0,40}|[\\[\\]a-f0-9.:%@x-]{0,40}") {
            if let Ok(target) = text.parse::<Target>() {
                prop_assert_eq!(target.to_string().parse::<Target>(), Ok(target));
            }
        }

        #[test]
        fn every_address_round_trips(address: IpAddr, port in 1..=u16::MAX) {
            let target = Target { host: Host::Ip(address), port };
            prop_assert_eq!(target.to_string().parse::<Target>(), Ok(target));
        }

        #[test]
        fn every_name_round_trips(
            name in "([a-zA-Z0-9_-]{1,20}\\.){0,5}[a-zA-Z_-][a-zA-Z0-9_-]{0,20}\\.?",
            port: u16,
        ) {
            let target = Target { host: Host::Name(name.into()), port };
            prop_assert_eq!(target.to_string().parse::<Target>(), Ok(target));
        }
    }
}
