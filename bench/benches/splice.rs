//! Tunnels between in-memory pipes: both splices and a session over loopback in one thread, with no
//! TCP and no other process. Allocations are counted; the first column is the time of one round.

#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that breaks has nothing to tell"
)]

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use divan::counter::BytesCount;
use divan::{AllocProfiler, Bencher};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex,
};
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;
use towline_protocol::ask::Ask;
use towline_protocol::control::AgentKind;
use towline_quic::args::QuicConfig;
use towline_quic::dialer::{DialConfig, QuicDialer};
use towline_quic::listener::QuicListener;
use towline_session::args::TableConfig;
use towline_session::dialect::{ALPN, OpenContext};
use towline_session::local_stream::LocalStream;
use towline_session::session::Session;
use towline_session::splice::{Options, splice};
use towline_session::tunnel_table::{Direction, TunnelTable};
use towline_tls::devcerts::{DevCerts, Validity};
use towline_tls::load::{Credentials, PemPath, Roots};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

/// What fits into a pipe, as into the buffers of a socket on loopback.
const PIPE: usize = 256 * 1024;

/// Bytes that a bulk round carries.
const BULK: usize = 16 * 1024 * 1024;

fn main() {
    divan::main();
}

/// An in-memory pipe as a tunnel's socket.
struct Pipe(DuplexStream);

/// Both ends of a session.
struct Pair {
    runtime: Runtime,
    server: Session,
    agent: Session,
    tunnels: TunnelTable,
    _listener: QuicListener,
}

// === impl Pipe ===

impl LocalStream for Pipe {
    fn abort_on_close(&self) {}

    fn failure(&self) -> Option<io::Error> {
        None
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

// === impl Pair ===

impl Pair {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let (server, agent, listener) = runtime.block_on(session());
        Self {
            runtime,
            server,
            agent,
            tunnels: TunnelTable::new(&TableConfig::default()),
            _listener: listener,
        }
    }

    /// Opens a tunnel as both programs do, and gives its two outer ends to `work`.
    ///
    /// Both splices go on behind it for as long as the last acknowledgement takes, as they do in
    /// the programs, which do not wait for it either.
    fn tunnel<T>(&self, work: impl AsyncFn(DuplexStream, DuplexStream) -> T) -> T {
        let (client, near) = duplex(PIPE);
        let (far, target) = duplex(PIPE);
        let (session, mut guard) = (self.server.clone(), self.tunnels.register());
        self.runtime.spawn(async move {
            let ask = Ask::Connect("127.0.0.1:80".parse().unwrap());
            let deadline = Instant::now() + Duration::from_secs(10);
            let context = OpenContext::default();
            let stream = session.open_tunnel(&ask, &context, deadline).await.unwrap();
            let options = options(Direction::ToTarget);
            splice(Pipe(near), Bytes::new(), stream, &mut guard, options).await
        });
        let (session, mut guard) = (self.agent.clone(), self.tunnels.register());
        self.runtime.spawn(async move {
            let mut tunnel = session.accept_tunnel(AgentKind::Connect).await.unwrap();
            tunnel.read_request().await.unwrap();
            let stream = tunnel.accept().await.unwrap();
            let options = options(Direction::ToClient);
            splice(Pipe(far), Bytes::new(), stream, &mut guard, options).await
        });
        self.runtime.block_on(work(client, target))
    }
}

fn options(from_socket: Direction) -> Options {
    Options {
        from_socket,
        idle_timeout: None,
    }
}

async fn session() -> (Session, Session, QuicListener) {
    let dir = tempfile::tempdir().unwrap();
    DevCerts::generate(Validity::days(1))
        .unwrap()
        .write(dir.path())
        .unwrap();
    let pem = |flag, file: &str| PemPath {
        flag,
        path: dir.path().join(file),
    };
    let load = |who: &str| {
        let (cert, key) = (format!("{who}.pem"), format!("{who}-key.pem"));
        Credentials::load(&pem("--cert-file", &cert), &pem("--cert-key", &key)).unwrap()
    };
    let roots = Roots::load(&pem("--ca-file", "ca.pem")).unwrap();
    let quic = QuicConfig::default();
    let max_streams = quic.max_streams;
    let tls = towline_tls::quic_server(&load("server"), &roots, &ALPN).unwrap();
    let listener = QuicListener::bind(([127, 0, 0, 1], 0).into(), tls, &quic).unwrap();
    let dial = DialConfig {
        tls: towline_tls::quic_client(&load("agent"), &roots, &ALPN),
        quic,
        keep_alive: Duration::from_secs(2),
    };
    let address = listener.local_addr();
    let dialer = QuicDialer::bind(address, &dial).unwrap();
    let dialed = dialer.dial(address, "localhost", Duration::from_secs(5));
    let accepted = async { listener.accept().await.unwrap().handshake().await.unwrap() };
    let (agent, server) = tokio::join!(dialed, accepted);
    let session = |connection| Session::over_quic(connection, max_streams).unwrap();
    (session(server), session(agent.unwrap()), listener)
}

/// One tunnel from its opening to the end of both halves, with a message there and back: the
/// allocations are those of a whole tunnel at both ends, sockets excluded.
#[divan::bench(sample_count = 200, sample_size = 10)]
fn tunnel_open_exchange_close(bencher: Bencher<'_, '_>) {
    let pair = Pair::new();
    bencher.bench_local(|| {
        pair.tunnel(async |mut client, mut target| {
            let mut message = [7; 64];
            client.write_all(&message).await.unwrap();
            target.read_exact(&mut message).await.unwrap();
            target.write_all(&message).await.unwrap();
            client.read_exact(&mut message).await.unwrap();
            assert_eq!(message, [7; 64]);
        });
    });
}

/// Bytes from target to client.
#[divan::bench(sample_count = 20, sample_size = 1)]
fn splice_bulk_down(bencher: Bencher<'_, '_>) {
    let pair = Pair::new();
    let chunk = Arc::new(vec![0x5a; PIPE]);
    bencher.counter(BytesCount::new(BULK)).bench_local(|| {
        pair.tunnel(async |mut client, mut target| {
            let send = async {
                for _ in 0..BULK / PIPE {
                    target.write_all(&chunk).await.unwrap();
                }
                target.shutdown().await.unwrap();
                // Until the client has ended its half too.
                target.read_u8().await.unwrap_err();
            };
            let receive = async {
                let mut buffer = vec![0; PIPE];
                let mut sum = 0;
                loop {
                    match client.read(&mut buffer).await.unwrap() {
                        0 => break,
                        length => sum += length,
                    }
                }
                client.shutdown().await.unwrap();
                sum
            };
            let ((), sum) = tokio::join!(send, receive);
            assert_eq!(sum, BULK);
        });
    });
}
