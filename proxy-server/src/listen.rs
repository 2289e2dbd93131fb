//! The flags that say where clients connect: `--listen FRONTEND=URL[,KEY=VALUE…]` and its short
//! form.

mod spec;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use clap::Args;
use thiserror::Error;
use towline_tls::ConfigError;

use crate::frontend::Frontend;
use crate::listener::tcp::TcpListener;
use crate::listener::tls::{ListenerTls, TlsConfig, TlsListener};
use crate::listener::unix::UnixListener;
use crate::listener::{Address, Listener, ListenerError};

pub use spec::{ListenSpec, ListenSpecError};

/// Where CONNECT clients connect when no flag says so: this machine only. The reference listens on
/// every address, which opens a private network to every host that reaches the port.
const DEFAULT: &str = "connect=tcp://127.0.0.1:8443";

/// Flags of the clients' side.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Clients")]
pub struct ListenArgs {
    /// TCP address for CONNECT without TLS; short for --listen connect=tcp://ADDR.
    ///
    /// Without this and without --listen it is 127.0.0.1:8443. It authenticates no client: beyond
    /// loopback use tls:// with --tls-client-ca-file.
    #[arg(long, env = "TOWLINE_LISTEN_TCP", value_name = "IP:PORT")]
    pub listen_tcp: Option<SocketAddr>,

    /// Where clients connect, and what they speak; repeatable.
    ///
    /// FRONTEND is connect (HTTP CONNECT) or raw (bytes as they come, to a passthrough agent; with
    /// ,target=HOST:PORT behind the URL to that target through a connect agent). URL is
    /// tcp://IP:PORT, tls://IP:PORT or unix:// and an absolute path. Port 0 takes a free port and logs it.
    #[arg(
        long,
        env = "TOWLINE_LISTEN",
        value_name = "FRONTEND=URL[,KEY=VALUE]",
        value_delimiter = ' '
    )]
    pub listen: Vec<ListenSpec>,

    /// Permission bits of Unix sockets, in octal.
    ///
    /// 0660 lets the group of the process connect.
    #[arg(
        long,
        env = "TOWLINE_UNIX_MODE",
        value_name = "MODE",
        default_value = "0600"
    )]
    #[arg(value_parser = mode)]
    pub unix_mode: u32,

    /// Client connections served at the same time; accepting pauses beyond. As many tunnels may be
    /// open; a request beyond gets 503.
    ///
    /// Lower it to bound memory and file descriptors.
    #[arg(
        long,
        env = "TOWLINE_MAX_CONNECTIONS",
        value_name = "N",
        default_value_t = 65_536
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    pub max_connections: u32,
}

/// A listener to open, with all that it needs.
#[derive(Debug, Clone)]
pub struct ListenConfig {
    /// The flag that asks for it.
    pub flag: &'static str,
    spec: ListenSpec,
    tls: Option<ListenerTls>,
    unix_mode: u32,
}

/// Why the listeners do not go together, or one cannot be opened.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Certificates for clients, and no listener that shows them.
    #[error("--tls-cert-file: no --listen …=tls://… uses it")]
    UnusedTls,
    /// The clients' authorities make no verifier.
    #[error(transparent)]
    Tls(#[from] ConfigError),
    /// The same address twice.
    #[error("--listen: two listeners on {0}")]
    Twice(Address),
    /// A listener that cannot be opened.
    #[error("{flag}")]
    Listener {
        /// The flag that asks for it.
        flag: &'static str,
        /// What is wrong with it.
        source: ListenerError,
    },
}

// === impl ListenArgs ===

impl ListenArgs {
    /// Every listener to open; the default one when no flag asks for another.
    ///
    /// # Errors
    /// When two of them would listen on one address, one lacks certificates, or none shows the
    /// certificates in `tls`.
    pub fn config(&self, tls: Option<&TlsConfig>) -> Result<Vec<ListenConfig>, ListenError> {
        let short = self
            .listen_tcp
            .map(|address| ("--listen-tcp", ListenSpec::connect(Address::Tcp(address))));
        let long = self.listen.iter().map(|spec| ("--listen", spec.clone()));
        let mut specs: Vec<_> = short.into_iter().chain(long).collect();
        if specs.is_empty() {
            let default = DEFAULT.parse().expect("a test parses the default");
            specs.push(("--listen-tcp", default));
        }
        let mut seen = HashSet::new();
        for (_, spec) in &specs {
            let address = spec.address();
            if !seen.insert(occupied(address)) && !address.takes_any_port() {
                return Err(ListenError::Twice(address.clone()));
            }
        }
        let is_tls = |spec: &ListenSpec| matches!(spec.address(), Address::Tls(_));
        if tls.is_some() && !specs.iter().any(|(_, spec)| is_tls(spec)) {
            return Err(ListenError::UnusedTls);
        }
        let config = |(flag, spec): (_, ListenSpec)| {
            let tls = match (is_tls(&spec), tls) {
                (false, _) => None,
                (true, Some(tls)) => Some(tls.listener(spec.alpn())?),
                (true, None) => {
                    let source = ListenerError::NoCertificate(spec.address().clone());
                    return Err(ListenError::Listener { flag, source });
                }
            };
            Ok(ListenConfig {
                flag,
                spec,
                tls,
                unix_mode: self.unix_mode,
            })
        };
        specs.into_iter().map(config).collect()
    }

    /// Client connections served at the same time.
    pub fn max_connections(&self) -> usize {
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

// === impl ListenConfig ===

impl ListenConfig {
    /// What speaks on it.
    pub fn frontend(&self) -> &Arc<dyn Frontend> {
        self.spec.frontend()
    }

    /// How this listener is named once it listens on `address`.
    pub fn name(&self, address: &Address) -> String {
        self.spec.at(address)
    }

    /// Opens the listener.
    ///
    /// # Errors
    /// Which address cannot be listened on, and why.
    pub fn open(&self) -> Result<Listener, ListenError> {
        let address = self.spec.address();
        let failed = |source| ListenerError::Address {
            address: address.clone(),
            source,
        };
        let opened = match address {
            Address::Tcp(socket) => TcpListener::bind(*socket)
                .map(Listener::Tcp)
                .map_err(failed),
            Address::Tls(socket) => match self.tls.clone() {
                None => Err(ListenerError::NoCertificate(address.clone())),
                Some(tls) => TlsListener::bind(*socket, tls)
                    .map(Listener::Tls)
                    .map_err(failed),
            },
            Address::Unix(path) => UnixListener::bind(path, self.unix_mode).map(Listener::Unix),
        };
        opened.map_err(|source| ListenError::Listener {
            flag: self.flag,
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{DEFAULT, ListenSpec};

    #[test]
    fn the_default_listener_is_valid() {
        DEFAULT.parse::<ListenSpec>().unwrap();
    }
}
