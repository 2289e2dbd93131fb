//! A thread with its own runtime, for work that must continue while a shard is busy or stuck.

use std::future::Future;
use std::io;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;
use tracing::error;

/// Runs one future on its own thread; dropping it drops the future and joins the thread.
#[derive(Debug)]
pub(crate) struct BackgroundRuntime {
    name: &'static str,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

// === impl BackgroundRuntime ===

impl BackgroundRuntime {
    /// Starts a thread that calls `setup` within its runtime and then runs what that returns.
    /// Returns when `setup` has.
    ///
    /// # Errors
    /// When the system refuses the thread or its poller, or when `setup` fails.
    pub(crate) fn start<S, F>(name: &'static str, setup: S) -> io::Result<Self>
    where
        S: FnOnce() -> io::Result<F> + Send + 'static,
        F: Future<Output = ()>,
    {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let (report, outcome) = mpsc::sync_channel(1);
        let body = move || {
            let prepared = prepare(setup);
            let (work, outcome) = match prepared {
                Ok(work) => (Some(work), Ok(())),
                Err(error) => (None, Err(error)),
            };
            // The starter waits for this. When it is gone, the work is not needed.
            if report.send(outcome).is_ok()
                && let Some((runtime, future)) = work
            {
                runtime.block_on(stopped.run_until_cancelled(future));
            }
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(body)?;
        // An error below drops it, which joins the thread.
        let started = Self {
            name,
            stop,
            thread: Some(thread),
        };
        match outcome.recv() {
            Ok(outcome) => outcome.map(|()| started),
            Err(mpsc::RecvError) => Err(io::Error::other("the thread ended before its work began")),
        }
    }
}

impl Drop for BackgroundRuntime {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!(thread = self.name, "background thread panicked");
        }
    }
}

fn prepare<F>(setup: impl FnOnce() -> io::Result<F>) -> io::Result<(Runtime, F)> {
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    let future = {
        let _context = runtime.enter();
        setup()?
    };
    Ok((runtime, future))
}

#[cfg(test)]
mod tests {
    use std::future;

    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn drop_ends_the_work_and_waits_for_its_end() {
        let (kept, mut dropped) = oneshot::channel::<()>();
        let thread = BackgroundRuntime::start("test", || {
            Ok(async move {
                future::pending::<()>().await;
                drop(kept);
            })
        });
        let thread = thread.unwrap();
        assert_eq!(dropped.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        drop(thread);
        assert_eq!(
            dropped.try_recv(),
            Err(oneshot::error::TryRecvError::Closed)
        );
    }

    #[test]
    fn a_setup_that_fails_or_panics_is_an_error() {
        let fails = || Err::<future::Ready<()>, _>(io::Error::other("on purpose"));
        let error = BackgroundRuntime::start("test", fails).unwrap_err();
        assert_eq!(error.to_string(), "on purpose");
        let panics = || -> io::Result<future::Ready<()>> { panic!("on purpose") };
        BackgroundRuntime::start("test", panics).unwrap_err();
    }
}
