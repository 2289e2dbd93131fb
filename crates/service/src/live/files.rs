//! Reads all files of a source as they were at one moment, and parses them.

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::path::PathBuf;

use thiserror::Error;

/// The largest file read, in bytes: far above any certificate bundle or document of rules.
pub const MAX_FILE: u64 = 8 * 1024 * 1024;

/// How often files that change while they are read are read again, before the load fails.
const MAX_READS: usize = 5;

/// Where a value comes from: files, and the function from their contents to the value.
///
/// Both methods run on a thread that may block.
pub trait Source: Send + Sync + 'static {
    /// The whole value that is replaced at once.
    type Value: Send + Sync + 'static;
    /// Why the files do not make a value. The same files must give the same text, which is how
    /// a failure that was reported is told from a new one.
    type Error: Error + Send + Sync + 'static;

    /// The paths of the files, in the order that `parse` expects. The list may depend on the file
    /// system, for example on the entries of a folder.
    ///
    /// # Errors
    /// When the list cannot be made.
    fn files(&self) -> io::Result<Vec<PathBuf>>;

    /// Parses and checks everything. It may read the clock, but no files.
    ///
    /// # Errors
    /// When one of the files, or all of them together, cannot be used; the text names the file.
    fn parse(&self, files: &[SourceFile]) -> Result<Self::Value, Self::Error>;
}

/// A file and its contents.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SourceFile {
    /// The path as the source named it.
    pub path: PathBuf,
    /// Everything the file holds, at most [`MAX_FILE`] bytes.
    pub bytes: Vec<u8>,
}

/// Why the files of a source did not become a value.
#[derive(Debug, Error)]
pub enum SourceError {
    /// The source could not list its files.
    #[error("cannot list the files")]
    List(#[source] io::Error),
    /// A file could not be read.
    #[error("cannot read {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system reported.
        source: io::Error,
    },
    /// A file is larger than [`MAX_FILE`].
    #[error("{0:?} is larger than {MAX_FILE} bytes")]
    TooLarge(PathBuf),
    /// Each of several reads in a row found other contents.
    #[error("the files kept changing while they were read")]
    Unstable,
    /// The contents cannot be used.
    #[error(transparent)]
    Invalid(Box<dyn Error + Send + Sync>),
    /// The source panicked: a bug.
    #[error("loading panicked")]
    Panicked,
}

/// Identifies contents without keeping them, since they may be private keys. The hash has a random
/// key, so no contents can be made to collide with others.
#[derive(Clone, Debug, Default)]
pub(super) struct Digester(RandomState);

/// The contents of all files of a source, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Digest(u64);

/// A load that has failed, and for which contents if they could be read.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: SourceError,
    pub(super) digest: Option<Digest>,
}

/// Loads the value, unless the contents of the files are the `known` ones. Blocks.
pub(super) fn load_changed<S: Source>(
    source: &S,
    digester: &Digester,
    known: Option<Digest>,
) -> Result<Option<(S::Value, Digest)>, Failure> {
    if known.is_some() && known == Some(digester.digest(&read_all(source)?)) {
        return Ok(None);
    }
    load(source, digester).map(Some)
}

/// Reads all files and parses them. Blocks.
pub(super) fn load<S: Source>(
    source: &S,
    digester: &Digester,
) -> Result<(S::Value, Digest), Failure> {
    let files = read_settled(source)?;
    let digest = digester.digest(&files);
    match source.parse(&files) {
        Ok(value) => Ok((value, digest)),
        Err(error) => Err(Failure {
            error: SourceError::Invalid(error.into()),
            digest: Some(digest),
        }),
    }
}

/// Reads until two reads in a row agree. Then there was a moment between the two at which all
/// files had these contents together: half of a replacement is never taken for the whole.
fn read_settled<S: Source>(source: &S) -> Result<Vec<SourceFile>, SourceError> {
    let mut files = read_all(source)?;
    for _ in 1..MAX_READS {
        let again = read_all(source)?;
        if again == files {
            return Ok(files);
        }
        files = again;
    }
    Err(SourceError::Unstable)
}

fn read_all<S: Source>(source: &S) -> Result<Vec<SourceFile>, SourceError> {
    let paths = source.files().map_err(SourceError::List)?;
    paths.into_iter().map(read).collect()
}

fn read(path: PathBuf) -> Result<SourceFile, SourceError> {
    let mut bytes = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes));
    match read {
        Err(source) => Err(SourceError::Read { path, source }),
        Ok(_) if u64::try_from(bytes.len()).is_ok_and(|length| length <= MAX_FILE) => {
            Ok(SourceFile { path, bytes })
        }
        Ok(_) => Err(SourceError::TooLarge(path)),
    }
}

// === impl SourceFile ===

impl fmt::Debug for SourceFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?} ({} bytes)", self.path, self.bytes.len())
    }
}

// === impl Digester ===

impl Digester {
    fn digest(&self, files: &[SourceFile]) -> Digest {
        Digest(self.0.hash_one(files))
    }
}

// === impl Failure ===

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        Self {
            error,
            digest: None,
        }
    }
}
