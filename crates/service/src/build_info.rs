//! Version and commit of this build, for `--version`, the log and a metric.

use std::sync::LazyLock;

use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// The version that all programs of the workspace share, for example `0.1.0`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit in the variable `TOWLINE_COMMIT` at build time; `unknown` without it.
pub const COMMIT: &str = match option_env!("TOWLINE_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

static LONG_VERSION: LazyLock<String> = LazyLock::new(|| format!("{VERSION} ({COMMIT})"));

/// Version and commit as `--version` prints them: `0.1.0 (4f2c1aa)`.
pub fn long_version() -> &'static str {
    &LONG_VERSION
}

/// Registers `towline_build_info`, always 1, with the labels program, version and commit.
///
/// The registry must have no prefix of its own.
pub fn register(registry: &mut Registry, program: &'static str) {
    let labels = [
        ("program", program),
        ("version", VERSION),
        ("commit", COMMIT),
    ];
    registry.register(
        "towline_build",
        "Which build is running",
        Info::new(labels.to_vec()),
    );
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text;

    use super::*;

    #[test]
    fn the_metric_carries_program_version_and_commit() {
        let mut registry = Registry::default();
        register(&mut registry, "proxy-agent");
        let mut page = String::new();
        text::encode(&mut page, &registry).unwrap();
        let sample = format!(
            "towline_build_info{{program=\"proxy-agent\",version=\"{VERSION}\",commit=\"{COMMIT}\"}} 1\n"
        );
        assert!(page.contains(&sample), "{page}");
        assert!(long_version().starts_with(VERSION));
    }
}
