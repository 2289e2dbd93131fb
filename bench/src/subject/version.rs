//! Says what exactly a peer is: fills the template `about` with versions.
//!
//! `{version}` is found as the peer's data say, `{quic-go}` is the version of that module and
//! `{origin}` the revision that the program was built from, both in a Go program's build
//! information; `{flags}` are the flags that Towline's programs are given.

use std::path::Path;

use anyhow::{Context, Result};
use tokio::fs;

use super::peers::{Peer, Version};
use crate::process::printed;

/// The library of most QUIC peers.
const QUIC_GO: &str = "github.com/quic-go/quic-go";

/// What exactly is measured, in one line.
pub async fn describe(peer: &Peer, binaries: &Path, flags: &str) -> Result<String> {
    let (Some(launch), Some(version)) = (peer.launch.first(), &peer.version) else {
        return Ok(peer.about.clone());
    };
    let program = binaries.join(&launch.program);
    let flags = match flags {
        "" => "default flags".to_owned(),
        some => format!("`{some}`, otherwise default flags"),
    };
    let text = peer.about.replace("{flags}", &flags);
    match version {
        Version::Line(start) => {
            let printed = printed(&program, &["--version"]).await?;
            let line = printed.lines().find_map(|line| line.strip_prefix(start));
            Ok(text.replace("{version}", line.unwrap_or("unknown").trim()))
        }
        Version::Go(module) => {
            let build = fs::read(&program).await;
            let build = build.with_context(|| format!("read {}", program.display()))?;
            let mut text = text
                .replace("{version}", &version_of(module, &build))
                .replace("{quic-go}", &version_of(QUIC_GO, &build));
            if text.contains("{origin}") {
                text = text.replace("{origin}", &origin(&program, &build).await?);
            }
            Ok(text)
        }
    }
}

/// The version of a module that a Go program was built from, or with.
fn version_of(module: &str, build: &[u8]) -> String {
    let mut found = ["mod", "dep"].iter();
    let found = found.find_map(|what| behind(build, &format!("{what}\t{module}\t")));
    found.unwrap_or_else(|| "unknown".to_owned())
}

/// The source of a Go program whose version no registry gave: the revision, or a digest.
async fn origin(program: &Path, build: &[u8]) -> Result<String> {
    if let Some(revision) = behind(build, "build\tvcs.revision=") {
        return Ok(format!("revision {revision}"));
    }
    let digest = printed(Path::new("sha256sum"), &[&program.to_string_lossy()]).await?;
    let digest = digest.split(' ').next().unwrap_or_default();
    Ok(format!(
        "revision not recorded, SHA-256 of the binary {digest}"
    ))
}

/// What stands behind `start`, up to the next white space.
fn behind(bytes: &[u8], start: &str) -> Option<String> {
    let mut windows = bytes.windows(start.len());
    let at = windows.position(|window| window == start.as_bytes())?;
    let rest = &bytes[at + start.len()..];
    let end = rest.iter().position(u8::is_ascii_whitespace)?;
    Some(String::from_utf8_lossy(&rest[..end]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_revisions_are_found_in_the_build_information() {
        let build = b"\0\xffdep\tgithub.com/quic-go/quic-go\tv0.43.1\th1:x=\nmod\t\n\
                      build\tvcs.revision=4f2c1aa\n";
        assert_eq!(version_of(QUIC_GO, build), "v0.43.1");
        assert_eq!(version_of("github.com/quic-go", build), "unknown");
        let revision = behind(build, "build\tvcs.revision=");
        assert_eq!(revision.as_deref(), Some("4f2c1aa"));
        assert_eq!(behind(b"cut v0.4", "cut "), None);
    }
}
