//! What a subject is set up with, and what starts it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;

use anyhow::{Result, bail};

use crate::client::Route;
use crate::target::Addresses;

/// Ports above are refused by a peer that takes them for ephemeral ones.
const HIGHEST: u16 = 49_151;

/// How often the system is asked for a port before it is plain that it gives none.
const TRIES: u32 = 1_000;

/// Where a subject finds what it needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// Development certificates of one authority.
    pub(super) certs: &'a Path,
    /// A folder for configuration files.
    pub(super) dir: &'a Path,
    /// What clients want to reach.
    pub(super) target: Addresses,
}

/// A subject that is ready to be started.
#[derive(Debug)]
pub(super) struct Setup {
    /// Started first.
    pub(super) server: Launch,
    /// Started once the server listens.
    pub(super) agent: Launch,
    /// A TCP address at which the server listens when it is up.
    pub(super) up: SocketAddr,
    /// How clients enter.
    pub(super) route: Route,
    /// Where clients find the target: ports of the subject if it forwards fixed ones.
    pub(super) at: Addresses,
}

/// A command line.
#[derive(Debug)]
pub(super) struct Launch {
    /// What to call the process.
    pub(super) name: &'static str,
    /// Its file below the subject's folder.
    pub(super) program: &'static str,
    /// What it is told.
    pub(super) arguments: Vec<String>,
}

// === impl Launch ===

impl Launch {
    /// A program that is called as its file.
    pub(super) fn new(program: &'static str, arguments: Vec<String>) -> Self {
        Self {
            name: program,
            program,
            arguments,
        }
    }
}

/// `--name value` pairs as arguments.
pub(super) fn arguments<const N: usize>(pairs: [(&str, String); N]) -> Vec<String> {
    let pairs = pairs.into_iter();
    pairs
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect()
}

/// A file of a folder as an argument.
pub(super) fn file(dir: &Path, name: &str) -> String {
    dir.join(name).display().to_string()
}

/// TCP addresses that are free now: few peers can be asked which one they took.
///
/// # Errors
/// When the system has none.
pub(super) fn free_tcp<const N: usize>() -> Result<[SocketAddr; N]> {
    free(|| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        Ok((listener.local_addr()?, listener))
    })
}

/// A UDP address that is free now.
///
/// # Errors
/// When the system has none.
pub(super) fn free_udp() -> Result<SocketAddr> {
    let [address] = free(|| {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        Ok((socket.local_addr()?, socket))
    })?;
    Ok(address)
}

/// Holds every port until all are found, so that none is found twice.
fn free<T, const N: usize>(bind: impl Fn() -> Result<(SocketAddr, T)>) -> Result<[SocketAddr; N]> {
    let (mut found, mut held) = (Vec::new(), Vec::new());
    for _ in 0..TRIES {
        if found.len() == N {
            break;
        }
        let (address, socket) = bind()?;
        if address.port() <= HIGHEST {
            found.push(address);
        }
        held.push(socket);
    }
    match <[SocketAddr; N]>::try_from(found) {
        Ok(all) => Ok(all),
        Err(_) => bail!("the system has no {N} free ports up to {HIGHEST}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn free_ports_are_different_and_not_too_high() {
        let addresses = free_tcp::<8>().unwrap();
        let ports: HashSet<u16> = addresses.iter().map(SocketAddr::port).collect();
        assert_eq!(ports.len(), 8);
        assert!(ports.iter().all(|port| (1_024..=HIGHEST).contains(port)));
        assert!(free_udp().unwrap().port() <= HIGHEST);
    }

    #[test]
    fn pairs_become_arguments() {
        let pairs = arguments([("--a", "1".to_owned()), ("--b", "2".to_owned())]);
        assert_eq!(pairs, ["--a", "1", "--b", "2"]);
    }
}
