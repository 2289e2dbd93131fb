//! Towline as it ships: mutual TLS, metrics, and the access log on, to a file.

use std::path::Path;

use anyhow::Result;

use super::Swarm;
use super::program;
use super::setup::{Launch, Place, Setup, arguments, file, free_tcp, free_udp};
use crate::client::Route;

pub(super) const PROGRAMS: [&str; 2] = ["proxy-server", "proxy-agent"];

pub(super) async fn describe(binaries: &Path, flags: &[String]) -> Result<String> {
    let version = program::first_line(&binaries.join(PROGRAMS[0]), &["--version"]).await?;
    let flags = match flags {
        [] => "default flags".to_owned(),
        some => format!("`{}`, otherwise default flags", some.join(" ")),
    };
    Ok(format!(
        "{version} and proxy-agent with {flags}: mutual TLS, metrics, log and access log on \
         (stderr to a file)"
    ))
}

/// The programs with these flags for both, and where further agents find the server.
pub(super) fn set_up(place: Place<'_>, flags: &[String]) -> Result<(Setup, Swarm)> {
    let ([tcp], quic, certs) = (free_tcp()?, free_udp()?, place.certs);
    let mut server = arguments([
        ("--listen-tcp", tcp.to_string()),
        ("--listen-quic", quic.to_string()),
        ("--admin-listen", "127.0.0.1:0".to_owned()),
        ("--cert-file", file(certs, "server.pem")),
        ("--cert-key", file(certs, "server-key.pem")),
        ("--client-ca-file", file(certs, "ca.pem")),
    ]);
    let mut agent = arguments([
        ("--server", quic.to_string()),
        ("--admin-listen", "127.0.0.1:0".to_owned()),
        ("--ca-file", file(certs, "ca.pem")),
        ("--cert-file", file(certs, "agent.pem")),
        ("--cert-key", file(certs, "agent-key.pem")),
    ]);
    server.extend_from_slice(flags);
    agent.extend_from_slice(flags);
    let setup = Setup {
        server: Launch::new(PROGRAMS[0], server),
        agent: Launch::new(PROGRAMS[1], agent),
        up: tcp,
        route: Route::Proxy(tcp),
        at: place.target,
    };
    let swarm = Swarm {
        server: quic,
        certs: certs.to_owned(),
        flags: flags.to_vec(),
    };
    Ok((setup, swarm))
}
