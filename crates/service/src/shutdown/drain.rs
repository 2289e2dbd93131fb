//! The drain of a process: new work is refused, and what runs may finish until a deadline.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Begins the drain and ends it; owned by the function that shuts the process down.
///
/// Dropping it expires the drain: no part waits for an owner that is gone.
#[derive(Debug)]
#[must_use = "dropping it expires the drain"]
pub struct Drain {
    watch: DrainWatch,
}

/// Tells a part of the process how far the drain is; clones see the same drain.
///
/// Both steps are final: a drain that has begun stays begun, one that has expired stays expired.
#[derive(Clone, Debug)]
pub struct DrainWatch {
    begun: CancellationToken,
    expired: CancellationToken,
}

// === impl Drain ===

impl Drain {
    /// A drain that has not begun.
    pub fn new() -> Self {
        Self {
            watch: DrainWatch::never(),
        }
    }

    /// A view of this drain, for a part that has to react to it.
    pub fn watch(&self) -> DrainWatch {
        self.watch.clone()
    }

    /// Begins the drain: no new work is accepted from now on. More calls change nothing.
    pub fn begin(&self) {
        self.watch.begun.cancel();
    }

    /// Ends the drain, beginning it if needed: what still runs is cut. More calls change nothing.
    pub fn expire(&self) {
        self.begin();
        self.watch.expired.cancel();
    }

    /// Begins the drain and waits until `finished` returns; after `limit` it expires instead.
    /// Returns whether everything finished in time.
    pub async fn finish_within(&self, limit: Duration, finished: impl Future<Output = ()>) -> bool {
        self.begin();
        let in_time = tokio::time::timeout(limit, finished).await.is_ok();
        if !in_time {
            self.expire();
        }
        in_time
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.expire();
    }
}

// === impl DrainWatch ===

impl DrainWatch {
    /// A view of a drain that never begins, for a part that runs alone.
    pub fn never() -> Self {
        Self {
            begun: CancellationToken::new(),
            expired: CancellationToken::new(),
        }
    }

    /// Returns once the drain has begun. Cancel-safe.
    pub async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// Returns once the drain's deadline has passed. Cancel-safe.
    pub async fn expired(&self) {
        self.expired.cancelled().await;
    }

    /// Whether the drain has begun; true after its deadline too.
    pub fn is_draining(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// Whether the drain's deadline has passed.
    pub fn is_expired(&self) -> bool {
        self.expired.is_cancelled()
    }
}

#[cfg(test)]
mod tests {
    use std::future;

    use tokio::sync::mpsc::{self, UnboundedReceiver};
    use tokio::time::{Instant, sleep, timeout};

    use super::*;
    use crate::tasks::Tasks;

    const LIMIT: Duration = Duration::from_secs(30);

    async fn bounded<T>(wait: impl Future<Output = T>) -> T {
        let waited = timeout(10 * LIMIT, wait).await;
        waited.expect("the wait ends")
    }

    /// When each clone of a watch saw the two steps, in seconds of the paused clock.
    fn observe(drain: &Drain, tasks: &Tasks) -> UnboundedReceiver<(&'static str, u64)> {
        let (seen, steps) = mpsc::unbounded_channel();
        let start = Instant::now();
        for _ in 0..2 {
            let (watch, seen) = (drain.watch(), seen.clone());
            tasks.spawn("watcher", async move {
                watch.begun().await;
                assert!(watch.is_draining());
                seen.send(("begun", start.elapsed().as_secs())).unwrap();
                watch.expired().await;
                assert!(watch.is_expired());
                seen.send(("expired", start.elapsed().as_secs())).unwrap();
            });
        }
        steps
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_outlasts_the_limit_sees_the_drain_begin_and_expire() {
        let (drain, tasks) = (Drain::new(), Tasks::new());
        let mut steps = observe(&drain, &tasks);
        sleep(Duration::from_secs(5)).await;
        assert!(!drain.watch().is_draining());
        assert!(!drain.finish_within(LIMIT, future::pending()).await);
        bounded(tasks.emptied()).await;
        for expected in [("begun", 5), ("begun", 5), ("expired", 35), ("expired", 35)] {
            assert_eq!(bounded(steps.recv()).await, Some(expected));
        }
        assert_eq!(bounded(steps.recv()).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_finishes_in_time_is_not_cut() {
        let (drain, work) = (Drain::new(), Tasks::new());
        let watch = drain.watch();
        let start = Instant::now();
        work.spawn("tunnel", async move {
            tokio::select! {
                () = watch.expired() => panic!("the work was cut"),
                () = sleep(Duration::from_secs(10)) => {}
            }
        });
        assert!(drain.finish_within(LIMIT, work.emptied()).await);
        assert_eq!(start.elapsed().as_secs(), 10);
        assert_eq!(work.panics(), 0);
        let watch = drain.watch();
        assert!(watch.is_draining() && !watch.is_expired());
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_comes_late_sees_what_has_passed() {
        let drain = Drain::new();
        drain.expire();
        drain.begin();
        let late = drain.watch();
        bounded(late.begun()).await;
        bounded(late.expired()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn dropping_the_owner_expires_the_drain() {
        let drain = Drain::new();
        let watch = drain.watch();
        drop(drain);
        bounded(watch.begun()).await;
        bounded(watch.expired()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_is_dropped_and_begun_again_misses_nothing() {
        let drain = Drain::new();
        let watch = drain.watch();
        for _ in 0..3 {
            tokio::select! {
                biased;
                () = watch.begun() => panic!("nothing has begun"),
                () = watch.expired() => panic!("nothing has expired"),
                () = sleep(Duration::from_secs(1)) => {}
            }
        }
        drain.begin();
        bounded(watch.begun()).await;
        assert!(!watch.is_expired());
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_without_an_owner_never_begins() {
        let watch = DrainWatch::never();
        timeout(LIMIT, watch.begun()).await.unwrap_err();
        timeout(LIMIT, watch.clone().expired()).await.unwrap_err();
        assert!(!watch.is_draining());
    }
}
