//! Replays the corpus of every fuzz target, so that what fuzzing found once stays found on the
//! stable toolchain.

use std::fs;
use std::path::Path;

#[path = "../../../fuzz/src/lib.rs"]
#[expect(
    unreachable_pub,
    reason = "in the fuzz workspace this file is a library"
)]
mod checks;

#[test]
fn request_heads() {
    replay("head_request", checks::head_request);
}

#[test]
fn answer_heads() {
    replay("head_answer", checks::head_answer);
}

#[test]
fn control_messages() {
    replay("control", checks::control);
}

#[test]
fn targets() {
    replay("target", checks::target);
}

/// Checks every file of the corpus, and names the one that fails.
fn replay(target: &str, check: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(target);
    let mut replayed = 0;
    for entry in fs::read_dir(&corpus).expect("the corpus is part of the repository") {
        let path = entry.expect("a readable folder").path();
        let bytes = fs::read(&path).expect("a readable file");
        if std::panic::catch_unwind(|| check(&bytes)).is_err() {
            panic!("{} breaks a promise, see above", path.display());
        }
        replayed += 1;
    }
    assert!(
        replayed > 10,
        "only {replayed} inputs in {}",
        corpus.display()
    );
}
