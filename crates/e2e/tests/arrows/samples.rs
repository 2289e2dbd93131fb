//! Small crates, to show that each rule can fail.

use std::path::Path;

use crate::source::Crate;

/// A library of the folder `crates/sample`, in one file.
pub(crate) fn library(source: &str) -> Crate {
    let mut krate = Crate::new("crates/sample", "sample");
    krate.read(&[], Path::new("src/lib.rs"), &|_| Some(source.to_owned()));
    krate
}

/// A package of a library and the program `main`, of more than one file each.
pub(crate) fn package(files: &[(&str, &str)]) -> Crate {
    let read = |file: &Path| {
        let found = files.iter().find(|(name, _)| Path::new(name) == file);
        found.map(|(_, text)| (*text).to_owned())
    };
    let mut krate = Crate::new("sample", "sample");
    krate.read(&[], Path::new("src/lib.rs"), &read);
    krate.read(&[String::from("main")], Path::new("src/main.rs"), &read);
    krate
}
