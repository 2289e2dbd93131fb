//! The promises of a splice, over streams in memory.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex,
};
use tokio::time::{Instant, timeout};
use towline_protocol::code::{SessionCode, StreamCode};

use super::{CloseReason, Options, splice};
use crate::args::TableConfig;
use crate::dialect::Dialect;
use crate::local_stream::LocalStream;
use crate::memory::{Limits, pair};
use crate::session::Session;
use crate::stream::TunnelStream;
use crate::tunnel_table::{Direction, TunnelStats, TunnelTable};

/// Longer than any step here takes on the paused clock.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Bytes that the local stream buffers each way, and ten times less than a tunnel stream.
const LOCAL_BUFFER: usize = 64;

/// A duplex stream that notes whether its close is an abort.
struct Local {
    stream: DuplexStream,
    aborted: Arc<AtomicBool>,
}

/// The outer ends of a tunnel, in the hands of a test.
struct Ends {
    table: TunnelTable,
    client: DuplexStream,
    agent: TunnelStream,
    sessions: (Session, Session),
}

/// Splices while `script` has the outer ends; returns how it ended, what it moved, and whether the
/// client's connection was aborted.
async fn run<F: Future<Output = ()>>(
    idle_timeout: Option<Duration>,
    script: impl FnOnce(Ends) -> F,
) -> (CloseReason, TunnelStats, bool) {
    let limits = Limits {
        buffer: 10 * LOCAL_BUFFER,
        ..Limits::default()
    };
    let sessions = pair(Dialect::Towline, limits);
    let near = sessions.1.open_stream().unwrap();
    let agent = sessions.0.accept_stream().await.unwrap();
    let (client, stream) = duplex(LOCAL_BUFFER);
    let aborted = Arc::<AtomicBool>::default();
    let local = Local {
        stream,
        aborted: Arc::clone(&aborted),
    };
    // The first stalled tunnel exceeds the budget.
    let table = TunnelTable::new(&TableConfig {
        stall_budget: 0,
        ..TableConfig::default()
    });
    let mut guard = table.register();
    let options = Options {
        from_socket: Direction::ToTarget,
        idle_timeout,
    };
    let early = Bytes::from_static(b"early ");
    let script = script(Ends {
        table,
        client,
        agent,
        sessions,
    });
    let both = async { tokio::join!(splice(local, early, near, &mut guard, options), script).0 };
    let reason = timeout(PATIENCE, both).await.expect("the splice ends");
    (reason, guard.stats(), aborted.load(Ordering::Relaxed))
}

async fn text(from: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut text = String::new();
    from.read_to_string(&mut text).await?;
    Ok(text)
}

#[tokio::test(start_paused = true)]
async fn each_half_ends_alone_and_the_other_goes_on() {
    for client_first in [true, false] {
        let script = |ends: Ends| async move {
            let Ends {
                mut client,
                mut agent,
                sessions: _sessions,
                ..
            } = ends;
            if client_first {
                client.write_all(b"question").await.unwrap();
                client.shutdown().await.unwrap();
                assert_eq!(text(&mut agent).await.unwrap(), "early question");
            }
            agent.write_all(b"answer").await.unwrap();
            agent.finish();
            assert_eq!(text(&mut client).await.unwrap(), "answer");
            if !client_first {
                client.write_all(b"question").await.unwrap();
                client.shutdown().await.unwrap();
                assert_eq!(text(&mut agent).await.unwrap(), "early question");
            }
        };
        let (reason, stats, aborted) = run(None, script).await;
        assert!(matches!(reason, CloseReason::Finished), "{reason}");
        let moved = TunnelStats {
            to_target: 14,
            to_client: 6,
        };
        assert_eq!((stats, aborted), (moved, false));
    }
}

#[tokio::test(start_paused = true)]
async fn a_reset_of_the_far_end_aborts_the_client() {
    let script = |ends: Ends| async move {
        let Ends {
            mut client,
            agent,
            sessions: _sessions,
            ..
        } = ends;
        agent.reset(StreamCode::TargetReset);
        text(&mut client).await.unwrap();
    };
    let (reason, _, aborted) = run(None, script).await;
    assert!(
        matches!(reason, CloseReason::FarReset(StreamCode::TargetReset)),
        "{reason}"
    );
    assert!(aborted);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_session_aborts_the_client() {
    let script = |ends: Ends| async move {
        ends.sessions.0.close(SessionCode::Closed, "");
        let mut client = ends.client;
        text(&mut client).await.unwrap();
    };
    let (reason, _, aborted) = run(None, script).await;
    assert!(matches!(reason, CloseReason::SessionLost), "{reason}");
    assert!(aborted);
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_that_is_told_to_end_resets_both_sides() {
    let script = |ends: Ends| async move {
        let Ends {
            table,
            mut client,
            mut agent,
            sessions: _sessions,
        } = ends;
        assert_eq!(table.abort_all(StreamCode::Draining), 1);
        text(&mut client).await.unwrap();
        let cut = text(&mut agent).await.unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::ConnectionReset);
    };
    let (reason, _, aborted) = run(None, script).await;
    assert!(
        matches!(reason, CloseReason::Aborted(StreamCode::Draining)),
        "{reason}"
    );
    assert!(aborted);
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_tunnel_after_the_idle_timeout_and_bytes_put_it_off() {
    const IDLE: Duration = Duration::from_secs(60);
    let began = Instant::now();
    let script = |ends: Ends| async move {
        let mut ends = ends;
        tokio::time::sleep(IDLE / 2).await;
        ends.client.write_all(b"x").await.unwrap();
        text(&mut ends.client).await.unwrap();
    };
    let (reason, stats, _) = run(Some(IDLE), script).await;
    assert!(
        matches!(reason, CloseReason::Aborted(StreamCode::Idle)),
        "{reason}"
    );
    assert_eq!(began.elapsed(), IDLE / 2 + IDLE);
    assert_eq!(stats.to_target, 7);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stops_is_stalled_and_pays_when_the_budget_is_used_up() {
    let script = |ends: Ends| async move {
        let Ends {
            table,
            client,
            mut agent,
            sessions: _sessions,
        } = ends;
        // The client never reads.
        while agent.write_all(&[0; LOCAL_BUFFER]).await.is_ok() {}
        assert_eq!(table.stats().stalled_resets, 1);
        drop(client);
    };
    let (reason, stats, aborted) = run(None, script).await;
    assert!(
        matches!(reason, CloseReason::Aborted(StreamCode::Overload)),
        "{reason}"
    );
    assert_eq!(usize::try_from(stats.to_client), Ok(LOCAL_BUFFER));
    assert!(aborted);
}

// === impl Local ===

impl AsyncRead for Local {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Local {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl LocalStream for Local {
    fn abort_on_close(&self) {
        self.aborted.store(true, Ordering::Relaxed);
    }

    fn failure(&self) -> Option<io::Error> {
        None
    }
}
