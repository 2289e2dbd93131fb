//! Which crate depends on which, as cargo reads the manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::drawing::{self, Arrows};
use crate::modules::{self, Graph};

/// A package of this repository.
#[derive(Debug)]
pub(crate) struct Package {
    /// The folder, from the root of the repository.
    pub(crate) folder: String,
    /// Folders of our packages that it is built from. Tests and examples may use more.
    pub(crate) dependencies: BTreeSet<String>,
    /// The name under which the library is imported.
    pub(crate) library: String,
    /// First files of the library (no name) and of programs (the name of the file).
    pub(crate) roots: Vec<(Option<String>, PathBuf)>,
}

/// The packages of a workspace.
///
/// # Panics
/// If cargo cannot read the workspace.
pub(crate) fn packages(repository: &Path, workspace: &str) -> Vec<Package> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(repository.join(workspace))
        .output()
        .expect("cargo runs this test");
    assert!(
        output.status.success(),
        "cargo metadata in {workspace}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    parse(repository, &metadata)
}

fn parse(repository: &Path, metadata: &Value) -> Vec<Package> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let folder = |path: &Path| {
        let inside = path.strip_prefix(repository).ok()?;
        inside.to_str().map(str::to_owned)
    };
    let one = |package: &Value| {
        let manifest = PathBuf::from(text(&package["manifest_path"])?);
        let dependencies = list(&package["dependencies"])
            .iter()
            .filter(|dependency| dependency["kind"] != "dev")
            .filter_map(|dependency| folder(Path::new(dependency["path"].as_str()?)))
            .collect();
        let mut library = text(&package["name"])?.replace('-', "_");
        let mut roots = Vec::new();
        for target in list(&package["targets"]) {
            let file = PathBuf::from(text(&target["src_path"])?);
            match target["kind"][0].as_str()? {
                "lib" | "proc-macro" => {
                    library = text(&target["name"])?;
                    roots.push((None, file));
                }
                "bin" => {
                    let name = file.file_stem()?.to_str()?.to_owned();
                    roots.push((Some(name), file));
                }
                _ => {}
            }
        }
        Some(Package {
            folder: folder(manifest.parent()?)?,
            dependencies,
            library,
            roots,
        })
    };
    list(&metadata["packages"])
        .iter()
        .map(|package| one(package).expect("a package has a name, a manifest and targets"))
        .collect()
}

/// Where the manifests and the table differ, in either direction.
pub(crate) fn differences(packages: &[Package], table: &Arrows<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for package in packages {
        let folder = package.folder.as_str();
        let Some(allowed) = table.get(folder) else {
            found.push(format!("{folder} is not in the table"));
            continue;
        };
        for to in &package.dependencies {
            if !allowed.contains(&to.as_str()) {
                found.push(format!("{folder} -> {to} is not allowed"));
            }
        }
        for to in allowed {
            if !package.dependencies.contains(*to) {
                found.push(format!("nothing uses the arrow {folder} -> {to}"));
            }
        }
    }
    for folder in table.keys() {
        if !packages.iter().any(|package| package.folder == *folder) {
            found.push(format!("the table names {folder}, which is no package"));
        }
    }
    found
}

/// The table as the manifests are.
pub(crate) fn rows(packages: &[Package]) -> String {
    let row = |package: &Package| drawing::line(&package.folder, &package.dependencies);
    packages.iter().map(row).collect()
}

/// Packages that are built from each other.
pub(crate) fn cycles(packages: &[Package]) -> Vec<String> {
    let graph: Graph<String> = packages
        .iter()
        .map(|package| {
            let arrow = |to: &String| (to.clone(), String::from("Cargo.toml"));
            let arrows: BTreeMap<_, _> = package.dependencies.iter().map(arrow).collect();
            (package.folder.clone(), arrows)
        })
        .collect();
    modules::circles(&graph)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<Package> {
        let metadata = serde_json::json!({ "packages": [
            {
                "name": "program-a",
                "manifest_path": "/r/program-a/Cargo.toml",
                "dependencies": [
                    { "name": "b", "kind": null, "path": "/r/crates/b" },
                    { "name": "c", "kind": "build", "target": "cfg(unix)", "path": "/r/crates/c" },
                    { "name": "d", "kind": "dev", "path": "/r/crates/d" },
                    { "name": "foreign", "kind": null },
                ],
                "targets": [
                    { "kind": ["lib"], "name": "program_a", "src_path": "/r/program-a/src/lib.rs" },
                    { "kind": ["bin"], "name": "a", "src_path": "/r/program-a/src/main.rs" },
                    { "kind": ["test"], "name": "t", "src_path": "/r/program-a/tests/t.rs" },
                ],
            },
            {
                "name": "b",
                "manifest_path": "/r/crates/b/Cargo.toml",
                "dependencies": [],
                "targets": [],
            },
        ] });
        parse(Path::new("/r"), &metadata)
    }

    #[test]
    fn tables_and_manifests_are_compared_in_both_directions() {
        let packages = sample();
        let table = drawing::parse("program-a -> crates/b crates/c\n crates/b ->");
        assert_eq!(differences(&packages, &table), [""; 0]);
        let table = drawing::parse("program-a -> crates/b crates/d\n crates/e ->");
        assert_eq!(
            differences(&packages, &table),
            [
                "program-a -> crates/c is not allowed",
                "nothing uses the arrow program-a -> crates/d",
                "crates/b is not in the table",
                "the table names crates/e, which is no package",
            ]
        );
    }

    #[test]
    fn libraries_and_programs_are_read_and_tests_are_not() {
        let names: Vec<_> = sample()[0]
            .roots
            .iter()
            .map(|(name, _)| name.clone())
            .collect();
        assert_eq!(names, [None, Some(String::from("main"))]);
    }

    #[test]
    fn cycles_between_crates_are_found() {
        let mut packages = sample();
        assert_eq!(cycles(&packages), [""; 0]);
        packages[1].dependencies.insert(String::from("program-a"));
        assert_eq!(cycles(&packages).len(), 1);
    }
}
