//! Which module of a crate imports which, beside what the table says; and cycles.

use std::collections::{BTreeMap, BTreeSet};
use std::slice;

use crate::drawing::{self, Arrows};
use crate::resolve::{Meaning, Resolver, Until};
use crate::source::{Crate, ModulePath};

/// The name of a library's root, if it holds code of its own.
const LIBRARY: &str = "lib";

/// From each module to those that it imports, with one path that shows it.
pub(crate) type Graph<Node> = BTreeMap<Node, BTreeMap<Node, String>>;

/// Every path from one module to another, at any depth.
fn imports(krate: &Crate) -> Graph<ModulePath> {
    let resolver = Resolver::new(krate, Until::Module);
    let mut graph = Graph::new();
    for (from, module) in &krate.modules {
        // What a library's root re-exports is found where it is used.
        let facade = from.is_empty();
        let imports = module
            .imports
            .iter()
            .filter(|import| !(facade && import.exported))
            .map(|import| &import.path);
        let targets: &mut BTreeMap<ModulePath, String> = graph.entry(from.clone()).or_default();
        for path in imports.chain(&module.paths) {
            for meaning in resolver.resolve(from, path) {
                match meaning {
                    // `crate` alone, as in `use crate as name`, is no item of the root.
                    Meaning::Own(to, item) if to != *from && !(to.is_empty() && item.is_none()) => {
                        targets.entry(to).or_insert_with(|| path.join("::"));
                    }
                    _ => {}
                }
            }
        }
    }
    graph
}

/// The same between the modules that a crate's root declares. The root of a library counts if it
/// holds more than declarations and re-exports.
pub(crate) fn arrows(krate: &Crate) -> Graph<String> {
    let top = |module: &ModulePath| module.first().map_or(LIBRARY, String::as_str).to_owned();
    let mut graph = Graph::new();
    for (from, targets) in imports(krate) {
        let from_top = top(&from);
        let is_empty = |module: &ModulePath| krate.modules[module].items.is_empty();
        if from.is_empty() && targets.is_empty() && is_empty(&from) {
            continue;
        }
        let arrows: &mut BTreeMap<_, _> = graph.entry(from_top.clone()).or_default();
        for (to, example) in targets {
            if top(&to) != from_top {
                arrows.entry(top(&to)).or_insert(example);
            }
        }
    }
    graph
}

/// Where the sources and the table of a crate differ, in either direction.
pub(crate) fn differences(krate: &Crate, table: &Arrows<'_>) -> Vec<String> {
    let graph = arrows(krate);
    let folder = &krate.folder;
    let mut found = Vec::new();
    for (from, targets) in &graph {
        let Some(allowed) = table.get(from.as_str()) else {
            found.push(format!("{folder}: module {from} is not in the table"));
            continue;
        };
        for (to, example) in targets {
            if !allowed.contains(&to.as_str()) {
                found.push(format!(
                    "{folder}: {from} -> {to} is not allowed ({example})"
                ));
            }
        }
    }
    for (from, allowed) in table {
        let Some(targets) = graph.get(*from) else {
            found.push(format!(
                "{folder}: the table names {from}, which no file has"
            ));
            continue;
        };
        for to in allowed {
            if !targets.contains_key(*to) {
                found.push(format!("{folder}: nothing uses the arrow {from} -> {to}"));
            }
        }
    }
    found
}

/// The table of a crate as its sources are: importers come first.
pub(crate) fn rows(krate: &Crate) -> String {
    let graph = arrows(krate);
    let mut row = String::new();
    let mut left: BTreeSet<&String> = graph.keys().collect();
    let importers = |module: &String, left: &BTreeSet<&String>| {
        let imports = |other: &&&String| graph[**other].contains_key(module);
        left.iter().filter(imports).count()
    };
    // In a cycle every module waits for another; there the least imported is next.
    while let Some(module) = left
        .iter()
        .copied()
        .min_by_key(|name| importers(name, &left))
    {
        row.push_str(&drawing::line(module, graph[module].keys()));
        left.remove(module);
    }
    row
}

/// A cycle that is known: its text without the examples, and why it is left.
pub(crate) type KnownCycle = (&'static str, &'static str);

/// Cycles that are not in the table, and those of the table that are gone.
pub(crate) fn unknown_cycles(crates: &[Crate], table: &[KnownCycle]) -> Vec<String> {
    let all: Vec<String> = crates.iter().flat_map(cycles).collect();
    let is = |cycle: &str, known: &str| cycle.split(" (").next() == Some(known);
    let unknown = |cycle: &&String| !table.iter().any(|(known, _)| is(cycle, known));
    let gone = |(known, _): &&KnownCycle| !all.iter().any(|cycle| is(cycle, known));
    let unknown = all.iter().filter(unknown).cloned();
    let gone = table.iter().filter(gone);
    unknown
        .chain(gone.map(|(known, _)| format!("the table names a cycle that is gone: {known}")))
        .collect()
}

/// Modules with the same parent that import each other, directly or by way of others.
fn cycles(krate: &Crate) -> Vec<String> {
    let mut levels: BTreeMap<&[String], Graph<String>> = BTreeMap::new();
    let imports = imports(krate);
    for (from, targets) in &imports {
        for (to, example) in targets {
            let common = from.iter().zip(to).take_while(|(a, b)| a == b).count();
            let name = |module: &ModulePath| match module.get(common) {
                Some(name) => Some(name.clone()),
                None if common == 0 => Some(LIBRARY.to_owned()),
                // A module and its own child belong together.
                None => None,
            };
            if let (Some(a), Some(b)) = (name(from), name(to)) {
                let level = levels.entry(&from[..common]).or_default();
                let place = if from.is_empty() {
                    LIBRARY
                } else {
                    &from.join("::")
                };
                let example = format!("{place}: {example}");
                level.entry(a).or_default().entry(b).or_insert(example);
            }
        }
    }
    levels
        .into_iter()
        .flat_map(|(parent, graph)| {
            let place = [slice::from_ref(&krate.folder), parent].concat().join("::");
            let found = circles(&graph);
            found
                .into_iter()
                .map(move |circle| format!("{place}: {circle}"))
        })
        .collect()
}

/// For each node that can reach itself, a shortest way round; once for each set of nodes.
pub(crate) fn circles(graph: &Graph<String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for start in graph.keys() {
        if let Some(circle) = way_back(graph, start)
            && seen.insert(circle.iter().copied().collect::<BTreeSet<_>>())
        {
            let mut text = circle.iter().map(|node| node.as_str()).collect::<Vec<_>>();
            text.push(start);
            let examples = circle.iter().zip(text.iter().skip(1));
            let examples: Vec<&str> = examples
                .map(|(from, to)| graph[*from][*to].as_str())
                .collect();
            found.push(format!("{} ({})", text.join(" -> "), examples.join(", ")));
        }
    }
    found
}

/// The nodes of a shortest way from a node to itself, without the return to it.
fn way_back<'a>(graph: &'a Graph<String>, start: &'a String) -> Option<Vec<&'a String>> {
    let mut ways = vec![vec![start]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            let targets = way.last().and_then(|last| graph.get(*last));
            for to in targets.into_iter().flat_map(BTreeMap::keys) {
                if to == start {
                    return Some(way);
                }
                if seen.insert(to) {
                    longer.push([way.as_slice(), &[to]].concat());
                }
            }
        }
        ways = longer;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    const SOURCE: &str = "
        pub mod a { use crate::{b::T, c}; mod d { fn f() { super::super::e::g() } } }
        pub mod b { pub struct T; #[cfg(test)] mod tests { use crate::a::d; } }
        pub mod c { m!(crate::e::g()); }
        pub mod e { pub fn g() {} }";

    #[test]
    fn a_table_that_equals_the_sources_passes() {
        let table = drawing::parse("a -> b c e\n b ->\n c -> e\n e ->");
        assert_eq!(differences(&samples::library(SOURCE), &table), [""; 0]);
    }

    #[test]
    fn a_table_that_differs_fails() {
        let table = drawing::parse("a -> b e\n c -> b e\n e ->\n f ->");
        assert_eq!(
            differences(&samples::library(SOURCE), &table),
            [
                "crates/sample: a -> c is not allowed (crate::c)",
                "crates/sample: module b is not in the table",
                "crates/sample: nothing uses the arrow c -> b",
                "crates/sample: the table names f, which no file has",
            ]
        );
    }

    #[test]
    fn the_table_of_a_crate_begins_with_what_nothing_imports() {
        assert_eq!(
            rows(&samples::library(SOURCE)),
            "    a -> b c e\n    b ->\n    c -> e\n    e ->\n"
        );
    }

    #[test]
    fn a_root_counts_if_it_holds_code() {
        let thin =
            samples::library("pub use a::T; pub mod a { pub struct T; } mod b { use crate::T; }");
        assert_eq!(arrows(&thin).keys().collect::<Vec<_>>(), ["a", "b"]);
        assert!(arrows(&thin)["b"].contains_key("a"));
        let thick = samples::library("use a::T; pub struct S(T); pub mod a { pub struct T; }");
        assert!(arrows(&thick)["lib"].contains_key("a"));
    }

    #[test]
    fn a_program_imports_the_modules_of_its_library() {
        let package = samples::package(&[
            ("src/lib.rs", "pub mod cli; pub mod server;"),
            ("src/cli.rs", "use crate::server;"),
            ("src/server.rs", "mod deep; pub fn run() {}"),
            ("src/server/deep.rs", "use super::run;"),
            (
                "src/main.rs",
                "use sample::cli::Cli; mod own; fn main() { own::f() }",
            ),
            (
                "src/own.rs",
                "use crate::main; pub fn f() { sample::server::run() }",
            ),
        ]);
        let arrows = arrows(&package);
        assert_eq!(arrows["main"].keys().collect::<Vec<_>>(), ["cli", "server"]);
        assert_eq!(arrows["cli"].keys().collect::<Vec<_>>(), ["server"]);
        assert_eq!(arrows.keys().collect::<Vec<_>>(), ["cli", "main", "server"]);
        assert_eq!(cycles(&package), [""; 0]);
    }

    #[test]
    fn a_known_cycle_passes_until_it_is_gone() {
        let cycle = samples::library("mod a { use crate::b; } mod b { use crate::a; }");
        let known: &[KnownCycle] = &[("crates/sample: a -> b -> a", "a test")];
        assert_eq!(unknown_cycles(&[cycle], known), [""; 0]);
        let none = samples::library("mod a { use crate::b; } mod b {}");
        assert_eq!(
            unknown_cycles(&[none], known),
            ["the table names a cycle that is gone: crates/sample: a -> b -> a"]
        );
    }

    #[test]
    fn cycles_are_found_at_every_depth() {
        let found = |source: &str| cycles(&samples::library(source));
        assert_eq!(
            found(
                "mod a { use crate::b; } mod b { use crate::c::T; } mod c { fn f(_: crate::a::S) {} }"
            ),
            ["crates/sample: a -> b -> c -> a (a: crate::b, b: crate::c::T, c: crate::a::S)"]
        );
        assert_eq!(
            found("mod a { mod b { use super::c; } mod c { use super::b; } }"),
            ["crates/sample::a: b -> c -> b (a::b: super::c, a::c: super::b)"]
        );
        assert_eq!(
            found("use a::f; struct S; mod a { use crate::S; pub fn f() {} }").len(),
            1,
            "a root with code is a module as well"
        );
        assert_eq!(
            found("mod a { mod b { use super::S; } struct S(b::T); }"),
            [""; 0]
        );
        assert_eq!(found(SOURCE), [""; 0]);
    }
}
