//! The address of a listener, as flags and logs write it: `tcp://…`, `tls://…`, `unix://…`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// Plain TCP.
    Tcp(SocketAddr),
    /// TLS over TCP.
    Tls(SocketAddr),
    /// A Unix socket, by its absolute path.
    Unix(PathBuf),
}

/// Why a text is no [`Address`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AddressError {
    /// No scheme that is known.
    #[error("write tcp://IP:PORT, tls://IP:PORT or unix:///PATH")]
    Scheme,
    /// Not an IP address and a port.
    #[error("{0:?} is not IP:PORT (IPv6 in brackets)")]
    Socket(String),
    /// A relative path would depend on where the process was started.
    #[error("the path of a Unix socket must be absolute: unix:///run/towline/front.sock")]
    RelativePath,
}

// === impl Address ===

impl Address {
    /// The address without its scheme, as clients use it: `127.0.0.1:8443` or a path.
    pub fn bare(&self) -> String {
        match self {
            Self::Tcp(address) | Self::Tls(address) => address.to_string(),
            Self::Unix(path) => path.display().to_string(),
        }
    }

    /// Whether the system picks the port, so that two of these do not collide.
    pub fn takes_any_port(&self) -> bool {
        match self {
            Self::Tcp(address) | Self::Tls(address) => address.port() == 0,
            Self::Unix(_) => false,
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = text.split_once("://").ok_or(AddressError::Scheme)?;
        let socket = || {
            rest.parse()
                .map_err(|_| AddressError::Socket(rest.to_owned()))
        };
        match scheme {
            "tcp" => socket().map(Self::Tcp),
            "tls" => socket().map(Self::Tls),
            "unix" if rest.starts_with('/') => Ok(Self::Unix(rest.into())),
            "unix" => Err(AddressError::RelativePath),
            _ => Err(AddressError::Scheme),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Tls(address) => write!(f, "tls://{address}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Address;

    #[test]
    fn addresses_read_as_they_are_written() {
        for text in [
            "tcp://127.0.0.1:8443",
            "tcp://[::]:0",
            "tls://[::1]:8444",
            "unix:///run/towline/front.sock",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn bad_addresses_say_what_to_write() {
        for (text, error) in [
            (
                "127.0.0.1:8443",
                "write tcp://IP:PORT, tls://IP:PORT or unix:///PATH",
            ),
            (
                "udp://127.0.0.1:1",
                "write tcp://IP:PORT, tls://IP:PORT or unix:///PATH",
            ),
            (
                "tcp://localhost:1",
                "\"localhost:1\" is not IP:PORT (IPv6 in brackets)",
            ),
            (
                "tcp://::1:80",
                "\"::1:80\" is not IP:PORT (IPv6 in brackets)",
            ),
            (
                "tcp://127.0.0.1:70000",
                "\"127.0.0.1:70000\" is not IP:PORT (IPv6 in brackets)",
            ),
            (
                "unix://front.sock",
                "the path of a Unix socket must be absolute: unix:///run/towline/front.sock",
            ),
        ] {
            assert_eq!(text.parse::<Address>().unwrap_err().to_string(), error);
        }
    }
}
