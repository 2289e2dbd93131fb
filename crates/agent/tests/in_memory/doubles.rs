//! What stands in for targets and servers.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::sleep;
use towline_agent::config::TunnelConfig;
use towline_agent::connector::Connector;
use towline_agent::metrics::AgentMetrics;
use towline_agent::serve::TunnelHandler;
use towline_protocol::ask::Ask;
use towline_protocol::code::StreamCode;
use towline_protocol::control::AgentKind;
use towline_protocol::head::RequestHead;
use towline_protocol::refusal::{Reason, Refusal};
use towline_protocol::target::Host;
use towline_session::args::TableConfig;
use towline_session::local_stream::LocalStream;
use towline_session::session::Session;
use towline_session::stream::TunnelStream;
use towline_session::tunnel_table::TunnelTable;

/// The name of the program in refusals.
pub(crate) const NAME: &str = "agent";

/// A local end in memory.
#[derive(Debug)]
pub(crate) struct MemoryLocal(DuplexStream);

/// Does what the host of the target names: `connects`, `hangs` until the limit, `panics`, or
/// refuses with the reason of that label. What an upstream does is `upstream`.
#[derive(Debug)]
pub(crate) struct FakeConnector<const PASSTHROUGH: bool> {
    upstream: &'static str,
    /// Is sent the other end of each connection.
    connected: UnboundedSender<DuplexStream>,
    /// Attempts to connect that are under way.
    attempts: Arc<AtomicUsize>,
}

/// One attempt that is under way.
struct Attempt(Arc<AtomicUsize>);

/// A handler of tunnels with everything around it.
pub(crate) struct Agent<const PASSTHROUGH: bool> {
    pub(crate) handler: TunnelHandler<FakeConnector<PASSTHROUGH>>,
    pub(crate) table: TunnelTable,
    pub(crate) connected: UnboundedReceiver<DuplexStream>,
    pub(crate) attempts: Arc<AtomicUsize>,
    registry: Registry,
}

// === impl MemoryLocal ===

impl LocalStream for MemoryLocal {
    fn abort_on_close(&self) {}

    fn failure(&self) -> Option<io::Error> {
        None
    }
}

impl AsyncRead for MemoryLocal {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for MemoryLocal {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

// === impl FakeConnector ===

impl<const PASSTHROUGH: bool> Connector for FakeConnector<PASSTHROUGH> {
    type Stream = MemoryLocal;

    const KIND: AgentKind = if PASSTHROUGH {
        AgentKind::Passthrough
    } else {
        AgentKind::Connect
    };

    async fn connect(&self, ask: &Ask, limit: Duration) -> Result<MemoryLocal, Refusal> {
        let _attempt = Attempt::begin(&self.attempts);
        let behaviour = match ask {
            Ask::Upstream => self.upstream,
            Ask::Connect(target) => match &target.host {
                Host::Name(name) => &**name,
                Host::Ip(_) => panic!("an address names no behaviour"),
            },
        };
        match behaviour {
            "connects" => {
                let (near, far) = duplex(1024);
                self.connected.send(far).unwrap();
                Ok(MemoryLocal(near))
            }
            "hangs" => {
                sleep(limit).await;
                let details = format!("no answer in {limit:?}");
                Err(Refusal::new(Reason::DialTimeout, details))
            }
            "panics" => panic!("as asked for"),
            label => {
                let named = |reason: &Reason| reason.label() == label;
                let reason = Reason::ALL.into_iter().find(named).unwrap();
                Err(Refusal::new(reason, "as asked for"))
            }
        }
    }
}

// === impl Attempt ===

impl Attempt {
    fn begin(attempts: &Arc<AtomicUsize>) -> Self {
        attempts.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(attempts))
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Agent ===

impl<const PASSTHROUGH: bool> Agent<PASSTHROUGH> {
    /// An agent whose upstream behaves like this.
    pub(crate) fn new(upstream: &'static str, config: TunnelConfig) -> Self {
        let (sender, connected) = mpsc::unbounded_channel();
        let attempts = Arc::<AtomicUsize>::default();
        let connector = FakeConnector {
            upstream,
            connected: sender,
            attempts: Arc::clone(&attempts),
        };
        let table = TunnelTable::new(&TableConfig::default());
        let mut registry = Registry::default();
        let metrics = AgentMetrics::register(&mut registry, table.clone());
        Self {
            handler: TunnelHandler::new(NAME, config, table.clone(), metrics, connector),
            table,
            connected,
            attempts,
            registry,
        }
    }

    /// Panics unless every sample is on the page of metrics, each without its prefix.
    #[track_caller]
    pub(crate) fn assert_metrics(&self, samples: &[&str]) {
        let mut page = String::new();
        text::encode(&mut page, &self.registry).unwrap();
        for sample in samples {
            let line = format!("towline_agent_{sample}");
            assert!(page.lines().any(|on| on == line), "no {line:?} in {page}");
        }
    }
}

/// Opens a stream and asks for a target, which names what the connector does.
pub(crate) async fn ask(
    session: &Session,
    behaviour: &str,
    deadline: Option<Duration>,
) -> TunnelStream {
    let mut stream = session.open_stream().unwrap();
    let head = RequestHead {
        deadline,
        ..RequestHead::new(Ask::parse(&format!("{behaviour}:1")).unwrap())
    };
    stream.write_all(&head.encode()).await.unwrap();
    stream
}

/// What a stream says that was reset with this code.
pub(crate) fn reset_text(code: StreamCode) -> String {
    format!("reset by the peer as {code}")
}
