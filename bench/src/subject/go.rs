//! What a Go program carries about itself: the build information in every binary.

use std::path::Path;

use anyhow::{Context, Result};
use tokio::fs;

/// The version of `module` that the binary was built from, or with; `unknown` when it does not say.
///
/// # Errors
/// When the binary cannot be read.
pub(super) async fn version(binary: &Path, module: &str) -> Result<String> {
    let bytes = fs::read(binary).await;
    let bytes = bytes.with_context(|| format!("read {}", binary.display()))?;
    let found = ["mod", "dep"]
        .iter()
        .find_map(|what| behind(&bytes, &format!("{what}\t{module}\t")));
    Ok(found.unwrap_or_else(|| "unknown".to_owned()))
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
    fn the_version_is_found_in_the_build_information() {
        let binary = b"\0\xffdep\tgithub.com/quic-go/quic-go\tv0.43.1\th1:x=\nmod\t";
        let start = "dep\tgithub.com/quic-go/quic-go\t";
        assert_eq!(behind(binary, start).as_deref(), Some("v0.43.1"));
        assert_eq!(behind(binary, "mod\tgithub.com/quic-go/quic-go\t"), None);
        assert_eq!(behind(b"cut v0.4", "cut "), None);
    }
}
