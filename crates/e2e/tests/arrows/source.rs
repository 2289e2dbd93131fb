//! A crate as a tree of modules, read from its entry points the way the compiler does.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::slice;

use syn::visit::Visit;
use syn::{Item, ItemMod, Lit, Meta};

use crate::paths::{self, Collector, Import, Segments};
use crate::signatures::{self, Signature};

/// Where a module stands in its crate. The library's root is empty; a program's root is the name
/// of its file, `main` as a rule.
pub(crate) type ModulePath = Vec<String>;

/// The sources of one crate.
#[derive(Debug)]
pub(crate) struct Crate {
    /// The folder, from the root of the repository.
    pub(crate) folder: String,
    /// The name by which programs of the package import its library.
    pub(crate) library: String,
    pub(crate) modules: BTreeMap<ModulePath, Module>,
}

/// What one module declares and names.
#[derive(Debug, Default)]
pub(crate) struct Module {
    /// Which module `crate` means here: the library's root or a program's.
    pub(crate) root: ModulePath,
    /// Declared items, and whether they are `pub`.
    pub(crate) items: BTreeMap<String, bool>,
    pub(crate) imports: Vec<Import>,
    pub(crate) paths: Vec<Segments>,
    /// Type aliases, and the paths that they stand for.
    pub(crate) aliases: BTreeMap<String, Vec<Segments>>,
    pub(crate) signatures: Vec<Signature>,
}

/// Gives the text of a file, if there is one.
type ReadFile<'a> = &'a dyn Fn(&Path) -> Option<String>;

/// Which file is read, and for which crate.
struct Place<'a> {
    read: ReadFile<'a>,
    /// The file at hand.
    file: PathBuf,
    /// Where files of child modules are.
    children: PathBuf,
    root: &'a [String],
}

// === impl Crate ===

impl Crate {
    pub(crate) fn new(folder: &str, library: &str) -> Self {
        Self {
            folder: folder.to_owned(),
            library: library.to_owned(),
            modules: BTreeMap::new(),
        }
    }

    /// Reads a library (`root` is empty) or a program, and all modules that it declares.
    ///
    /// # Panics
    /// If a file is missing or is no Rust.
    pub(crate) fn read(&mut self, root: &[String], file: &Path, read: ReadFile<'_>) {
        let text = read(file).unwrap_or_else(|| panic!("no file {}", file.display()));
        let parsed = syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let place = Place {
            read,
            file: file.to_owned(),
            children: file.parent().unwrap_or_else(|| Path::new("")).to_owned(),
            root,
        };
        self.add_module(root.to_vec(), &parsed.items, &place);
    }

    fn add_module(&mut self, path: ModulePath, items: &[Item], place: &Place<'_>) {
        let mut module = Module {
            root: place.root.to_vec(),
            ..Module::default()
        };
        let mut exported_macros = Vec::new();
        for item in items {
            if paths::test_only(paths::attributes(item)) {
                continue;
            }
            match item {
                Item::Mod(child) => self.add_child(&path, child, place),
                Item::Macro(definition) if is_exported(definition) => {
                    exported_macros.extend(definition.ident.as_ref().map(paths::name));
                    module.add(item);
                }
                _ => module.add(item),
            }
        }
        self.modules.entry(path.clone()).or_default().merge(module);
        // `#[macro_export]` puts a macro into the root.
        if path != place.root {
            let root = self.modules.entry(place.root.to_vec()).or_default();
            for name in exported_macros {
                let inside = &path[place.root.len()..];
                let path = [&[String::from("crate")], inside, slice::from_ref(&name)].concat();
                root.imports.push(Import {
                    name,
                    path,
                    exported: true,
                });
            }
        }
    }

    fn add_child(&mut self, parent: &[String], child: &ItemMod, place: &Place<'_>) {
        let name = paths::name(&child.ident);
        let path = [parent, slice::from_ref(&name)].concat();
        if let Some((_, items)) = &child.content {
            let place = Place {
                file: place.file.clone(),
                children: place.children.join(&name),
                ..*place
            };
            self.add_module(path, items, &place);
            return;
        }
        let beside = place.children.join(format!("{name}.rs"));
        let inside = place.children.join(&name).join("mod.rs");
        let named = path_attribute(child).map(|path| {
            place
                .file
                .parent()
                .unwrap_or_else(|| Path::new(""))
                .join(path)
        });
        let (file, text) = [named, Some(beside), Some(inside)]
            .into_iter()
            .flatten()
            .find_map(|file| (place.read)(&file).map(|text| (file, text)))
            .unwrap_or_else(|| panic!("{}: no file for mod {name}", place.file.display()));
        let parsed = syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        if paths::test_only(&parsed.attrs) {
            return;
        }
        let place = Place {
            file,
            children: place.children.join(&name),
            ..*place
        };
        self.add_module(path, &parsed.items, &place);
    }
}

// === impl Module ===

impl Module {
    fn add(&mut self, item: &Item) {
        let mut found = Collector::default();
        found.visit_item(item);
        self.declare(item);
        self.signatures.extend(signatures::of(item));
        self.imports.extend(found.imports);
        self.paths.extend(found.paths);
    }

    fn declare(&mut self, item: &Item) {
        let (ident, visibility) = match item {
            Item::Const(item) => (&item.ident, &item.vis),
            Item::Enum(item) => (&item.ident, &item.vis),
            Item::Fn(item) => (&item.sig.ident, &item.vis),
            Item::Static(item) => (&item.ident, &item.vis),
            Item::Struct(item) => (&item.ident, &item.vis),
            Item::Trait(item) => (&item.ident, &item.vis),
            Item::TraitAlias(item) => (&item.ident, &item.vis),
            Item::Type(item) => {
                let aliased = paths::collect(|found| found.visit_type(&item.ty));
                self.aliases.insert(paths::name(&item.ident), aliased);
                (&item.ident, &item.vis)
            }
            Item::Union(item) => (&item.ident, &item.vis),
            Item::Macro(item) => {
                let name = item.ident.as_ref().map(paths::name);
                self.items.extend(name.map(|name| (name, false)));
                return;
            }
            Item::ExternCrate(item) => {
                let rename = item.rename.as_ref().map(|(_, name)| name);
                self.imports.push(Import {
                    name: paths::name(rename.unwrap_or(&item.ident)),
                    path: vec![String::new(), paths::name(&item.ident)],
                    exported: paths::is_public(&item.vis),
                });
                return;
            }
            _ => return,
        };
        self.items
            .insert(paths::name(ident), paths::is_public(visibility));
    }

    fn merge(&mut self, other: Self) {
        self.root = other.root;
        self.items.extend(other.items);
        self.imports.extend(other.imports);
        self.paths.extend(other.paths);
        self.aliases.extend(other.aliases);
        self.signatures.extend(other.signatures);
    }
}

fn is_exported(definition: &syn::ItemMacro) -> bool {
    let mut attributes = definition.attrs.iter();
    attributes.any(|attribute| attribute.path().is_ident("macro_export"))
}

/// The value of `#[path = "…"]`.
fn path_attribute(module: &ItemMod) -> Option<String> {
    module.attrs.iter().find_map(|attribute| {
        let Meta::NameValue(pair) = &attribute.meta else {
            return None;
        };
        match &pair.value {
            syn::Expr::Lit(value) if pair.path.is_ident("path") => match &value.lit {
                Lit::Str(text) => Some(text.value()),
                _ => None,
            },
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    fn modules(krate: &Crate) -> Vec<String> {
        krate.modules.keys().map(|path| path.join("::")).collect()
    }

    #[test]
    fn modules_are_read_from_wherever_the_compiler_would() {
        let files = samples::package(&[
            (
                "src/lib.rs",
                "mod a; mod b { mod c; } #[path = \"else/where.rs\"] mod d;",
            ),
            ("src/a/mod.rs", "mod e;"),
            ("src/a/e.rs", ""),
            ("src/b/c.rs", ""),
            ("src/else/where.rs", ""),
            ("src/main.rs", "mod f;"),
            ("src/f.rs", ""),
        ]);
        assert_eq!(
            modules(&files),
            ["", "a", "a::e", "b", "b::c", "d", "main", "main::f"]
        );
        assert_eq!(
            files.modules[&[String::from("main"), String::from("f")][..]].root,
            ["main"]
        );
    }

    #[test]
    fn modules_of_tests_are_not_read() {
        let files = samples::package(&[
            (
                "src/lib.rs",
                "#[cfg(test)] mod a; mod b; #[cfg(test)] mod c {}",
            ),
            ("src/b.rs", "#![cfg(test)]"),
            ("src/main.rs", ""),
        ]);
        assert_eq!(modules(&files), ["", "main"]);
    }

    #[test]
    #[should_panic(expected = "src/lib.rs: no file for mod a")]
    fn a_module_without_a_file_fails() {
        samples::package(&[("src/lib.rs", "mod a;")]);
    }

    #[test]
    fn an_exported_macro_is_in_the_root() {
        let krate = samples::library("mod a { #[macro_export] macro_rules! m { () => {} } }");
        let import = &krate.modules[&[][..]].imports[0];
        assert_eq!(import.path, ["crate", "a", "m"]);
    }
}
