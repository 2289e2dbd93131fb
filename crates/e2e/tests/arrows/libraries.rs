//! Which crate names which foreign library, and which public signatures do.

use std::collections::{BTreeMap, BTreeSet};

use crate::drawing::{self, Arrows};
use crate::paths::Segments;
use crate::resolve::{Meaning, Resolver, Until};
use crate::signatures::Signature;
use crate::source::{Crate, Module};

/// The libraries of a table that a module names, each with one path that shows it.
fn named<'a>(
    krate: &Crate,
    (place, module): (&[String], &Module),
    libraries: &[&'a str],
) -> BTreeMap<&'a str, String> {
    let resolver = Resolver::new(krate, Until::Definition);
    let imports = module.imports.iter().map(|import| &import.path);
    // A name alone is in scope by an import, or is a variable.
    let paths = module.paths.iter().filter(|path| path.len() > 1);
    let mut found = BTreeMap::new();
    for path in imports.chain(paths) {
        for meaning in resolver.resolve(place, path) {
            for library in libraries_of(&meaning, libraries) {
                found.entry(library).or_insert_with(|| path.join("::"));
            }
        }
    }
    found
}

/// The libraries that a foreign path belongs to: `tokio_rustls::rustls::Error` is of two.
fn libraries_of<'a>(meaning: &Meaning, libraries: &[&'a str]) -> Vec<&'a str> {
    let Meaning::Foreign(path) = meaning else {
        return Vec::new();
    };
    let begins = |path: &[String], library: &str| {
        let mut names = path.iter();
        library
            .split("::")
            .all(|part| names.next().is_some_and(|name| name == part))
    };
    let rest = path.get(1..).unwrap_or_default();
    libraries
        .iter()
        .filter(|library| begins(path, library) || begins(rest, library))
        .copied()
        .collect()
}

/// Libraries that are named outside the crates and modules that own them, and owners that name
/// them nowhere.
pub(crate) fn outside_owners(crates: &[Crate], table: &Arrows<'_>) -> Vec<String> {
    let libraries: Vec<&str> = table.keys().copied().collect();
    let mut found = Vec::new();
    let mut used = BTreeSet::new();
    for krate in crates {
        for (path, module) in &krate.modules {
            let place = place_of(krate, path);
            for (library, example) in named(krate, (path, module), &libraries) {
                let owner = table[library].iter().find(|owner| is_inside(&place, owner));
                if let Some(owner) = owner {
                    used.insert((library, *owner));
                } else {
                    found.push(format!("{place} names {library} ({example})"));
                }
            }
        }
    }
    for (library, owners) in table {
        let idle = owners
            .iter()
            .filter(|owner| !used.contains(&(*library, **owner)))
            .map(|owner| format!("{owner} is an owner of {library} but does not name it"));
        found.extend(idle);
    }
    found
}

/// The table as the sources are, by whole crates.
pub(crate) fn rows(crates: &[Crate], table: &Arrows<'_>) -> String {
    let libraries: Vec<&str> = table.keys().copied().collect();
    let mut owners: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for krate in crates {
        for (path, module) in &krate.modules {
            for library in named(krate, (path, module), &libraries).into_keys() {
                owners
                    .entry(library)
                    .or_default()
                    .insert(krate.folder.clone());
            }
        }
    }
    let row = |library: &&str| {
        let owners = owners.get(library).into_iter().flatten();
        drawing::line(library, owners)
    };
    libraries.iter().map(row).collect()
}

/// A public signature that may name a hidden library: the item, the library and the reason.
pub(crate) type Exception = (&'static str, &'static str, &'static str);

/// Public signatures that name a library which their crate hides, and exceptions that none needs.
pub(crate) fn leaks(
    crates: &[Crate],
    hidden: &Arrows<'_>,
    exceptions: &[Exception],
) -> Vec<String> {
    let mut found = Vec::new();
    let mut needed = BTreeSet::new();
    for krate in crates {
        let libraries: Vec<&str> = hidden
            .iter()
            .filter(|(_, owners)| owners.contains(&krate.folder.as_str()))
            .map(|(library, _)| *library)
            .collect();
        for (path, module) in &krate.modules {
            for signature in &module.signatures {
                let item = format!("{}::{}", place_of(krate, path), signature.item);
                for library in leaked(krate, path, signature, &libraries) {
                    let exception = exceptions
                        .iter()
                        .find(|(listed, of, _)| *listed == item && *of == library);
                    if let Some((item, library, _)) = exception {
                        needed.insert((*item, *library));
                    } else {
                        found.push(format!("(\"{item}\", \"{library}\", \"…\"),"));
                    }
                }
            }
        }
    }
    for folder in hidden.values().flatten() {
        if !crates.iter().any(|krate| krate.folder == *folder) {
            found.push(format!("the table names {folder}, which is no crate"));
        }
    }
    for (item, library, _) in exceptions {
        if !needed.contains(&(*item, *library)) {
            found.push(format!("no signature {item} names {library}"));
        }
    }
    found
}

fn leaked<'a>(
    krate: &Crate,
    module: &[String],
    signature: &Signature,
    libraries: &[&'a str],
) -> BTreeSet<&'a str> {
    let resolver = Resolver::new(krate, Until::Definition);
    let is_private = |of: &Segments| {
        resolver
            .resolve(module, of)
            .iter()
            .any(|meaning| match meaning {
                Meaning::Own(module, Some(item)) => {
                    krate.modules[module].items.get(item) == Some(&false)
                }
                _ => false,
            })
    };
    if signature.of.as_ref().is_some_and(is_private) {
        return BTreeSet::new();
    }
    let mut found = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut left: Vec<(Vec<String>, &Segments)> = signature
        .paths
        .iter()
        .map(|path| (module.to_vec(), path))
        .collect();
    while let Some((module, path)) = left.pop() {
        for meaning in resolver.resolve(&module, path) {
            found.extend(libraries_of(&meaning, libraries));
            // An alias shows what it stands for.
            if let Meaning::Own(module, Some(item)) = meaning
                && seen.insert((module.clone(), item.clone()))
            {
                let paths = krate.modules[&module].aliases.get(&item);
                left.extend(
                    paths
                        .into_iter()
                        .flatten()
                        .map(|path| (module.clone(), path)),
                );
            }
        }
    }
    found
}

/// `crates/quic::session`, or `crates/quic::lib` for the root.
fn place_of(krate: &Crate, module: &[String]) -> String {
    let module = if module.is_empty() {
        String::from("lib")
    } else {
        module.join("::")
    };
    format!("{}::{module}", krate.folder)
}

fn is_inside(place: &str, owner: &str) -> bool {
    place
        .strip_prefix(owner)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    fn outside(source: &str, owners: &str) -> Vec<String> {
        let owners = owners.split_whitespace().collect();
        outside_owners(
            &[samples::library(source)],
            &Arrows::from([("quinn", owners)]),
        )
    }

    #[test]
    fn only_owners_name_a_library() {
        let source =
            "pub mod a { use quinn::{self as q, Connection}; } pub mod b { pub fn f() {} }";
        assert_eq!(outside(source, "crates/sample"), [""; 0]);
        assert_eq!(outside(source, "crates/sample::a"), [""; 0]);
        assert_eq!(
            outside(source, "crates/sample::b"),
            [
                "crates/sample::a names quinn (quinn)",
                "crates/sample::b is an owner of quinn but does not name it",
            ]
        );
        assert_eq!(outside(source, "").len(), 1);
    }

    #[test]
    fn a_library_is_found_under_any_name() {
        for source in [
            "use quinn as other;",
            "extern crate quinn;",
            "fn f() -> ::quinn::Connection {}",
            "#[derive(quinn::Debug)] struct S;",
            "fn f() { m!(quinn::g()) }",
            "use other::quinn::Connection;",
            "macro_rules! m { () => { quinn::g() } }",
            "mod a { fn f(_: super::b::Renamed) {} } mod b { pub use quinn::Connection as Renamed; }",
        ] {
            assert!(!outside(source, "").is_empty(), "{source}");
        }
        for source in [
            "// quinn::g()\n/// [`quinn::g`]\nfn f() {}",
            "fn f(quinn: u8) -> u8 { quinn }",
            "#[cfg(test)] mod tests { use quinn::Connection; }",
            "use quinn_udp::State;",
            "mod quinn { pub fn f() {} } fn f() { quinn::f() }",
        ] {
            assert_eq!(outside(source, ""), [""; 0], "{source}");
        }
    }

    #[test]
    fn a_part_of_a_library_has_an_owner_as_well() {
        let krate = samples::library("fn f() { std::env::var(\"A\"); std::mem::drop(1) }");
        assert_eq!(
            outside_owners(&[krate], &Arrows::from([("std::env", vec![])])),
            ["crates/sample::lib names std::env (std::env::var)"]
        );
    }

    fn leaks_of(source: &str, exceptions: &[Exception]) -> Vec<String> {
        let hidden = &Arrows::from([("quinn", vec!["crates/sample"])]);
        leaks(&[samples::library(source)], hidden, exceptions)
    }

    #[test]
    fn public_signatures_that_name_a_hidden_library_fail() {
        for (source, item) in [
            ("use quinn::Connection as C; pub fn f(_: &C) {}", "f"),
            ("pub fn f() -> impl Fn(quinn::Connection) {}", "f"),
            ("pub fn f<T>() where T: Into<quinn::Connection> {}", "f"),
            ("pub struct S(pub quinn::Connection);", "S"),
            ("pub enum E { V { #[from] x: quinn::Error } }", "E"),
            ("pub type A = Vec<quinn::Connection>;", "A"),
            ("type A = quinn::Connection; pub fn f(_: A) {}", "f"),
            ("pub use quinn::Connection;", "use Connection"),
            ("pub use quinn;", "use quinn"),
            ("mod a { pub(crate) use quinn::C; } pub use a::C;", "use C"),
            ("pub const C: quinn::VarInt = x();", "C"),
            ("pub trait T: quinn::Runtime {}", "T"),
            ("pub trait T { fn f(&self) -> quinn::C; }", "T::f"),
            ("pub trait T { type F: Into<quinn::C>; }", "T::F"),
            ("pub struct S; impl S { pub fn f(_: quinn::C) {} }", "S::f"),
            ("pub struct S; impl T for S { type F = quinn::C; }", "S::F"),
        ] {
            let expected = format!("(\"crates/sample::lib::{item}\", \"quinn\", \"…\"),");
            assert_eq!(leaks_of(source, &[]), [expected], "{source}");
        }
    }

    #[test]
    fn a_library_is_hidden_by_crates_that_exist() {
        let hidden = Arrows::from([("quinn", vec!["crates/gone"])]);
        assert_eq!(
            leaks(&[samples::library("")], &hidden, &[]),
            ["the table names crates/gone, which is no crate"]
        );
    }

    #[test]
    fn what_is_private_may_name_a_hidden_library() {
        for source in [
            "fn f(_: quinn::C) {}",
            "pub(crate) fn f(_: quinn::C) {}",
            "pub fn f() { quinn::g() }",
            "pub struct S { c: quinn::C }",
            "pub struct S; impl S { fn f(_: quinn::C) {} }",
            "struct S; impl S { pub fn f(_: quinn::C) {} }",
            "pub struct S; impl quinn::Runtime for S { fn f(_: quinn::C) {} }",
            "pub struct S; impl From<quinn::C> for S { fn from(_: quinn::C) -> Self { S } }",
            "pub(crate) use quinn::C;",
        ] {
            assert_eq!(leaks_of(source, &[]), [""; 0], "{source}");
        }
    }

    #[test]
    fn an_exception_is_for_one_item_and_must_be_needed() {
        let exception: Exception = ("crates/sample::lib::f", "quinn", "a test");
        assert_eq!(leaks_of("pub fn f(_: quinn::C) {}", &[exception]), [""; 0]);
        assert_eq!(
            leaks_of("pub fn g(_: quinn::C) {}", &[exception]),
            [
                "(\"crates/sample::lib::g\", \"quinn\", \"…\"),",
                "no signature crates/sample::lib::f names quinn",
            ]
        );
    }
}
