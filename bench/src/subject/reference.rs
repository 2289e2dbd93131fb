//! The Go reference, gardener/quic-reverse-http-tunnel, with its default flags.

use std::path::Path;

use anyhow::Result;

use super::go;
use super::setup::{Launch, Place, Setup, arguments, file, free_tcp, free_udp};
use crate::client::Route;

pub(super) const PROGRAMS: [&str; 2] = ["quic-server", "quic-client"];

const MODULE: &str = "github.com/gardener/quic-reverse-http-tunnel";
const QUIC_MODULE: &str = "github.com/quic-go/quic-go";

pub(super) async fn describe(binaries: &Path) -> Result<String> {
    let path = binaries.join(PROGRAMS[0]);
    Ok(format!(
        "gardener/quic-reverse-http-tunnel {}, {}, quic-go {}, default flags: mutual TLS, no \
         access log",
        go::version(&path, MODULE).await?,
        go::origin(&path).await?,
        go::version(&path, QUIC_MODULE).await?,
    ))
}

pub(super) fn set_up(place: Place<'_>) -> Result<Setup> {
    let ([tcp], quic, certs) = (free_tcp()?, free_udp()?, place.certs);
    let server = arguments([
        ("--listen-tcp", tcp.to_string()),
        ("--listen-quic", quic.to_string()),
        ("--cert-file", file(certs, "server.pem")),
        ("--cert-key", file(certs, "server-key.pem")),
        ("--client-ca-file", file(certs, "ca.pem")),
    ]);
    let agent = arguments([
        ("--server", quic.to_string()),
        ("--ca-file", file(certs, "ca.pem")),
        ("--cert-file", file(certs, "agent.pem")),
        ("--cert-key", file(certs, "agent-key.pem")),
    ]);
    Ok(Setup {
        server: Launch::new(PROGRAMS[0], server),
        agent: Launch::new(PROGRAMS[1], agent),
        up: tcp,
        route: Route::Proxy(tcp),
        at: place.target,
    })
}
