//! Happy Eyeballs (RFC 8305): which of a host's addresses to connect to, and when to try the next.
//!
//! Pure but for the timer; how an address is connected to is the caller's.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long an attempt is alone before the next address joins (RFC 8305 §5, "Connection Attempt
/// Delay"): longer than most round trips, too short for a user to notice.
const STAGGER: Duration = Duration::from_millis(250);

/// An address that could not be connected to, and why.
pub(crate) type Failure = (SocketAddr, io::Error);

/// The attempts under way, each owned here: dropping the list ends them at once.
type Attempts<F> = Vec<(SocketAddr, Pin<Box<F>>)>;

/// The addresses in the order in which to try them: as the resolver sorted them (RFC 6724), but
/// the families alternate (RFC 8305 §4), and no address comes twice.
pub(crate) fn interleave(sorted: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in sorted {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (preferred, other): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    let (mut preferred, mut other) = (preferred.into_iter(), other.into_iter());
    let mut order = Vec::new();
    loop {
        match (preferred.next(), other.next()) {
            (None, None) => return order,
            (one, another) => order.extend(one.into_iter().chain(another)),
        }
    }
}

/// Connects to the first address that answers; the others are dropped. The next address is tried
/// when an attempt fails, or after a quarter of a second.
///
/// # Errors
/// The failure of every address, when none could be connected to.
pub(crate) async fn race<T, F>(
    addresses: Vec<SocketAddr>,
    mut connect: impl FnMut(SocketAddr) -> F,
) -> Result<T, Vec<Failure>>
where
    F: Future<Output = io::Result<T>>,
{
    if let [only] = addresses[..] {
        // Nothing to race against: most targets are given as an address.
        return connect(only).await.map_err(|error| vec![(only, error)]);
    }
    let mut waiting = addresses.into_iter();
    let mut attempts: Attempts<F> = Vec::new();
    let mut failures = Vec::new();
    let mut stagger = pin!(sleep(STAGGER));
    loop {
        if let Some(address) = waiting.next() {
            attempts.push((address, Box::pin(connect(address))));
            stagger.as_mut().reset(Instant::now() + STAGGER);
        } else if attempts.is_empty() {
            return Err(failures);
        }
        tokio::select! {
            (address, ended) = first_end(&mut attempts) => match ended {
                Ok(connected) => return Ok(connected),
                Err(error) => failures.push((address, error)),
            },
            () = &mut stagger, if waiting.len() > 0 => {}
        }
    }
}

/// Waits for the next attempt to end and takes it off the list. Cancel-safe.
async fn first_end<T, F>(attempts: &mut Attempts<F>) -> (SocketAddr, io::Result<T>)
where
    F: Future<Output = io::Result<T>>,
{
    poll_fn(|cx| {
        for index in 0..attempts.len() {
            let (address, attempt) = &mut attempts[index];
            if let Poll::Ready(ended) = attempt.as_mut().poll(cx) {
                let address = *address;
                drop(attempts.remove(index));
                return Poll::Ready((address, ended));
            }
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;

    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_alternate_and_the_resolvers_choice_is_first() {
        for (sorted, order) in [
            (&[][..], &[][..]),
            (&["1.0.0.1:1"], &["1.0.0.1:1"]),
            (
                &["[::1]:1", "[::2]:1", "[::3]:1", "1.0.0.1:1", "1.0.0.2:1"],
                &["[::1]:1", "1.0.0.1:1", "[::2]:1", "1.0.0.2:1", "[::3]:1"],
            ),
            (
                &["1.0.0.1:1", "1.0.0.2:1", "[::1]:1"],
                &["1.0.0.1:1", "[::1]:1", "1.0.0.2:1"],
            ),
            (
                &["1.0.0.1:1", "1.0.0.1:1", "1.0.0.1:2"],
                &["1.0.0.1:1", "1.0.0.1:2"],
            ),
        ] {
            assert_eq!(
                interleave(addresses(sorted)),
                addresses(order),
                "{sorted:?}"
            );
        }
    }

    /// How a simulated address behaves.
    #[derive(Clone, Copy)]
    enum Host {
        Answers(u64),
        Fails(u64, io::ErrorKind),
        Silent,
    }

    /// Counts the attempts that are alive.
    struct Alive(Rc<Cell<usize>>);

    impl Drop for Alive {
        fn drop(&mut self) {
            self.0.set(self.0.get() - 1);
        }
    }

    struct Played {
        outcome: Result<u16, Vec<(u16, io::ErrorKind)>>,
        /// When each host was tried, in milliseconds.
        tried: Vec<u128>,
        took: u128,
        left: usize,
    }

    /// Races simulated hosts; a host is known by its port, which is its index.
    async fn play(hosts: &[Host]) -> Played {
        let began = Instant::now();
        let tried = RefCell::new(Vec::new());
        let alive = Rc::new(Cell::new(0));
        let ports = 0..u16::try_from(hosts.len()).unwrap();
        let list = ports
            .map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
            .collect();
        let outcome = race(list, |address| {
            tried.borrow_mut().push(began.elapsed().as_millis());
            alive.set(alive.get() + 1);
            let guard = Alive(Rc::clone(&alive));
            let host = hosts[usize::from(address.port())];
            async move {
                let _guard = guard;
                match host {
                    Host::Answers(after) => {
                        sleep(Duration::from_millis(after)).await;
                        Ok(address.port())
                    }
                    Host::Fails(after, kind) => {
                        sleep(Duration::from_millis(after)).await;
                        Err(kind.into())
                    }
                    Host::Silent => std::future::pending().await,
                }
            }
        })
        .await
        .map_err(|failures| {
            let kinds = failures
                .iter()
                .map(|(address, error)| (address.port(), error.kind()));
            kinds.collect()
        });
        let took = began.elapsed().as_millis();
        Played {
            outcome,
            tried: tried.take(),
            took,
            left: alive.get(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_quick_host_is_the_only_one_tried() {
        let played = play(&[Host::Answers(249), Host::Answers(0)]).await;
        assert_eq!(played.outcome, Ok(0));
        assert_eq!(played.tried, [0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_host_costs_a_quarter_of_a_second_and_is_dropped() {
        let played = play(&[Host::Silent, Host::Silent, Host::Answers(5), Host::Silent]).await;
        assert_eq!(played.outcome, Ok(2));
        assert_eq!(played.tried, [0, 250, 500]);
        assert_eq!((played.took, played.left), (505, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_host_may_still_win() {
        let played = play(&[Host::Answers(400), Host::Answers(400)]).await;
        assert_eq!(played.outcome, Ok(0));
        assert_eq!((played.took, played.left), (400, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_brings_the_next_host_at_once() {
        let refused = io::ErrorKind::ConnectionRefused;
        let played = play(&[Host::Fails(1, refused), Host::Silent, Host::Answers(1)]).await;
        assert_eq!(played.outcome, Ok(2));
        assert_eq!(played.tried, [0, 1, 251]);
    }

    #[tokio::test(start_paused = true)]
    async fn every_failure_is_reported_when_all_fail() {
        let (refused, timeout) = (io::ErrorKind::ConnectionRefused, io::ErrorKind::TimedOut);
        let played = play(&[Host::Fails(600, timeout), Host::Fails(10, refused)]).await;
        assert_eq!(played.outcome, Err(vec![(1, refused), (0, timeout)]));
        assert_eq!(played.took, 600);
        assert_eq!(play(&[]).await.outcome, Err(vec![]));
    }
}
