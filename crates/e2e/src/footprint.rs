//! Resources that this process holds: programs, clients and targets together.

use std::fs;

/// Bytes of a page, on every Linux that we build for.
const PAGE: usize = 4_096;

/// Open descriptors. A test that compares two counts must run alone in its process.
///
/// # Panics
/// When `/proc` is not there.
pub fn descriptors() -> usize {
    let open = fs::read_dir("/proc/self/fd").expect("a Linux process");
    // The listing itself holds one.
    open.count() - 1
}

/// Resident memory that belongs to this process alone, in bytes.
///
/// # Panics
/// When `/proc` is not there.
pub fn memory() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").expect("a Linux process");
    let mut pages = statm.split(' ').map(|word| word.parse::<usize>());
    let resident = pages.nth(1).expect("a second word").expect("a number");
    let shared = pages.next().expect("a third word").expect("a number");
    (resident - shared) * PAGE
}
