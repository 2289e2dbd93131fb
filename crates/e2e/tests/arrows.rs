//! Nobody imports what the drawing in `docs/ARCHITECTURE.md` does not allow.
//!
//! These tables are the drawing; change both together.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A crate's folder, and which of our packages it may depend on.
const CRATES: &[(&str, &[&str])] = &[
    (
        "proxy-server",
        &[
            "towline-protocol",
            "towline-service",
            "towline-tls",
            "towline-tunnel",
        ],
    ),
    (
        "proxy-agent",
        &[
            "towline-agent",
            "towline-protocol",
            "towline-service",
            "towline-tunnel",
        ],
    ),
    (
        "agent-tcp",
        &[
            "towline-agent",
            "towline-protocol",
            "towline-service",
            "towline-tunnel",
        ],
    ),
    (
        "crates/agent",
        &[
            "towline-protocol",
            "towline-service",
            "towline-tls",
            "towline-tunnel",
        ],
    ),
    (
        "crates/tunnel",
        &["towline-congestion", "towline-protocol", "towline-tls"],
    ),
    (
        "bench",
        &[
            "proxy-server",
            "towline-agent",
            "towline-protocol",
            "towline-service",
            "towline-tls",
            "towline-tunnel",
        ],
    ),
    ("crates/protocol", &[]),
    ("crates/congestion", &[]),
    ("crates/service", &[]),
    ("crates/tls", &[]),
];

/// Names of our packages, as a manifest writes them.
const PACKAGES: &[&str] = &[
    "agent-tcp",
    "proxy-agent",
    "proxy-server",
    "towline-agent",
    "towline-bench",
    "towline-congestion",
    "towline-e2e",
    "towline-protocol",
    "towline-service",
    "towline-tls",
    "towline-tunnel",
];

/// From whom to whom.
type Arrows = &'static [(&'static str, &'static [&'static str])];

/// A module of a crate, and which modules of that crate it may import. `lib` and `main` wire.
const MODULES: &[(&str, Arrows)] = &[
    (
        "proxy-server",
        &[
            (
                "cli",
                &[
                    "agents", "clients", "forward", "frontend", "listener", "server",
                ],
            ),
            (
                "server",
                &[
                    "agents", "cli", "clients", "forward", "listener", "metrics", "registry",
                ],
            ),
            (
                "clients",
                &["forward", "frontend", "listener", "metrics", "request"],
            ),
            ("frontend", &["forward", "listener", "request"]),
            ("listener", &["request"]),
            ("agents", &["metrics", "registry"]),
            ("forward", &["metrics", "registry", "request", "router"]),
            ("router", &["registry", "request"]),
            ("metrics", &["registry"]),
            ("registry", &[]),
            ("request", &[]),
        ],
    ),
    (
        "crates/tunnel",
        &[
            ("splice", &["busy_poll", "stream", "tunnels"]),
            ("endpoint", &["knobs", "session", "udp"]),
            ("udp", &[]),
            ("control_stream", &["session", "stream"]),
            ("session", &["farewell", "figure", "stream"]),
            ("figure", &[]),
            ("farewell", &[]),
            ("stream", &[]),
            ("tunnels", &["busy_poll", "figure"]),
            ("busy_poll", &[]),
            ("knobs", &["congestion_adapter", "farewell"]),
            ("congestion_adapter", &[]),
        ],
    ),
    (
        "crates/protocol",
        &[
            ("control", &["refusal"]),
            ("head", &["refusal", "target"]),
            ("code", &[]),
            ("refusal", &[]),
            ("target", &[]),
        ],
    ),
    (
        "crates/congestion",
        &[
            ("phase", &["cubic", "path", "round"]),
            ("path", &["round"]),
            ("round", &["Ack"]),
            ("cubic", &[]),
            ("usage", &[]),
        ],
    ),
    (
        "crates/agent",
        &[
            (
                "program",
                &["args", "metrics", "outlet", "session_loop", "sessions"],
            ),
            ("sessions", &["metrics", "session_loop"]),
            ("session_loop", &["backoff"]),
            ("backoff", &[]),
            ("outlet", &["args", "dialer", "metrics"]),
            ("dialer", &["happy_eyeballs"]),
            ("args", &["session_loop"]),
            ("happy_eyeballs", &[]),
            ("metrics", &[]),
        ],
    ),
];

/// A foreign library, and the folders that may name it.
const DOORS: &[(&str, &[&str])] = &[
    ("quinn::", &["crates/tunnel"]),
    ("hyper::", &["crates/service"]),
    ("rcgen::", &["crates/tls"]),
    ("httparse::", &["crates/protocol"]),
    ("std::env::", &[]),
];

#[test]
fn crates_depend_only_along_the_arrows() {
    let mut broken = BTreeSet::new();
    for (folder, allowed) in CRATES {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        let dependencies = manifest
            .split("[dependencies]")
            .nth(1)
            .expect("dependencies");
        let dependencies = dependencies.split("\n[").next().unwrap_or_default();
        for package in PACKAGES {
            let named = dependencies.lines().any(|line| {
                line.strip_prefix(package)
                    .is_some_and(|rest| rest.starts_with([' ', '.']))
            });
            if named && !allowed.contains(package) {
                broken.insert(format!("{folder} -> {package}"));
            }
        }
    }
    assert!(
        broken.is_empty(),
        "forbidden arrows between crates:\n{broken:#?}"
    );
}

#[test]
fn modules_import_only_along_the_arrows() {
    let mut broken = BTreeSet::new();
    for (folder, arrows) in MODULES {
        let src = root().join(folder).join("src");
        for file in rust_files(&src) {
            let from = module_of(&src, &file);
            if matches!(from.as_str(), "lib" | "main") {
                continue;
            }
            let Some((_, allowed)) = arrows.iter().find(|(module, _)| *module == from) else {
                broken.insert(format!("{folder}: {from} is not in the table"));
                continue;
            };
            for to in imports(&code(&file)) {
                if to != from && !allowed.contains(&to.as_str()) {
                    broken.insert(format!("{folder}: {from} -> {to} ({})", file.display()));
                }
            }
        }
    }
    assert!(
        broken.is_empty(),
        "forbidden arrows between modules:\n{broken:#?}"
    );
}

#[test]
fn a_foreign_library_has_one_door() {
    let mut broken = BTreeSet::new();
    for (folder, _) in CRATES {
        for file in rust_files(&root().join(folder).join("src")) {
            for (library, doors) in DOORS {
                if !doors.contains(folder) && code(&file).contains(library) {
                    broken.insert(format!("{library} in {}", file.display()));
                }
            }
        }
    }
    assert!(
        broken.is_empty(),
        "libraries used outside their door:\n{broken:#?}"
    );
}

#[test]
fn the_tests_above_can_fail() {
    assert_eq!(
        imports("use crate::registry::Member;")
            .into_iter()
            .collect::<Vec<_>>(),
        ["registry"]
    );
    assert!(imports("// crate::registry").is_empty());
}

/// The repository's root.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A file without its comments and its tests, which may use anything.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).expect("a readable source");
    let text = text
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default();
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The first path segment after each `crate::`.
fn imports(text: &str) -> BTreeSet<String> {
    assert!(
        !text.contains("crate::{"),
        "write one `use crate::` per module"
    );
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| line.split("crate::").skip(1))
        .filter_map(|rest| {
            rest.split(|c: char| !c.is_alphanumeric() && c != '_')
                .next()
        })
        .map(str::to_owned)
        .collect()
}

/// `src/frontend/raw.rs` and `src/frontend.rs` both belong to `frontend`.
fn module_of(src: &Path, file: &Path) -> String {
    let inside = file.strip_prefix(src).expect("a file of this crate");
    let first = inside.iter().next().expect("a name");
    Path::new(first)
        .file_stem()
        .and_then(|stem| stem.to_str())
        .expect("a UTF-8 name")
        .to_owned()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
