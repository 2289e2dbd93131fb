//! Paths among tokens that only a macro can parse: invocations, definitions and attributes.

use std::mem;

use syn::Lit;
use syn::buffer::Cursor;

use crate::paths::{self, Segments};

/// Finds `a::b::c` among plain tokens, and `a::{b, c}` by way of `prefix`.
pub(crate) fn scan(mut cursor: Cursor<'_>, prefix: &[String], paths: &mut Vec<Segments>) {
    let mut path = prefix.to_vec();
    let mut colons = 0;
    let end = |path: &mut Segments, paths: &mut Vec<Segments>| {
        if path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        // A single name outside a group needs no module: it is in scope already.
        if path.len() > prefix.len() && (path.len() > 1 || !prefix.is_empty()) {
            paths.push(path.clone());
        }
        *path = prefix.to_vec();
    };
    while !cursor.eof() {
        if let Some((ident, next)) = cursor.ident() {
            if colons != 2 {
                end(&mut path, paths);
            }
            (cursor, colons) = (next, 0);
            if ident == "as" {
                // What follows is an alias.
                cursor = cursor.ident().map_or(cursor, |(_, next)| next);
            } else {
                path.push(paths::name(&ident));
            }
        } else if let Some((punct, next)) = cursor.punct() {
            colons = if punct.as_char() == ':' {
                colons + 1
            } else {
                0
            };
            if colons == 0 {
                end(&mut path, paths);
            }
            cursor = next;
        } else if let Some((inner, _, _, next)) = cursor.any_group() {
            let inside = if mem::take(&mut colons) == 2 {
                path.clone()
            } else {
                Vec::new()
            };
            scan(inner, &inside, paths);
            end(&mut path, paths);
            cursor = next;
        } else if let Some((_, next)) = cursor.token_tree() {
            end(&mut path, paths);
            (cursor, colons) = (next, 0);
        }
    }
    end(&mut path, paths);
}

/// Paths that are written as strings.
pub(crate) fn strings(mut cursor: Cursor<'_>, paths: &mut Vec<Segments>) {
    while !cursor.eof() {
        if let Some((inner, _, _, next)) = cursor.any_group() {
            strings(inner, paths);
            cursor = next;
        } else if let Some((literal, next)) = cursor.literal() {
            if let Lit::Str(text) = Lit::new(literal)
                && let Ok(path) = text.parse::<syn::Path>()
                && path.segments.len() > 1
            {
                paths.push(paths::segments(&path));
            }
            cursor = next;
        } else if let Some((_, next)) = cursor.token_tree() {
            cursor = next;
        }
    }
}
