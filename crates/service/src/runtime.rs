//! Runs a program: the runtime of its shard, its body, and its exit status.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use crate::error_chain::ErrorChain;

/// Most threads for blocking calls: name look-ups and file reads. A look-up cannot be cancelled and
/// may block for many seconds, so there are enough for several unresponsive name servers. They are
/// few enough not to exhaust the process (2 MiB of address space each; idle ones end).
pub const BLOCKING_THREADS: usize = 64;

/// How long a blocking call that still runs may delay the end of the process.
const END_LIMIT: Duration = Duration::from_secs(1);

/// The exit status for bad flags, unreadable files and taken ports; clap uses the same.
const START_FAILED: u8 = 2;

/// Any error.
type Cause = Box<dyn Error + Send + Sync>;

/// The program could not start: the configuration or the machine has to change before another
/// attempt. Becomes a [`RunError`] by `?`.
#[derive(Debug)]
pub struct StartError(Cause);

/// Why a program ends with a status other than 0. Every error becomes one by `?`, as a failure
/// after the start; one before it has to pass through [`StartError::new`].
///
/// It does not implement [`Error`]: only [`run`] receives it.
#[derive(Debug)]
pub struct RunError {
    status: u8,
    cause: Cause,
}

/// The runtime of a shard: the calling thread alone runs all tasks, so data and wake-ups stay on
/// one core. Blocking calls run on at most [`BLOCKING_THREADS`] other threads.
///
/// # Errors
/// When the system refuses the poller or its wake-up descriptor.
pub fn shard() -> io::Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
}

/// Runs the body of the program `name` on a shard on this thread, with as many file descriptors
/// as the hard limit allows, and returns the exit status: 0 after success, 2 after a
/// [`StartError`], 1 after any other error or a panic. An error is one line on stderr:
/// `NAME: what: why`.
pub fn run<F>(name: &str, body: F) -> ExitCode
where
    F: Future<Output = Result<(), RunError>>,
{
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        print_error(
            name,
            &format_args!("cannot raise the limit of open files: {error}"),
        );
    }
    let runtime = match shard() {
        Ok(runtime) => runtime,
        Err(error) => {
            print_error(name, &format_args!("cannot start the runtime: {error}"));
            return ExitCode::from(START_FAILED);
        }
    };
    // Dropping a runtime waits for its blocking threads without a limit, and a panic would drop it.
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(body)));
    runtime.shutdown_timeout(END_LIMIT);
    match outcome {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            print_error(name, &ErrorChain(&*error.cause));
            ExitCode::from(error.status)
        }
        // The panic hook has logged the panic.
        Err(_) => ExitCode::FAILURE,
    }
}

// === impl StartError ===

impl StartError {
    /// Marks an error as a failure to start.
    pub fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(cause.into())
    }
}

// === impl RunError ===

impl RunError {
    /// A failure after the start, also for causes that do not implement [`Error`].
    pub fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            status: 1,
            cause: cause.into(),
        }
    }
}

impl From<StartError> for RunError {
    fn from(StartError(cause): StartError) -> Self {
        Self {
            status: START_FAILED,
            cause,
        }
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for RunError {
    fn from(cause: E) -> Self {
        Self::new(cause)
    }
}

/// Writes one line to stderr. A failure to write is ignored: the exit status remains.
fn print_error(name: &str, what: &dyn fmt::Display) {
    drop(writeln!(io::stderr().lock(), "{name}: {what}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails() -> Result<(), RunError> {
        Err(io::Error::other("the disk is full"))?;
        Ok(())
    }

    fn fails_to_start() -> Result<(), RunError> {
        Err(StartError::new("no"))?;
        Ok(())
    }

    #[test]
    fn the_status_tells_a_start_error_from_a_later_one() {
        assert_eq!(fails().unwrap_err().status, 1);
        assert_eq!(fails_to_start().unwrap_err().status, 2);
        assert_eq!(RunError::new("text").status, 1);
    }

    #[test]
    fn the_limit_of_open_files_is_raised_to_the_hard_one() {
        assert_eq!(run("test", async { Ok(()) }), ExitCode::SUCCESS);
        let (soft, hard) = rlimit::Resource::NOFILE.get().unwrap();
        assert_eq!(soft, hard);
    }
}
