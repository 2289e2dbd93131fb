//! The paths that a piece of source names: in types, expressions, attributes, `use` and macros.

use syn::buffer::TokenBuffer;
use syn::ext::IdentExt;
use syn::visit::{self, Visit};
use syn::{
    Arm, Attribute, Expr, Field, FieldValue, ImplItem, Item, ItemUse, Local, Macro, Meta,
    TraitItem, UseTree, Variant, VisRestricted, Visibility,
};

use crate::tokens;

/// The segments of a path. A leading `::` is an empty first segment.
pub(crate) type Segments = Vec<String>;

/// What one name of a `use` declaration brings into scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Import {
    /// The name in scope: the alias if there is one, `*` for a glob.
    pub(crate) name: String,
    /// Where it comes from, as written.
    pub(crate) path: Segments,
    /// Whether the visibility is more than private, which makes it a re-export.
    pub(crate) exported: bool,
}

/// Collects paths and imports, without what is compiled for tests only.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    pub(crate) paths: Vec<Segments>,
    pub(crate) imports: Vec<Import>,
}

// === impl Collector ===

impl Visit<'_> for Collector {
    fn visit_item(&mut self, item: &Item) {
        if !test_only(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &ImplItem) {
        let attributes = match item {
            ImplItem::Const(item) => &item.attrs,
            ImplItem::Fn(item) => &item.attrs,
            ImplItem::Type(item) => &item.attrs,
            ImplItem::Macro(item) => &item.attrs,
            _ => &Vec::new(),
        };
        if !test_only(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_trait_item(&mut self, item: &TraitItem) {
        let attributes = match item {
            TraitItem::Const(item) => &item.attrs,
            TraitItem::Fn(item) => &item.attrs,
            TraitItem::Type(item) => &item.attrs,
            TraitItem::Macro(item) => &item.attrs,
            _ => &Vec::new(),
        };
        if !test_only(attributes) {
            visit::visit_trait_item(self, item);
        }
    }

    fn visit_field(&mut self, field: &Field) {
        if !test_only(&field.attrs) {
            visit::visit_field(self, field);
        }
    }

    fn visit_field_value(&mut self, field: &FieldValue) {
        if !test_only(&field.attrs) {
            visit::visit_field_value(self, field);
        }
    }

    fn visit_variant(&mut self, variant: &Variant) {
        if !test_only(&variant.attrs) {
            visit::visit_variant(self, variant);
        }
    }

    fn visit_arm(&mut self, arm: &Arm) {
        if !test_only(&arm.attrs) {
            visit::visit_arm(self, arm);
        }
    }

    fn visit_local(&mut self, local: &Local) {
        if !test_only(&local.attrs) {
            visit::visit_local(self, local);
        }
    }

    fn visit_expr(&mut self, expression: &Expr) {
        let attributes = match expression {
            Expr::Block(block) => &block.attrs,
            Expr::Call(call) => &call.attrs,
            Expr::MethodCall(call) => &call.attrs,
            _ => &Vec::new(),
        };
        if !test_only(attributes) {
            visit::visit_expr(self, expression);
        }
    }

    fn visit_path(&mut self, path: &syn::Path) {
        self.paths.push(segments(path));
        visit::visit_path(self, path);
    }

    /// `pub(crate)` names no module; `pub(in crate::module)` does.
    fn visit_vis_restricted(&mut self, visibility: &VisRestricted) {
        if visibility.in_token.is_some() {
            visit::visit_vis_restricted(self, visibility);
        }
    }

    fn visit_item_use(&mut self, item: &ItemUse) {
        let exported = !matches!(item.vis, Visibility::Inherited);
        let prefix = if item.leading_colon.is_some() {
            vec![String::new()]
        } else {
            Vec::new()
        };
        flatten(&item.tree, &prefix, exported, &mut self.imports);
        self.visit_visibility(&item.vis);
    }

    fn visit_macro(&mut self, item: &Macro) {
        visit::visit_macro(self, item);
        let tokens = TokenBuffer::new2(item.tokens.clone());
        tokens::scan(tokens.begin(), &[], &mut self.paths);
    }

    /// Arguments of an attribute are paths too (`#[derive(clap::Args)]`, `value_parser =
    /// crate::size::parse`), and so are strings in them (`#[serde(with = "crate::seconds")]`).
    fn visit_attribute(&mut self, attribute: &Attribute) {
        if attribute.path().is_ident("doc") {
            return;
        }
        visit::visit_attribute(self, attribute);
        if let Meta::List(list) = &attribute.meta {
            let tokens = TokenBuffer::new2(list.tokens.clone());
            tokens::scan(tokens.begin(), &[], &mut self.paths);
            tokens::strings(tokens.begin(), &mut self.paths);
        }
    }
}

/// The attributes of an item.
pub(crate) fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Whether the attributes keep an item out of every build but those of tests: `#[test]`,
/// `#[tokio::test]`, or a `#[cfg]` that holds in tests only.
pub(crate) fn test_only(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let is_test = segments(attribute.path())
            .last()
            .is_some_and(|name| name == "test");
        let is_cfg = attribute.path().is_ident("cfg");
        is_test || is_cfg && attribute.parse_args().is_ok_and(|cfg| implies_test(&cfg))
    })
}

/// Whether a condition of `#[cfg]` can hold in tests only.
fn implies_test(condition: &Meta) -> bool {
    let Meta::List(list) = condition else {
        return condition.path().is_ident("test");
    };
    let Ok(parts) =
        list.parse_args_with(syn::punctuated::Punctuated::<Meta, syn::Token![,]>::parse_terminated)
    else {
        return false;
    };
    match list.path.get_ident().map(ToString::to_string).as_deref() {
        Some("all") => parts.iter().any(implies_test),
        Some("any") => !parts.is_empty() && parts.iter().all(implies_test),
        _ => false,
    }
}

pub(crate) fn segments(path: &syn::Path) -> Segments {
    let colon = path.leading_colon.as_ref().map(|_| String::new());
    let names = path.segments.iter().map(|part| name(&part.ident));
    colon.into_iter().chain(names).collect()
}

/// An identifier without `r#`.
pub(crate) fn name(ident: &syn::Ident) -> String {
    ident.unraw().to_string()
}

fn flatten(tree: &UseTree, prefix: &[String], exported: bool, imports: &mut Vec<Import>) {
    let mut import = |name: String, last: String| {
        let mut path = prefix.to_vec();
        // `use a::{self}` imports `a` itself.
        if last != "self" || prefix.is_empty() {
            path.push(last.clone());
        }
        let name = if name == "self" {
            path.last().cloned().unwrap_or_default()
        } else {
            name
        };
        imports.push(Import {
            name,
            path,
            exported,
        });
    };
    match tree {
        UseTree::Name(tree) => import(name(&tree.ident), name(&tree.ident)),
        UseTree::Rename(tree) => import(name(&tree.rename), name(&tree.ident)),
        UseTree::Glob(_) => imports.push(Import {
            name: String::from("*"),
            path: prefix.to_vec(),
            exported,
        }),
        UseTree::Path(tree) => {
            let prefix = [prefix, &[name(&tree.ident)]].concat();
            flatten(&tree.tree, &prefix, exported, imports);
        }
        UseTree::Group(group) => {
            for tree in &group.items {
                flatten(tree, prefix, exported, imports);
            }
        }
    }
}

/// The paths in a part of an item.
pub(crate) fn collect(visit: impl FnOnce(&mut Collector)) -> Vec<Segments> {
    let mut found = Collector::default();
    visit(&mut found);
    found.paths
}

pub(crate) fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(source: &str) -> Vec<String> {
        let mut found = Collector::default();
        found.visit_file(&syn::parse_file(source).unwrap());
        found.paths.iter().map(|path| path.join("::")).collect()
    }

    fn imports(source: &str) -> Vec<(String, String, bool)> {
        let mut found = Collector::default();
        found.visit_file(&syn::parse_file(source).unwrap());
        let each = |import: Import| (import.name, import.path.join("::"), import.exported);
        found.imports.into_iter().map(each).collect()
    }

    #[test]
    fn groups_aliases_and_globs_are_flattened() {
        let import = |name: &str, path: &str| (String::from(name), String::from(path), false);
        assert_eq!(
            imports("use a::{self, b::{c as d, e}, f::*}; use ::g; use crate::{h as _};"),
            [
                import("a", "a"),
                import("d", "a::b::c"),
                import("e", "a::b::e"),
                import("*", "a::f"),
                import("g", "::g"),
                import("_", "crate::h"),
            ]
        );
        assert!(imports("pub(crate) use a::b;")[0].2, "a re-export");
    }

    #[test]
    fn inline_paths_are_seen_wherever_they_stand() {
        let source = "fn f(x: &dyn a::T<b::U>) -> impl c::V { <d::W as e::X>::y(f::Z { .. }) }
                      pub(in crate::g) struct S where h::A: Sized; pub(crate) struct R;";
        assert_eq!(
            paths(source)
                .into_iter()
                .filter(|path| path.contains("::"))
                .collect::<Vec<_>>(),
            [
                "a::T", "b::U", "c::V", "d::W", "e::X::y", "f::Z", "crate::g", "h::A"
            ]
        );
        assert!(paths("pub(crate) struct R;").is_empty());
    }

    #[test]
    fn macros_and_attributes_are_scanned() {
        let found = paths(
            "macro_rules! m { () => { use $crate::{a::b, c}; d::e(f, g: h) } }
             #[derive(i::J, K)] #[l(m = n::o, p = \"q::r\", s = \"t\", u(v = \"w::x y\"))] struct S;",
        );
        let found: Vec<&str> = found
            .iter()
            .map(String::as_str)
            .filter(|path| path.contains("::"))
            .collect();
        assert_eq!(
            found,
            ["crate::a::b", "crate::c", "d::e", "i::J", "n::o", "q::r"]
        );
    }

    #[test]
    fn comments_are_no_paths() {
        assert!(paths("/// See [`a::b`].\n// c::d\nstruct S;").is_empty());
    }

    #[test]
    fn what_only_tests_compile_is_left_out() {
        for attribute in ["test", "tokio::test", "cfg(test)", "cfg(all(unix, test))"] {
            let source = format!("#[{attribute}] fn f() {{ a::b() }}");
            assert!(paths(&source).is_empty(), "{attribute}");
        }
        for attribute in ["cfg(not(test))", "cfg(any(test, unix))", "cfg(unix)"] {
            let source = format!("#[{attribute}] fn f() {{ a::b() }}");
            assert!(
                paths(&source).contains(&String::from("a::b")),
                "{attribute}"
            );
        }
        let inside = "impl S { #[cfg(test)] fn f() { a::b() } }
                      struct S { #[cfg(test)] f: a::B }
                      fn f() { #[cfg(test)] let x = a::b(); #[cfg(test)] { a::b() } }";
        assert!(!paths(inside).iter().any(|path| path.contains("::")));
    }
}
