//! A PEM file: the flag that names it, and its contents.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use crate::load::{LoadError, LoadReason};

/// The largest PEM file read, in bytes: five times the bundle of roots of a usual system.
pub const MAX_FILE: u64 = 1024 * 1024;

/// A PEM file and the command-line flag that named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PemPath {
    /// The flag as typed, for example `--cert-file`.
    pub flag: &'static str,
    /// Where the file is.
    pub path: PathBuf,
}

/// The contents of a PEM file that has been read, and the name that errors give it.
#[derive(Clone, Copy)]
pub struct PemBytes<'a> {
    /// The file, for errors.
    pub file: &'a PemPath,
    /// Everything it holds.
    pub bytes: &'a [u8],
}

// === impl PemPath ===

impl PemPath {
    /// These bytes as the contents of this file.
    pub fn with<'a>(&'a self, bytes: &'a [u8]) -> PemBytes<'a> {
        PemBytes { file: self, bytes }
    }

    pub(super) fn fails(&self, reason: LoadReason) -> LoadError {
        LoadError {
            file: self.clone(),
            reason,
        }
    }
}

impl fmt::Display for PemPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.flag, self.path)
    }
}

// === impl PemBytes ===

impl PemBytes<'_> {
    pub(super) fn check_size(self) -> Result<(), LoadError> {
        if u64::try_from(self.bytes.len()).is_ok_and(|length| length <= MAX_FILE) {
            Ok(())
        } else {
            Err(self.file.fails(LoadReason::TooLarge))
        }
    }
}

impl fmt::Debug for PemBytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The bytes may be a private key.
        write!(f, "{} ({} bytes)", self.file, self.bytes.len())
    }
}

/// At most one byte more than [`MAX_FILE`], which parsing then refuses.
pub(super) fn read(file: &PemPath) -> Result<Vec<u8>, LoadError> {
    let mut bytes = Vec::new();
    File::open(&file.path)
        .and_then(|open| open.take(MAX_FILE + 1).read_to_end(&mut bytes))
        .map_err(|error| file.fails(LoadReason::Unreadable(error)))?;
    Ok(bytes)
}
