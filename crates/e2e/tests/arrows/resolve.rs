//! What a path means: a module or an item of the same crate, or something foreign.

use std::slice;

use crate::paths::Segments;
use crate::source::{Crate, ModulePath};

/// How often one name may lead to another before the search is given up.
const STEPS: usize = 12;

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Meaning {
    /// A path of another crate, beginning with its name.
    Foreign(Segments),
    /// A module of this crate, and the item in it.
    Own(ModulePath, Option<String>),
}

/// Where the search ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// At the module that the path names. Only a root's re-exports are followed: a root which
    /// re-exports is no module of its own.
    Module,
    /// At the definition, through all re-exports.
    Definition,
}

/// Looks up the names of a crate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resolver<'a> {
    krate: &'a Crate,
    until: Until,
}

// === impl Resolver ===

impl<'a> Resolver<'a> {
    pub(crate) fn new(krate: &'a Crate, until: Until) -> Self {
        Self { krate, until }
    }

    /// All that a path in the module `from` can mean: the sources do not say whether a name is
    /// meant as a type, a value or a macro.
    pub(crate) fn resolve(self, from: &[String], path: &[String]) -> Vec<Meaning> {
        self.meanings(from, path, STEPS)
    }

    fn meanings(self, from: &[String], path: &[String], steps: usize) -> Vec<Meaning> {
        let (Some(module), Some((first, rest))) =
            (self.krate.modules.get(from), path.split_first())
        else {
            return Vec::new();
        };
        let Some(steps) = steps.checked_sub(1) else {
            return Vec::new();
        };
        match first.as_str() {
            "" => vec![Meaning::Foreign(rest.to_vec())],
            "crate" => self.walk(&module.root, rest, steps),
            "self" => self.walk(from, rest, steps),
            "super" => {
                let up = path.iter().take_while(|name| *name == "super").count();
                let above = &from[..from.len().saturating_sub(up)];
                self.walk(above, &path[up..], steps)
            }
            "Self" => Vec::new(),
            _ => {
                let found = self.look_up(from, path, steps);
                if !found.is_empty() {
                    found
                } else if *first == self.krate.library && !module.root.is_empty() {
                    self.walk(&[], rest, steps)
                } else {
                    vec![Meaning::Foreign(path.to_vec())]
                }
            }
        }
    }

    /// Follows a path from a module downwards.
    fn walk(self, module: &[String], path: &[String], steps: usize) -> Vec<Meaning> {
        let Some(name) = path.first() else {
            return vec![Meaning::Own(module.to_vec(), None)];
        };
        let own = Meaning::Own(module.to_vec(), Some(name.clone()));
        if !self.has_child(module, name) && self.until == Until::Module && !self.is_root(module) {
            return vec![own];
        }
        let found = self.look_up(module, path, steps);
        if found.is_empty() { vec![own] } else { found }
    }

    /// The meanings of a path whose first name is in scope of a module; empty if it is not.
    fn look_up(self, module: &[String], path: &[String], steps: usize) -> Vec<Meaning> {
        let (Some(scope), Some((name, rest))) =
            (self.krate.modules.get(module), path.split_first())
        else {
            return Vec::new();
        };
        if self.has_child(module, name) {
            return self.walk(&[module, slice::from_ref(name)].concat(), rest, steps);
        }
        let mut found = Vec::new();
        if scope.items.contains_key(name) {
            found.push(Meaning::Own(module.to_vec(), Some(name.clone())));
        }
        for import in &scope.imports {
            if import.name == *name && import.path != [name.clone()] {
                let path = [&import.path, rest].concat();
                found.extend(self.meanings(module, &path, steps));
            }
        }
        if !found.is_empty() {
            return found;
        }
        for glob in scope.imports.iter().filter(|import| import.name == "*") {
            for meaning in self.meanings(module, &glob.path, steps) {
                if let Meaning::Own(target, None) = meaning
                    && target != module
                    && let Some(steps) = steps.checked_sub(1)
                {
                    found.extend(self.look_up(&target, path, steps));
                }
            }
        }
        found
    }

    fn has_child(self, module: &[String], name: &str) -> bool {
        let child = [module, &[name.to_owned()]].concat();
        // A program's root is kept beside the modules of the library, but is none of them.
        self.krate
            .modules
            .get(&child)
            .is_some_and(|found| found.root != child)
    }

    fn is_root(self, module: &[String]) -> bool {
        self.krate
            .modules
            .get(module)
            .is_some_and(|found| found.root == module)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    fn resolve(until: Until, source: &str, from: &str, path: &str) -> Vec<String> {
        let krate = samples::library(source);
        let split = |path: &str| -> Segments {
            let parts = path.split("::").map(str::to_owned);
            parts.filter(|_| !path.is_empty()).collect()
        };
        Resolver::new(&krate, until)
            .resolve(&split(from), &split(path))
            .into_iter()
            .map(|meaning| match meaning {
                Meaning::Foreign(path) => format!("::{}", path.join("::")),
                Meaning::Own(module, item) => {
                    format!("{} {}", module.join("::"), item.unwrap_or_default())
                }
            })
            .collect()
    }

    #[test]
    fn names_are_found_the_way_the_compiler_does() {
        let source = "pub use crate::a::T; use q::R; use b::c;
            mod a { pub struct T; use super::b; mod d { use super::super::b::*; } }
            mod b { pub mod c { pub fn f() {} pub use q::X as Y; } pub use self::c::f as g; }";
        for (from, path, expected) in [
            ("", "T", "a T"),
            ("", "R::new", "::q::R::new"),
            ("a", "crate::T", "a T"),
            ("a", "b::c::f", "b::c f"),
            ("a", "super::c::f", "b::c f"),
            ("a", "b::g", "b::c f"),
            ("a::d", "c::Y", "::q::X"),
            ("a::d", "g", "b::c f"),
            ("a", "::b::c", "::b::c"),
            ("a", "r::S", "::r::S"),
            ("a", "crate::b", "b "),
        ] {
            let found = resolve(Until::Definition, source, from, path);
            assert_eq!(found, [expected], "{path} in {from}");
        }
    }

    #[test]
    fn an_arrow_ends_at_the_module_that_is_named() {
        let source =
            "pub use a::T; mod a { pub use crate::b::T; } mod b { pub struct T; } mod c {}";
        for (path, expected) in [("crate::a::T", "a T"), ("crate::T", "a T")] {
            assert_eq!(resolve(Until::Module, source, "c", path), [expected]);
        }
        assert_eq!(resolve(Until::Definition, source, "c", "crate::T"), ["b T"]);
    }

    #[test]
    fn names_that_lead_in_a_circle_end() {
        let source = "pub use a::*; mod a { pub use crate::*; use clap; use b::x; use x::b; }";
        assert_eq!(
            resolve(Until::Definition, source, "a", "clap::Args"),
            ["::clap::Args"]
        );
        resolve(Until::Definition, source, "a", "b::y");
        resolve(Until::Definition, source, "a", "z");
    }
}
