//! rathole: a TCP connection between server and client for each visitor, with or without TLS.
//!
//! `nodelay` is its default and what it documents for latency. The server's certificate is
//! verified; rathole knows no certificates of clients.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::program;
use super::setup::{Launch, Place, Setup, file, free_tcp};
use crate::client::Route;
use crate::target::Addresses;

pub(super) const PROGRAMS: [&str; 1] = ["bin/rathole"];

/// What protects the key in the file that the server reads; the file is thrown away.
const PASSWORD: &str = "bench";

/// Whether the bytes between server and agent are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    /// TLS.
    Tls,
    /// Nothing.
    Plain,
}

pub(super) async fn describe(binaries: &Path, transport: Transport) -> Result<String> {
    let path = binaries.join(PROGRAMS[0]);
    let version = program::line_with(&path, "--version", "Build Version:").await?;
    let carrier = match transport {
        Transport::Tls => "TLS with the server's certificate",
        Transport::Plain => "TCP, NOT ENCRYPTED",
    };
    Ok(format!(
        "rathole {version}, dependencies newer than its lock file's: {carrier}, a connection for \
         each tunnel, fixed ports, log at info"
    ))
}

pub(super) fn set_up(place: Place<'_>, transport: Transport) -> Result<Setup> {
    let [up, ports @ ..] = free_tcp::<5>()?;
    let (server, agent) = (place.dir.join("server.toml"), place.dir.join("client.toml"));
    let mut text = format!("[server]\nbind_addr = \"{up}\"\ndefault_token = \"bench\"\n");
    if transport == Transport::Tls {
        let identity = identity(place)?;
        write!(
            text,
            "[server.transport]\ntype = \"tls\"\n[server.transport.tls]\n\
             pkcs12 = \"{identity}\"\npkcs12_password = \"{PASSWORD}\"\n"
        )?;
    }
    let names = place.target.named();
    services(
        &mut text,
        "server",
        "bind_addr",
        names.map(|(name, _)| name),
        ports,
    )?;
    fs::write(&server, text)?;

    let mut text = format!("[client]\nremote_addr = \"{up}\"\ndefault_token = \"bench\"\n");
    if transport == Transport::Tls {
        write!(
            text,
            "[client.transport]\ntype = \"tls\"\n[client.transport.tls]\n\
             trusted_root = \"{}\"\nhostname = \"localhost\"\n",
            file(place.certs, "ca.pem")
        )?;
    }
    let targets = names.map(|(_, target)| target);
    services(
        &mut text,
        "client",
        "local_addr",
        names.map(|(name, _)| name),
        targets,
    )?;
    fs::write(&agent, text)?;

    let launch = |name, role: &str, config: &Path| Launch {
        name,
        program: PROGRAMS[0],
        arguments: vec![role.to_owned(), config.display().to_string()],
    };
    Ok(Setup {
        server: launch("rathole-server", "--server", &server),
        agent: launch("rathole-client", "--client", &agent),
        up,
        route: Route::Direct,
        at: Addresses::from(ports),
    })
}

fn services(
    text: &mut String,
    role: &str,
    key: &str,
    names: [&str; 4],
    addresses: [SocketAddr; 4],
) -> Result<()> {
    for (name, address) in names.into_iter().zip(addresses) {
        write!(text, "[{role}.services.{name}]\n{key} = \"{address}\"\n")?;
    }
    Ok(())
}

/// The server's certificate and key in the one format that rathole reads.
fn identity(place: Place<'_>) -> Result<String> {
    let path = file(place.dir, "server.p12");
    let done = Command::new("openssl")
        .args(["pkcs12", "-export", "-out", &path])
        .args(["-in", &file(place.certs, "server.pem")])
        .args(["-inkey", &file(place.certs, "server-key.pem")])
        .args(["-passout", &format!("pass:{PASSWORD}")])
        .output()
        .context("run openssl, which makes the file that rathole reads")?;
    let words = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "openssl pkcs12: {words}");
    Ok(path)
}
