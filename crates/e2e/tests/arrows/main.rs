//! The sources follow the drawing in `docs/ARCHITECTURE.md`: crates and modules import along its
//! arrows only, no modules import each other in a circle, each foreign library is named by its
//! owning crates only, and public signatures do not show it.
//!
//! `tables.rs` is the drawing; change both together. A test that fails prints the table as the
//! sources are, and `cargo test -p towline-e2e --test arrows -- --nocapture` prints those of all
//! modules. Tests and examples may import anything. The rules are about names: a type that is only
//! inferred, and a macro that is used without a path, are not seen.

mod drawing;
mod libraries;
mod manifests;
mod modules;
mod paths;
mod resolve;
mod samples;
mod signatures;
mod source;
mod tables;
mod tokens;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use crate::manifests::Package;
use crate::source::Crate;

#[test]
fn crates_depend_only_along_the_arrows() {
    let packages = packages();
    let table = drawing::parse(tables::CRATES);
    let mut found = manifests::differences(&packages, &table);
    for folder in tables::TOOLS {
        if !table.contains_key(folder) {
            found.push(format!("{folder} is a tool, but no crate"));
        }
    }
    let rows = manifests::rows(&packages);
    report("arrows between crates", &found, &rows);
    report("cycles of crates", &manifests::cycles(&packages), "");
}

#[test]
#[expect(
    clippy::print_stdout,
    reason = "the tables are updated from the output"
)]
fn modules_import_only_along_the_arrows() {
    let mut found = Vec::new();
    let mut rows = String::new();
    let mut tables = drawing::sections(tables::MODULES);
    for krate in product() {
        let row = format!("  {}:\n{}\n", krate.folder, modules::rows(krate));
        print!("{row}");
        let table = tables.remove(krate.folder.as_str()).unwrap_or_default();
        let table = drawing::parse_lines(table);
        let differences = modules::differences(krate, &table);
        if !differences.is_empty() {
            rows.push_str(&row);
        }
        found.extend(differences);
    }
    for folder in tables.keys() {
        found.push(format!("the table names {folder}, which is no crate"));
    }
    report("arrows between modules", &found, &rows);
}

#[test]
fn no_modules_import_each_other() {
    let found = modules::unknown_cycles(product(), tables::CYCLES);
    report("cycles of modules", &found, "");
}

#[test]
fn a_foreign_library_is_named_by_its_owners_only() {
    let table = drawing::parse(tables::OWNERS);
    let found = libraries::outside_owners(&CRATES, &table);
    let rows = libraries::rows(&CRATES, &table);
    report("libraries and their owners", &found, &rows);
}

#[test]
fn public_signatures_name_no_hidden_library() {
    let hidden = drawing::parse(tables::HIDDEN);
    let found = libraries::leaks(product(), &hidden, tables::EXCEPTIONS);
    report("public signatures that name a hidden library", &found, "");
}

/// Fails if anything was found, and shows the rows as they are.
fn report(what: &str, found: &[String], rows: &str) {
    let found_lines = found.join("\n  ");
    let rows = if rows.is_empty() {
        String::new()
    } else {
        format!("\nas the sources are:\n{rows}")
    };
    assert!(found.is_empty(), "{what}:\n  {found_lines}{rows}");
}

fn repository() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().expect("the repository's root exists")
}

fn packages() -> Vec<Package> {
    let repository = repository();
    let workspaces = tables::WORKSPACES.iter();
    workspaces
        .flat_map(|workspace| manifests::packages(&repository, workspace))
        .collect()
}

/// All crates, tools last. Parsed once for all tests.
static CRATES: LazyLock<Vec<Crate>> = LazyLock::new(|| {
    let read = |file: &Path| fs::read_to_string(file).ok();
    let one = |package: Package| {
        let mut krate = Crate::new(&package.folder, &package.library);
        for (program, file) in &package.roots {
            krate.read(program.as_slice(), file, &read);
        }
        krate
    };
    let mut crates: Vec<_> = packages().into_iter().map(one).collect();
    crates.sort_by_key(is_tool);
    crates
});

/// The crates that have a table of their modules.
fn product() -> &'static [Crate] {
    let count = CRATES.iter().filter(|krate| !is_tool(krate)).count();
    &CRATES[..count]
}

fn is_tool(krate: &Crate) -> bool {
    tables::TOOLS.contains(&krate.folder.as_str())
}
