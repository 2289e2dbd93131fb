//! The Go reference, gardener/quic-reverse-http-tunnel, with its default flags.

use std::path::Path;

use anyhow::{Context, Result};
use tokio::fs;

use super::towline::Flags;
use super::{Ports, file, flag};

pub(super) const PROGRAMS: [&str; 2] = ["quic-server", "quic-client"];

/// How Go's build information, which every binary carries, starts the lines that matter here.
const MODULE: &str = "mod\tgithub.com/gardener/quic-reverse-http-tunnel\t";
const QUIC_MODULE: &str = "dep\tgithub.com/quic-go/quic-go\t";

pub(super) async fn describe(binaries: &Path) -> Result<String> {
    let path = binaries.join(PROGRAMS[0]);
    let binary = fs::read(&path).await;
    let binary = binary.with_context(|| format!("read {}", path.display()))?;
    let version = |module| version(&binary, module).unwrap_or_else(|| "unknown".to_owned());
    Ok(format!(
        "gardener/quic-reverse-http-tunnel {}, quic-go {}, default flags: mutual TLS, no access log",
        version(MODULE),
        version(QUIC_MODULE),
    ))
}

/// The flags of server and agent.
pub(super) fn flags(ports: Ports, certs: &Path) -> (Flags, Flags) {
    let server = vec![
        flag("--listen-tcp", ports.tcp),
        flag("--listen-quic", ports.quic),
        file("--cert-file", certs, "server.pem"),
        file("--cert-key", certs, "server-key.pem"),
        file("--client-ca-file", certs, "ca.pem"),
    ];
    let agent = vec![
        flag("--server", ports.quic),
        file("--ca-file", certs, "ca.pem"),
        file("--cert-file", certs, "agent.pem"),
        file("--cert-key", certs, "agent-key.pem"),
    ];
    (server, agent)
}

/// What stands behind `module`, up to the next tab or line end.
fn version(binary: &[u8], module: &str) -> Option<String> {
    let start = binary
        .windows(module.len())
        .position(|window| window == module.as_bytes())?;
    let rest = &binary[start + module.len()..];
    let end = rest.iter().position(u8::is_ascii_whitespace)?;
    Some(String::from_utf8_lossy(&rest[..end]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_in_the_build_information() {
        let binary = b"\0\xffdep\tgithub.com/quic-go/quic-go\tv0.43.1\th1:x=\nmod\t";
        assert_eq!(version(binary, QUIC_MODULE).as_deref(), Some("v0.43.1"));
        assert_eq!(version(binary, MODULE), None);
        assert_eq!(version(b"cut v0.4", "cut "), None);
    }
}
