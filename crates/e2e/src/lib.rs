//! Runs the programs together, in process or as processes, for tests that read as sentences.
//!
//! All listeners use ports that the system picks. No test sleeps to wait for something:
//! [`eventually`] polls until a condition holds, and [`bounded`] ends a test that hangs.

pub mod admin;
pub mod certs;
pub mod client;
pub mod endings;
pub mod footprint;
pub mod interop;
pub mod openmetrics;
pub mod process;
pub mod programs;
pub mod relay;
pub mod target;

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// The longest that one test may take.
const TEST_LIMIT: Duration = Duration::from_secs(60);

/// The longest that a step without a deadline of its own may take.
const EVENTUALLY: Duration = Duration::from_secs(10);

/// Runs a test to its end, for at most a minute.
///
/// # Panics
/// If the test is not done by then.
pub async fn bounded<T>(test: impl Future<Output = T>) -> T {
    // On the heap: tests are as large as what they hold.
    timeout(TEST_LIMIT, Box::pin(test))
        .await
        .expect("the test must end within a minute")
}

/// Polls until the answer is `expected`, for at most ten seconds; `what` names the answer in words
/// of the product.
///
/// # Panics
/// If it is not `expected` in time.
pub async fn eventually<T: PartialEq + Debug>(what: &str, expected: T, mut ask: impl FnMut() -> T) {
    let deadline = Instant::now() + EVENTUALLY;
    loop {
        let answer = ask();
        if answer == expected {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{what}: expected {expected:?}, still {answer:?}"
        );
        sleep(Duration::from_millis(5)).await;
    }
}
