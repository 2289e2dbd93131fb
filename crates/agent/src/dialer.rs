//! Dials a target within a deadline: looks its name up, then connects to its addresses.
//!
//! Look-ups are the system's (getaddrinfo), as every other program on the machine does them. They
//! block a thread and cannot be cancelled, so their number is bounded: a permit goes with each
//! into its thread, and names whose servers do not answer occupy no more than those.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};
use towline_protocol::refusal::{Reason, Refusal};
use towline_protocol::target::{Host, Target};
use towline_service::runtime::BLOCKING_THREADS;
use towline_session::local_stream::configure_tcp;

use crate::happy_eyeballs::{Failure, interleave, race};

/// Look-ups of targets at the same time; the other blocking threads are left to the look-ups of
/// servers, so that no target's name can delay the reconnection of a session.
const LOOKUPS: usize = BLOCKING_THREADS - 16;

/// "Too many open files" of this process and of the system: the numbers that every Unix uses.
const OUT_OF_FILES: [i32; 2] = [24, 23];

/// The prefix that the standard library gives to errors of getaddrinfo.
const LOOKUP_PREFIX: &str = "failed to lookup address information: ";

/// Dials targets; clones share the bound on look-ups.
#[derive(Debug, Clone)]
pub struct TargetDialer {
    lookups: Arc<Semaphore>,
}

// === impl TargetDialer ===

impl TargetDialer {
    /// A dialer with no look-up under way.
    pub fn new() -> Self {
        Self {
            lookups: Arc::new(Semaphore::new(LOOKUPS)),
        }
    }

    /// Connects to the target, all in all within `limit`; the socket sends without delay.
    ///
    /// Dropping the future ends every attempt at once.
    ///
    /// # Errors
    /// Why there is no connection, with all that a user needs to find the cause.
    pub async fn dial(&self, target: &Target, limit: Duration) -> Result<TcpStream, Refusal> {
        let until = Instant::now() + limit;
        let late = |doing: &str| {
            Refusal::new(
                Reason::DialTimeout,
                format!("{doing} {target}: no answer in {limit:?}"),
            )
        };
        let addresses = match &target.host {
            Host::Ip(ip) => vec![SocketAddr::new(*ip, target.port)],
            Host::Name(name) => {
                // This name is not at fault: other look-ups hold all the threads.
                let permit = timeout_at(until, Arc::clone(&self.lookups).acquire_owned())
                    .await
                    .map_err(|_elapsed| busy(target))?
                    .expect("the semaphore is never closed");
                timeout_at(until, look_up(name, target.port, permit))
                    .await
                    .map_err(|_elapsed| late("look up"))??
            }
        };
        timeout_at(until, race(interleave(addresses), connect))
            .await
            .map_err(|_elapsed| late("dial"))?
            .map_err(|failures| dial_refusal(target, failures))
    }
}

impl Default for TargetDialer {
    fn default() -> Self {
        Self::new()
    }
}

async fn look_up(
    name: &str,
    port: u16,
    permit: OwnedSemaphorePermit,
) -> Result<Vec<SocketAddr>, Refusal> {
    let owned = name.to_owned();
    let looked_up = spawn_blocking(move || {
        let _until_it_ends = permit;
        (owned.as_str(), port)
            .to_socket_addrs()
            .map(Iterator::collect)
    });
    match looked_up.await {
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err(error)) => Err(lookup_refusal(name, &error)),
        Err(failure) => Err(Refusal::new(Reason::Internal, failure.to_string())),
    }
}

fn busy(target: &Target) -> Refusal {
    let details = format!("look up {target}: {LOOKUPS} other look-ups are stuck");
    Refusal::new(Reason::Overload, details)
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(address).await?;
    configure_tcp(&socket)?;
    Ok(socket)
}

fn lookup_refusal(name: &str, error: &io::Error) -> Refusal {
    let reason = match reason(error) {
        Reason::Overload => Reason::Overload,
        _ => Reason::Dns,
    };
    let text = error.to_string();
    let why = text.strip_prefix(LOOKUP_PREFIX).unwrap_or(&text);
    Refusal::new(reason, format!("look up {name}: {why}"))
}

/// The refusal when no address could be connected to. It names the most specific failure: a host
/// that is up and refuses comes before one that has no route.
fn dial_refusal(target: &Target, failures: Vec<Failure>) -> Refusal {
    let others = failures.len().saturating_sub(1);
    let specific = failures
        .into_iter()
        .min_by_key(|(_, error)| match reason(error) {
            Reason::Overload => 0,
            Reason::Refused => 1,
            Reason::DialTimeout => 2,
            _ => 3,
        });
    let Some((address, error)) = specific else {
        return Refusal::new(Reason::Dns, format!("look up {}: no address", target.host));
    };
    let mut details = format!("dial {address}: {}", OsErrorText(&error));
    if others > 0 {
        details.push_str(&format!(
            " (and {others} more addresses of {})",
            target.host
        ));
    }
    Refusal::new(reason(&error), details)
}

/// The reason that an error of the system stands for.
fn reason(error: &io::Error) -> Reason {
    if error
        .raw_os_error()
        .is_some_and(|code| OUT_OF_FILES.contains(&code))
    {
        return Reason::Overload;
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted => Reason::Refused,
        io::ErrorKind::TimedOut => Reason::DialTimeout,
        io::ErrorKind::OutOfMemory => Reason::Overload,
        // No route, no such network, no address of that family, or a firewall of this machine.
        _ => Reason::Unreachable,
    }
}

/// Displays an error in lower case and without its number, where the standard library has such a
/// text.
struct OsErrorText<'a>(&'a io::Error);

impl fmt::Display for OsErrorText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.kind() {
            kind @ (io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::TimedOut) => write!(f, "{kind}"),
            _ => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn failed(address: &str, code: i32) -> Failure {
        (address.parse().unwrap(), io::Error::from_raw_os_error(code))
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn every_error_of_the_system_has_its_reason_and_its_text() {
        let target = "db.internal:5432".parse().unwrap();
        for (code, reason, details) in [
            (111, Reason::Refused, "connection refused"),
            (104, Reason::Refused, "connection reset"),
            (103, Reason::Refused, "connection aborted"),
            (113, Reason::Unreachable, "host unreachable"),
            (101, Reason::Unreachable, "network unreachable"),
            (110, Reason::DialTimeout, "timed out"),
            (24, Reason::Overload, "Too many open files (os error 24)"),
            (
                23,
                Reason::Overload,
                "Too many open files in system (os error 23)",
            ),
            (12, Reason::Overload, "Cannot allocate memory (os error 12)"),
            (
                1,
                Reason::Unreachable,
                "Operation not permitted (os error 1)",
            ),
            (
                99,
                Reason::Unreachable,
                "Cannot assign requested address (os error 99)",
            ),
        ] {
            let refusal = dial_refusal(&target, vec![failed("10.0.0.7:5432", code)]);
            let expected = Refusal::new(reason, format!("dial 10.0.0.7:5432: {details}"));
            assert_eq!(refusal, expected, "{code}");
        }
        let lookup = lookup_refusal("db.internal", &io::Error::from_raw_os_error(24));
        assert_eq!(lookup.reason, Reason::Overload);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn of_several_failures_the_most_specific_is_reported() {
        let target = "db.internal:5432".parse().unwrap();
        let failures = vec![
            failed("[fd00::7]:5432", 101),
            failed("10.0.0.8:5432", 110),
            failed("10.0.0.7:5432", 111),
        ];
        let details = "dial 10.0.0.7:5432: connection refused \
                       (and 2 more addresses of db.internal)";
        let expected = Refusal::new(Reason::Refused, details);
        assert_eq!(dial_refusal(&target, failures), expected);
        let none = dial_refusal(&target, Vec::new());
        assert_eq!(
            none,
            Refusal::new(Reason::Dns, "look up db.internal: no address")
        );
    }

    #[tokio::test]
    async fn connects_by_name_and_sends_without_delay() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = format!("localhost:{port}").parse().unwrap();
        let socket = TargetDialer::new().dial(&target, LIMIT).await.unwrap();
        assert_eq!(socket.peer_addr().unwrap(), listener.local_addr().unwrap());
        assert!(socket.nodelay().unwrap());
    }

    #[tokio::test]
    async fn a_name_that_does_not_exist_is_refused_as_dns() {
        // RFC 6761 §6.4: `invalid` exists nowhere, so no name server is asked.
        let target = "nowhere.invalid:1".parse().unwrap();
        let refusal = TargetDialer::new().dial(&target, LIMIT).await.unwrap_err();
        assert_eq!(refusal.reason, Reason::Dns);
        assert!(
            refusal.details.starts_with("look up nowhere.invalid: "),
            "{refusal}"
        );
        assert!(!refusal.details.contains(LOOKUP_PREFIX), "{refusal}");
    }

    #[tokio::test]
    async fn an_address_needs_no_lookup() {
        let dialer = TargetDialer::new();
        dialer.lookups.close();
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .unwrap()
            .local_addr()
            .unwrap();
        let target = free.to_string().parse().unwrap();
        let refusal = dialer.dial(&target, LIMIT).await.unwrap_err();
        let details = format!("dial {free}: connection refused");
        assert_eq!(refusal, Refusal::new(Reason::Refused, details));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_a_lookup_ends_with_the_deadline() {
        let dialer = TargetDialer::new();
        let _all = dialer
            .lookups
            .acquire_many(u32::try_from(LOOKUPS).unwrap())
            .await
            .unwrap();
        let target = "localhost:1".parse().unwrap();
        let refusal = dialer
            .dial(&target, Duration::from_secs(3))
            .await
            .unwrap_err();
        let details = "look up localhost:1: 48 other look-ups are stuck";
        assert_eq!(refusal, Refusal::new(Reason::Overload, details));
    }
}
