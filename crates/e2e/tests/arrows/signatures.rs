//! What the public items of a module show to users of its crate.

use syn::visit::Visit;
use syn::{Field, Fields, ImplItem, Item, ItemImpl, TraitItem};

use crate::paths::{self, Collector, Segments, collect, is_public};

/// What is public of one item: all that a user of the crate must be able to name.
#[derive(Debug)]
pub(crate) struct Signature {
    pub(crate) item: String,
    /// The type that an `impl` is for. If it is private, then so is the signature.
    pub(crate) of: Option<Segments>,
    pub(crate) paths: Vec<Segments>,
}

/// The public signatures of an item: one, or several if it has items inside.
pub(crate) fn of(item: &Item) -> Vec<Signature> {
    let mut signatures = Signatures(Vec::new());
    signatures.add(item);
    signatures.0
}

struct Signatures(Vec<Signature>);

// === impl Signatures ===

impl Signatures {
    /// Notes what is public of an item.
    fn add(&mut self, item: &Item) {
        match item {
            Item::Const(item) if is_public(&item.vis) => {
                self.sign(&item.ident, collect(|found| found.visit_type(&item.ty)));
            }
            Item::Enum(item) if is_public(&item.vis) => {
                self.sign(
                    &item.ident,
                    collect(|found| {
                        found.visit_generics(&item.generics);
                        for variant in &item.variants {
                            visit_fields(&variant.fields, found, |_| true);
                        }
                    }),
                );
            }
            Item::Fn(item) if is_public(&item.vis) => {
                let paths = collect(|found| found.visit_signature(&item.sig));
                self.sign(&item.sig.ident, paths);
            }
            Item::Static(item) if is_public(&item.vis) => {
                self.sign(&item.ident, collect(|found| found.visit_type(&item.ty)));
            }
            Item::Struct(item) if is_public(&item.vis) => {
                self.sign(
                    &item.ident,
                    collect(|found| {
                        found.visit_generics(&item.generics);
                        visit_fields(&item.fields, found, |field| is_public(&field.vis));
                    }),
                );
            }
            Item::Trait(item) if is_public(&item.vis) => self.describe_trait(item),
            Item::Type(item) if is_public(&item.vis) => {
                self.sign(
                    &item.ident,
                    collect(|found| {
                        found.visit_generics(&item.generics);
                        found.visit_type(&item.ty);
                    }),
                );
            }
            Item::Use(item) if is_public(&item.vis) => {
                let mut found = Collector::default();
                found.visit_item_use(item);
                for import in found.imports {
                    self.0.push(Signature {
                        item: format!("use {}", import.name),
                        of: None,
                        paths: vec![import.path],
                    });
                }
            }
            Item::Impl(item) => self.describe_impl(item),
            _ => {}
        }
    }

    /// A trait's own methods are as public as the trait.
    fn describe_trait(&mut self, item: &syn::ItemTrait) {
        let header = collect(|found| {
            found.visit_generics(&item.generics);
            for bound in &item.supertraits {
                found.visit_type_param_bound(bound);
            }
        });
        self.sign(&item.ident, header);
        for inner in &item.items {
            let (name, paths) = match inner {
                TraitItem::Const(inner) => {
                    (&inner.ident, collect(|found| found.visit_type(&inner.ty)))
                }
                TraitItem::Fn(inner) => (
                    &inner.sig.ident,
                    collect(|found| found.visit_signature(&inner.sig)),
                ),
                TraitItem::Type(inner) => (
                    &inner.ident,
                    collect(|found| found.visit_trait_item_type(inner)),
                ),
                _ => continue,
            };
            self.0.push(Signature {
                item: format!("{}::{}", paths::name(&item.ident), paths::name(name)),
                of: None,
                paths,
            });
        }
    }

    /// Of a trait's implementation only the associated types are our choice: the header and the
    /// methods are the trait's.
    fn describe_impl(&mut self, item: &ItemImpl) {
        let syn::Type::Path(of) = &*item.self_ty else {
            return;
        };
        let of = paths::segments(&of.path);
        let name = of.last().cloned().unwrap_or_default();
        let mut sign = |item: String, paths: Vec<Segments>| {
            self.0.push(Signature {
                item,
                of: Some(of.clone()),
                paths,
            });
        };
        if item.trait_.is_none() {
            let header = collect(|found| {
                found.visit_generics(&item.generics);
                found.visit_type(&item.self_ty);
            });
            sign(name.clone(), header);
        }
        for inner in &item.items {
            let (ident, paths) = match inner {
                ImplItem::Const(inner) if is_public(&inner.vis) => {
                    (&inner.ident, collect(|found| found.visit_type(&inner.ty)))
                }
                ImplItem::Fn(inner) if is_public(&inner.vis) => (
                    &inner.sig.ident,
                    collect(|found| found.visit_signature(&inner.sig)),
                ),
                ImplItem::Type(inner) => {
                    (&inner.ident, collect(|found| found.visit_type(&inner.ty)))
                }
                _ => continue,
            };
            sign(format!("{name}::{}", paths::name(ident)), paths);
        }
    }

    fn sign(&mut self, ident: &syn::Ident, paths: Vec<Segments>) {
        self.0.push(Signature {
            item: paths::name(ident),
            of: None,
            paths,
        });
    }
}

fn visit_fields(fields: &Fields, found: &mut Collector, counts: impl Fn(&Field) -> bool) {
    for field in fields {
        if counts(field) && !paths::test_only(&field.attrs) {
            found.visit_type(&field.ty);
        }
    }
}
