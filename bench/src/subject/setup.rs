//! Interprets a peer's templates: finds free ports, writes its files, makes its command lines.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::peers::{Enter, Launch, Peer};
use crate::client::Route;
use crate::target::{Addresses, Service};

/// Peers may refuse ports above, which they take for ephemeral ones.
const HIGHEST: u16 = 49_151;

/// How often the system is asked for ports.
const TRIES: u32 = 1_000;

/// What templates stand for, in one start of one peer.
#[derive(Debug)]
pub struct Setup<'a> {
    enter: Enter,
    certs: &'a Path,
    dir: &'a Path,
    target: Addresses,
    entries: [u16; Service::ALL.len()],
    /// The server's, then four more.
    tcp: [u16; 5],
    udp: u16,
}

// === impl Setup ===

impl<'a> Setup<'a> {
    /// Finds ports for everything that a template may name.
    pub fn new(peer: &Peer, certs: &'a Path, dir: &'a Path, target: Addresses) -> Result<Self> {
        let [a, b, c, d, e, entries @ ..] = free_tcp::<9>()?;
        Ok(Self {
            enter: peer.enter,
            certs,
            dir,
            target,
            entries,
            tcp: [a, b, c, d, e],
            udp: free_udp()?,
        })
    }

    /// Where the server listens for TCP when it is up.
    pub fn listens(&self) -> SocketAddr {
        local(self.tcp[0])
    }

    /// Where the server of a QUIC peer listens for agents.
    pub fn quic(&self) -> SocketAddr {
        local(self.udp)
    }

    /// How clients enter.
    pub fn route(&self) -> Route {
        match self.enter {
            Enter::Direct | Enter::Ports => Route::Direct,
            Enter::Proxy => Route::Proxy(self.listens()),
            // Abstract names have a space of their own: a port of this process makes it unique.
            Enter::Unix => Route::Unix(self.tcp[0]),
        }
    }

    /// What clients ask for: the services, or the ports at which the server offers them.
    pub fn entries(&self) -> Addresses {
        match self.enter {
            Enter::Ports => self.entries.map(local),
            Enter::Direct | Enter::Proxy | Enter::Unix => self.target,
        }
    }

    /// Writes the file of a command line, and returns its arguments.
    pub fn prepare(&self, launch: &Launch) -> Result<Vec<String>> {
        if let Some(file) = &launch.file {
            let mut text = self.fill(&file.text)?;
            for service in Service::ALL {
                text += &self.fill_for(service, &file.each)?;
            }
            fs::write(self.dir.join(&file.name), text)?;
        }
        let words = launch.arguments.split_whitespace();
        let mut arguments = words
            .map(|word| self.fill(word))
            .collect::<Result<Vec<_>>>()?;
        if let Some(each) = &launch.each {
            let services = Service::ALL.into_iter();
            let each = services.map(|service| self.fill_for(service, each));
            arguments.extend(each.collect::<Result<Vec<_>>>()?);
        }
        Ok(arguments)
    }

    fn fill_for(&self, service: Service, template: &str) -> Result<String> {
        let (target, entry) = (self.target[service.index()], self.entries[service.index()]);
        let text = template
            .replace("{service}", service.name())
            .replace("{target}", &target.to_string())
            .replace("{target_ip}", &target.ip().to_string())
            .replace("{target_port}", &target.port().to_string())
            .replace("{entry}", &entry.to_string());
        self.fill(&text)
    }

    fn fill(&self, template: &str) -> Result<String> {
        let mut text = template
            .replace("{certs}", &self.certs.display().to_string())
            .replace("{dir}", &self.dir.display().to_string())
            .replace("{udp}", &self.udp.to_string())
            .replace("{tcp}", &self.tcp[0].to_string());
        for (number, port) in self.tcp.iter().enumerate().skip(1) {
            text = text.replace(&format!("{{tcp{number}}}"), &port.to_string());
        }
        if text.contains("{p12}") {
            text = text.replace("{p12}", &self.pkcs12()?);
        }
        Ok(text)
    }

    /// The server's certificate and key in one file, which lives as long as the cell.
    fn pkcs12(&self) -> Result<String> {
        let path = self.dir.join("server.p12");
        let done = Command::new("openssl")
            .args(["pkcs12", "-export", "-passout", "pass:bench", "-out"])
            .arg(&path)
            .arg("-in")
            .arg(self.certs.join("server.pem"))
            .arg("-inkey")
            .arg(self.certs.join("server-key.pem"))
            .output()
            .context("run openssl, which writes PKCS 12")?;
        let error = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "openssl pkcs12: {error}");
        Ok(path.display().to_string())
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// TCP ports that are free now: few peers report a port that the kernel chose.
fn free_tcp<const N: usize>() -> Result<[u16; N]> {
    free(|| {
        let listener = TcpListener::bind(local(0))?;
        Ok((listener.local_addr()?.port(), listener))
    })
}

fn free_udp() -> Result<u16> {
    let [port] = free(|| {
        let socket = UdpSocket::bind(local(0))?;
        Ok((socket.local_addr()?.port(), socket))
    })?;
    Ok(port)
}

/// Holds every port until all are found, so that none is found twice.
fn free<T, const N: usize>(bind: impl Fn() -> Result<(u16, T)>) -> Result<[u16; N]> {
    let (mut found, mut held) = (Vec::new(), Vec::new());
    for _ in 0..TRIES {
        let (port, socket) = bind()?;
        held.push(socket);
        if port <= HIGHEST {
            found.push(port);
        }
        if let Ok(all) = <[u16; N]>::try_from(&*found) {
            return Ok(all);
        }
    }
    bail!("the system has no {N} free ports up to {HIGHEST}")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn free_ports_are_different_and_not_too_high() {
        let ports: [u16; 8] = free_tcp().unwrap();
        assert_eq!(HashSet::from(ports).len(), 8);
        assert!(ports.iter().all(|port| (1_024..=HIGHEST).contains(port)));
        assert!(free_udp().unwrap() <= HIGHEST);
    }

    #[test]
    fn no_template_of_any_peer_is_left_open() {
        let dir = tempfile::tempdir().unwrap();
        for peer in Peer::all() {
            let target = [1, 2, 3, 4].map(local);
            let setup = Setup::new(peer, dir.path(), dir.path(), target).unwrap();
            for launch in &peer.launch {
                let file = launch.file.as_ref();
                if file.is_some_and(|file| file.text.contains("{p12}")) {
                    // Needs openssl and certificates.
                    continue;
                }
                let mut all = setup.prepare(launch).unwrap().join(" ");
                if let Some(file) = file {
                    all += &fs::read_to_string(dir.path().join(&file.name)).unwrap();
                }
                assert!(!all.contains(['{', '}']), "{}: {all}", peer.name);
                if launch.each.is_some() {
                    let last = format!("R:127.0.0.1:{}:127.0.0.1:4", setup.entries[3]);
                    assert!(all.ends_with(&last), "{all}");
                }
            }
        }
    }
}
