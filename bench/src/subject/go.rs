//! What a Go program carries about itself: the build information in every binary.

use std::path::Path;

use anyhow::{Context, Result};
use tokio::fs;

use super::program;

/// The version of `module` that the binary was built from, or with; `unknown` when it does not say.
///
/// # Errors
/// When the binary cannot be read.
pub(super) async fn version(binary: &Path, module: &str) -> Result<String> {
    let bytes = read(binary).await?;
    let found = ["mod", "dep"]
        .iter()
        .find_map(|what| behind(&bytes, &format!("{what}\t{module}\t")));
    Ok(found.unwrap_or_else(|| "unknown".to_owned()))
}

/// From which source the binary was built, for one that no registry gave a version: the revision
/// that it names, or a digest of the binary itself.
///
/// # Errors
/// When the binary cannot be read, or sha256sum is not installed.
pub(super) async fn origin(binary: &Path) -> Result<String> {
    if let Some(revision) = behind(&read(binary).await?, "build\tvcs.revision=") {
        return Ok(format!("revision {revision}"));
    }
    let digest = program::first_line(Path::new("sha256sum"), &[&binary.to_string_lossy()]).await?;
    let digest = digest.split(' ').next().unwrap_or_default();
    Ok(format!(
        "revision not recorded, SHA-256 of the binary {digest}"
    ))
}

async fn read(binary: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(binary).await;
    bytes.with_context(|| format!("read {}", binary.display()))
}

/// What stands behind `start`, up to the next tab or line end.
fn behind(binary: &[u8], start: &str) -> Option<String> {
    let at = binary
        .windows(start.len())
        .position(|window| window == start.as_bytes())?;
    let rest = &binary[at + start.len()..];
    let end = rest.iter().position(u8::is_ascii_whitespace)?;
    Some(String::from_utf8_lossy(&rest[..end]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::behind;

    #[test]
    fn versions_and_revisions_are_found_in_the_build_information() {
        let binary = b"\0\xffdep\tgithub.com/quic-go/quic-go\tv0.43.1\th1:x=\nmod\t\n\
                       build\tvcs.revision=4f2c1aa\n";
        let revision = behind(binary, "build\tvcs.revision=");
        assert_eq!(revision.as_deref(), Some("4f2c1aa"));
        let start = "dep\tgithub.com/quic-go/quic-go\t";
        assert_eq!(behind(binary, start).as_deref(), Some("v0.43.1"));
        assert_eq!(behind(binary, "mod\tgithub.com/quic-go/quic-go\t"), None);
        assert_eq!(behind(b"cut v0.4", "cut "), None);
    }
}
