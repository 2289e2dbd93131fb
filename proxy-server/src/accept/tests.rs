//! The accept loop with connections that follow a script, and the permits of a real listener.

use std::collections::VecDeque;
use std::future::pending;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Level;

use super::{ACCEPT_BACKOFF, Accept, AcceptError, accept_loop, failed_in_the_queue};
use crate::fixture::{Event, Fixture, take_events, within};

/// What an accept brings.
#[derive(Debug, Clone, Copy)]
enum Step {
    Item(u32),
    Connection,
    System,
    Closed,
}

use Step::{Closed, Connection, Item, System};

/// Takes the steps in turn, and then waits forever.
struct Script(Mutex<VecDeque<Step>>);

// === impl Script ===

impl Script {
    fn new(steps: &[Step]) -> Self {
        Self(Mutex::new(steps.iter().copied().collect()))
    }
}

impl Accept for Script {
    type Item = u32;

    async fn accept(&self) -> Result<u32, AcceptError> {
        let step = self.0.lock().unwrap().pop_front();
        match step {
            Some(Item(item)) => Ok(item),
            Some(Connection) => Err(AcceptError::Connection(
                io::ErrorKind::ConnectionAborted.into(),
            )),
            Some(System) => Err(AcceptError::System(io::Error::other("no descriptors"))),
            Some(Closed) => Err(AcceptError::Closed),
            None => pending().await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn errors_pause_only_where_the_system_refuses() {
    /// Each item with the number of pauses before it.
    type Items = &'static [(u32, u32)];
    // The steps, what is served, and the error lines.
    let table: [(&[Step], Items, usize); 6] = [
        (&[Closed, Item(1)], &[], 0),
        (&[Item(1), Item(2), Closed], &[(1, 0), (2, 0)], 0),
        (&[Connection, Connection, Item(1), Closed], &[(1, 0)], 0),
        (&[System, System, Item(1), Closed], &[(1, 2)], 1),
        (
            &[System, Item(1), System, System, Item(2), Closed],
            &[(1, 1), (2, 3)],
            2,
        ),
        // A client that left says nothing about the system.
        (&[System, Connection, System, Item(1), Closed], &[(1, 2)], 1),
    ];
    for (steps, expected, lines) in table {
        let fixture = Fixture::new();
        let (began, mut items) = (Instant::now(), Vec::new());
        let stop = CancellationToken::new();
        let script = Script::new(steps);
        let spawn = |item| items.push((item, began.elapsed()));
        within(accept_loop(&script, "name", &fixture.metrics, &stop, spawn)).await;
        assert_eq!(items.len(), expected.len(), "{steps:?}");
        for ((item, after), (expected, pauses)) in items.iter().zip(expected) {
            assert_eq!(item, expected, "{steps:?}");
            let least = ACCEPT_BACKOFF * *pauses;
            // Each timer fires up to a millisecond late.
            let most = least + Duration::from_millis(1) * *pauses;
            assert!((least..=most).contains(after), "{steps:?}: {after:?}");
        }
        let refused = steps.iter().filter(|step| matches!(step, System)).count();
        let counted = fixture.metric("accept_errors_total");
        assert_eq!(counted, u64::try_from(refused).unwrap(), "{steps:?}");
        let mut events = take_events();
        events.retain(|event: &Event| event.level == Level::ERROR);
        assert_eq!(events.len(), lines, "{steps:?}");
        for event in events {
            assert_eq!(event.field("message"), "accepting clients failed, retrying");
            assert_eq!(event.field("listener"), "name");
            assert_eq!(event.field("error"), "no descriptors");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_the_loop_while_it_waits_or_fails() {
    for (steps, limit) in [
        (vec![], Duration::ZERO),
        (vec![System; 100], ACCEPT_BACKOFF),
    ] {
        let fixture = Fixture::new();
        let stop = CancellationToken::new();
        let script = Script::new(&steps);
        let stopped = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            stop.cancel();
            Instant::now()
        };
        let looping = accept_loop(&script, "name", &fixture.metrics, &stop, |_| {});
        let ((), at) = within(async { tokio::join!(looping, stopped) }).await;
        assert!(at.elapsed() <= limit + Duration::from_millis(1));
    }
}

#[test]
fn only_errors_of_one_connection_are_told_apart() {
    use io::ErrorKind::*;
    let table = [
        (ConnectionAborted, true),
        (ConnectionReset, true),
        (NotConnected, true),
        (InvalidInput, true),
        (OutOfMemory, false),
        (PermissionDenied, false),
        (Other, false),
    ];
    for (kind, expected) in table {
        assert_eq!(failed_in_the_queue(&kind.into()), expected, "{kind}");
    }
    // EMFILE and ENFILE.
    for code in [23, 24] {
        let error = io::Error::from_raw_os_error(code);
        assert!(!failed_in_the_queue(&error), "{error}");
    }
}

mod bound {
    //! Real sockets, and therefore a real clock.

    use std::path::Path;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;
    use tokio::time::timeout;
    use towline_service::shutdown::DrainWatch;
    use towline_service::tasks::Tasks;

    use super::*;
    use crate::accept::BoundListener;
    use crate::fixture::client_info;
    use crate::frontend::{Connection, FRONTENDS, ServeContext};
    use crate::listen::ListenArgs;
    use crate::listener::ClientStream;

    async fn soon<T>(wait: impl Future<Output = T>) -> T {
        let wait = timeout(Duration::from_secs(10), wait);
        wait.await.expect("the wait ends")
    }

    fn context(fixture: &Fixture) -> Arc<ServeContext> {
        Arc::new(ServeContext {
            forward: Arc::clone(&fixture.forward),
            tasks: fixture.clients.clone(),
            drain: DrainWatch::never(),
            head_timeout: Duration::from_secs(60),
        })
    }

    fn bind(path: &Path, max_connections: u32, fixture: &Fixture) -> BoundListener {
        let spec = format!("connect=unix://{}", path.display());
        let args = ListenArgs {
            listen_tcp: None,
            listen: vec![spec.parse().unwrap()],
            unix_mode: 0o600,
            max_connections,
        };
        let config = args.config(None).unwrap().remove(0);
        let permits = Arc::new(Semaphore::new(args.max_connections()));
        BoundListener::bind(&config, permits, Arc::clone(&fixture.metrics)).unwrap()
    }

    /// What an idle connection costs is, besides its sockets, the future of its task and that of
    /// its frontend: 2,000 idle tunnels then hold 4 MiB at most.
    #[tokio::test]
    async fn the_futures_of_a_connection_are_small() {
        let fixture = Fixture::new();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let bound = bind(&path, 1, &fixture);
        let _client = UnixStream::connect(&path).await.unwrap();
        let client = bound.accept().await.unwrap();
        let context = context(&fixture);
        let task = Arc::clone(&bound.context).serve(client, Arc::clone(&context));
        let task = size_of_val(&task);
        for desc in FRONTENDS {
            let frontend = (desc.build)(&[]).unwrap();
            let (_near, far) = UnixStream::pair().unwrap();
            let connection = Connection {
                stream: ClientStream::Unix(far),
                client: client_info(),
                tls: None,
            };
            let served = size_of_val(&*frontend.serve(connection, &context));
            assert!(
                task + served <= 2_048,
                "{}: the task has {task} bytes, the frontend's future {served}",
                desc.name
            );
        }
    }

    #[tokio::test]
    async fn a_client_beyond_the_permits_waits_for_the_end_of_another_one() {
        let fixture = Fixture::new();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let bound = bind(&path, 1, &fixture);
        let permits = Arc::clone(&bound.permits);
        let (stop, accepting) = (CancellationToken::new(), Tasks::new());
        accepting.spawn("listener", bound.run(context(&fixture), stop.clone()));

        let mut first = UnixStream::connect(&path).await.unwrap();
        let mut second = UnixStream::connect(&path).await.unwrap();
        second.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let paused = async {
            while fixture.metric("accept_pauses_total") == 0 {
                tokio::task::yield_now().await;
            }
        };
        soon(paused).await;
        assert_eq!(fixture.metric("connections_total"), 1);
        assert_eq!(fixture.clients.len(), 1);
        assert_eq!(permits.available_permits(), 0);
        // No byte of an answer, until the first one ends.
        let nothing = second.try_read(&mut [0]).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        first.shutdown().await.unwrap();
        let mut answer = [0; 12];
        soon(second.read_exact(&mut answer)).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 405");
        drop(second);
        soon(fixture.clients.emptied()).await;
        assert_eq!(fixture.metric("connections_total"), 2);
        assert_eq!(permits.available_permits(), 1);

        stop.cancel();
        soon(accepting.emptied()).await;
        UnixStream::connect(&path).await.unwrap_err();
    }
}
