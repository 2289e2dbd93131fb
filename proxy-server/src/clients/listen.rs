//! The flags that say where clients come in: `--listen FRONTEND=URL` and its short form.

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use clap::Args;
use thiserror::Error;
use towline_protocol::target::{Target, TargetError};

use crate::frontend::Frontend;
use crate::listener::tcp::TcpDoor;
use crate::listener::tls::{TlsConfig, TlsDoor};
use crate::listener::uds::UnixDoor;
use crate::listener::{Address, AddressError, BindError, Listener};

/// Where CONNECT clients come in when no flag says so: this machine only. The reference listens on
/// every address, which makes a private network public for whoever reaches the port.
const DEFAULT: &str = "connect=tcp://127.0.0.1:8443";

/// Flags of the clients' side.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Clients")]
pub struct ListenArgs {
    /// TCP address for CONNECT in the clear; short for --listen connect=tcp://ADDR.
    ///
    /// Without this and without --listen it is 127.0.0.1:8443. There is no authentication on it:
    /// beyond loopback prefer tls:// with --tls-client-ca-file.
    #[arg(long, env = "TOWLINE_LISTEN_TCP", value_name = "IP:PORT")]
    pub listen_tcp: Option<SocketAddr>,

    /// Where clients come in, and what they speak; repeatable.
    ///
    /// FRONTEND is connect (HTTP CONNECT) or raw (bytes as they come, to a passthrough agent; with
    /// ,target=HOST:PORT behind the URL to that target through a connect agent). URL is
    /// tcp://IP:PORT, tls://IP:PORT or unix:// and an absolute path. Port 0 takes a free port and logs it.
    #[arg(
        long,
        env = "TOWLINE_LISTEN",
        value_name = "FRONTEND=URL",
        value_delimiter = ' '
    )]
    pub listen: Vec<ListenFlag>,

    /// Permission bits of Unix sockets, in octal.
    #[arg(
        long,
        env = "TOWLINE_UNIX_MODE",
        value_name = "MODE",
        default_value = "0600"
    )]
    #[arg(value_parser = mode)]
    pub unix_mode: u32,

    /// Client connections served at the same time; accepting pauses beyond.
    #[arg(
        long,
        env = "TOWLINE_MAX_CONNECTIONS",
        value_name = "N",
        default_value_t = 65_536
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    pub max_connections: u32,
}

/// One `--listen`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenFlag {
    frontend: Frontend,
    address: Address,
}

/// Why a text is no [`ListenFlag`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ListenFlagError {
    /// No `FRONTEND=` in front.
    #[error("write connect=URL or raw=URL")]
    Frontend,
    /// The URL cannot be read.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The target cannot be read.
    #[error("target: {0}")]
    Target(#[from] TargetError),
    /// A target of port 0, or one on a frontend that reads targets from its clients.
    #[error("only raw listeners take ,target=HOST:PORT, with a port above 0")]
    TargetOfConnect,
}

/// A listener to open, with all that it needs.
#[derive(Debug, Clone)]
pub struct Listen {
    /// The flag that asks for it.
    pub flag: &'static str,
    /// What speaks on it.
    pub frontend: Frontend,
    address: Address,
    tls: Option<TlsConfig>,
    unix_mode: u32,
}

/// Why the listeners do not go together.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Certificates for clients, and no listener that shows them.
    #[error("--tls-cert-file: no --listen …=tls://… uses it")]
    UnusedTls,
    /// The same address twice.
    #[error("--listen: two listeners on {0}")]
    Twice(Address),
}

// === impl ListenArgs ===

impl ListenArgs {
    /// Every listener to open; the default one when no flag asks for another.
    ///
    /// # Errors
    /// When two of them would listen on one address, or none shows the certificates in `tls`.
    pub fn listeners(&self, tls: Option<&TlsConfig>) -> Result<Vec<Listen>, ListenError> {
        let short = self.listen_tcp.map(|address| {
            let address = Address::Tcp(address);
            (
                "--listen-tcp",
                ListenFlag {
                    frontend: Frontend::Connect,
                    address,
                },
            )
        });
        let long = self.listen.iter().map(|flag| ("--listen", flag.clone()));
        let mut flags: Vec<_> = short.into_iter().chain(long).collect();
        if flags.is_empty() {
            let default = DEFAULT
                .parse()
                .expect("the default is valid, a test says so");
            flags.push(("--listen-tcp", default));
        }
        let mut seen = HashSet::new();
        for (_, flag) in &flags {
            if !seen.insert(occupied(&flag.address)) && !flag.address.takes_any_port() {
                return Err(ListenError::Twice(flag.address.clone()));
            }
        }
        let is_tls = |(_, flag): &(_, ListenFlag)| matches!(flag.address, Address::Tls(_));
        if tls.is_some() && !flags.iter().any(is_tls) {
            return Err(ListenError::UnusedTls);
        }
        let listen = |(flag, ListenFlag { frontend, address })| Listen {
            flag,
            frontend,
            address,
            tls: tls.cloned(),
            unix_mode: self.unix_mode,
        };
        Ok(flags.into_iter().map(listen).collect())
    }

    /// Client connections served at the same time.
    pub fn permits(&self) -> usize {
        usize::try_from(self.max_connections).unwrap_or(usize::MAX)
    }
}

/// TCP and TLS listeners contend for the same addresses.
fn occupied(address: &Address) -> Address {
    match address {
        Address::Tcp(socket) | Address::Tls(socket) => Address::Tcp(*socket),
        Address::Unix(path) => Address::Unix(path.clone()),
    }
}

/// Reads permission bits in octal.
fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err("write permission bits in octal, for example 0660".to_owned()),
    }
}

// === impl ListenFlag ===

impl FromStr for ListenFlag {
    type Err = ListenFlagError;

    fn from_str(text: &str) -> Result<Self, ListenFlagError> {
        let (frontend, rest) = text.split_once('=').ok_or(ListenFlagError::Frontend)?;
        let (address, target) = match rest.split_once(",target=") {
            Some((address, target)) => (address, Some(target.parse::<Target>()?)),
            None => (rest, None),
        };
        let address = address.parse()?;
        let frontend = match (frontend, target) {
            ("connect", None) => Frontend::Connect,
            ("raw", target) if !target.as_ref().is_some_and(Target::is_upstream) => {
                Frontend::Raw(target)
            }
            ("connect" | "raw", _) => return Err(ListenFlagError::TargetOfConnect),
            _ => return Err(ListenFlagError::Frontend),
        };
        Ok(Self { frontend, address })
    }
}

// === impl Listen ===

impl Listen {
    /// How this listener is named once it listens on `address`.
    pub(super) fn name(&self, address: &Address) -> String {
        struct Name<'a>(&'a Frontend, &'a Address);
        impl fmt::Display for Name<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0 {
                    Frontend::Connect => write!(f, "connect={}", self.1),
                    Frontend::Raw(None) => write!(f, "raw={}", self.1),
                    Frontend::Raw(Some(target)) => write!(f, "raw={},target={target}", self.1),
                }
            }
        }
        Name(&self.frontend, address).to_string()
    }

    pub(super) fn open(&self) -> Result<Listener, BindError> {
        let failed = |source| BindError::Address {
            address: self.address.clone(),
            source,
        };
        match &self.address {
            Address::Tcp(address) => TcpDoor::bind(*address).map(Listener::Tcp).map_err(failed),
            Address::Tls(address) => {
                let tls = self.tls.clone();
                let tls = tls.ok_or_else(|| BindError::NoCertificate(self.address.clone()))?;
                TlsDoor::bind(*address, tls)
                    .map(Listener::Tls)
                    .map_err(failed)
            }
            Address::Unix(path) => UnixDoor::bind(path, self.unix_mode).map(Listener::Unix),
        }
    }

    /// Checks what can be checked without opening anything.
    ///
    /// # Errors
    /// When a TLS listener has no certificate.
    pub fn check(&self) -> Result<(), BindError> {
        match (&self.address, &self.tls) {
            (Address::Tls(_), None) => Err(BindError::NoCertificate(self.address.clone())),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{DEFAULT, ListenFlag};

    #[test]
    fn listeners_read_well() {
        for text in [
            DEFAULT,
            "connect=tls://0.0.0.0:8444",
            "connect=unix:///run/towline/front.sock",
            "raw=tcp://127.0.0.1:9000",
            "raw=unix:///run/db.sock,target=db.private:5432",
            "raw=tcp://127.0.0.1:9001,target=[fd00::1]:5432",
        ] {
            text.parse::<ListenFlag>().unwrap();
        }
    }

    #[test]
    fn bad_listeners_say_what_to_write() {
        for (text, error) in [
            ("", "write connect=URL or raw=URL"),
            ("tcp://127.0.0.1:1", "write connect=URL or raw=URL"),
            ("grpc=tcp://127.0.0.1:1", "write connect=URL or raw=URL"),
            (
                "connect=127.0.0.1:1",
                "write tcp://IP:PORT, tls://IP:PORT or unix:///PATH",
            ),
            (
                "raw=tcp://127.0.0.1:1,target=db",
                "target: target has no port",
            ),
            (
                "connect=tcp://127.0.0.1:1,target=db:1",
                "only raw listeners take ,target=HOST:PORT, with a port above 0",
            ),
            (
                "raw=tcp://127.0.0.1:1,target=db:0",
                "only raw listeners take ,target=HOST:PORT, with a port above 0",
            ),
        ] {
            assert_eq!(
                text.parse::<ListenFlag>().unwrap_err().to_string(),
                error,
                "{text}"
            );
        }
    }
}
