//! Towline as it ships: mutual TLS, metrics, and the access log on, to a file.

use std::path::Path;

use anyhow::Result;

use super::{Ports, file, flag, program};

pub(super) const PROGRAMS: [&str; 2] = ["proxy-server", "proxy-agent"];

pub(super) type Flags = Vec<(&'static str, String)>;

pub(super) async fn describe(binaries: &Path) -> Result<String> {
    let version = program::first_line(&binaries.join(PROGRAMS[0]), &["--version"]).await?;
    Ok(format!(
        "{version} and proxy-agent with default flags: mutual TLS, metrics, log and access log on \
         (stderr to a file)"
    ))
}

/// The flags of server and agent.
pub(super) fn flags(ports: Ports, certs: &Path) -> (Flags, Flags) {
    let server = vec![
        flag("--listen-tcp", ports.tcp),
        flag("--listen-quic", ports.quic),
        flag("--admin-listen", "127.0.0.1:0"),
        file("--cert-file", certs, "server.pem"),
        file("--cert-key", certs, "server-key.pem"),
        file("--client-ca-file", certs, "ca.pem"),
    ];
    let agent = vec![
        flag("--server", ports.quic),
        flag("--admin-listen", "127.0.0.1:0"),
        file("--ca-file", certs, "ca.pem"),
        file("--cert-file", certs, "agent.pem"),
        file("--cert-key", certs, "agent-key.pem"),
    ];
    (server, agent)
}
