//! Servers in memory, and a session loop that runs against them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use towline_agent::config::TunnelConfig;
use towline_agent::server_connector::{DialError, Established, ServerConnector};
use towline_agent::session_loop::{SessionLoop, SessionObserver};
use towline_protocol::control::{self, AgentKind, Decoder, Hello, Message, Welcome};
use towline_protocol::ids::Epoch;
use towline_protocol::target::Target;
use towline_service::tasks::Tasks;
use towline_session::control_stream::ControlStream;
use towline_session::dialect::Dialect;
use towline_session::memory::{Limits, pair};
use towline_session::session::Session;
use towline_session::stream::TunnelStream;

use crate::doubles::Agent;

/// How long tunnels may go on after a shutdown began.
pub(crate) const DRAIN: Duration = Duration::from_secs(30);

/// Longer than any test lasts on the paused clock.
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// What becomes of one attempt to connect.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Attempt {
    /// The server's name does not resolve.
    Fails,
    /// A session of this dialect.
    Connects(Dialect),
}

/// Servers in memory; after the planned attempts every further one hangs.
#[derive(Debug, Clone)]
struct FakeServers {
    plan: Arc<Mutex<VecDeque<Attempt>>>,
    attempts: UnboundedSender<Instant>,
    accepted: UnboundedSender<Accepted>,
}

/// The server's end of a session.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) session: Session,
    /// Nothing on a legacy session.
    pub(crate) control: Option<TunnelStream>,
}

/// Writes down what it is told.
#[derive(Debug, Clone)]
struct Observer(UnboundedSender<String>);

/// A session loop that runs, and everything around it.
pub(crate) struct Running {
    pub(crate) agent: Agent<false>,
    pub(crate) shutdown: CancellationToken,
    attempts: UnboundedReceiver<Instant>,
    pub(crate) accepted: UnboundedReceiver<Accepted>,
    pub(crate) observed: UnboundedReceiver<String>,
    task: Tasks,
}

// === impl FakeServers ===

impl ServerConnector for FakeServers {
    async fn connect(&self, server: &Target) -> Result<Established, DialError> {
        self.attempts.send(Instant::now()).unwrap();
        let attempt = self.plan.lock().unwrap().pop_front();
        match attempt {
            None => std::future::pending().await,
            Some(Attempt::Fails) => Err(DialError::Resolve(server.clone(), "planned".to_owned())),
            Some(Attempt::Connects(dialect)) => {
                let (agent, server) = pair(dialect, Limits::default());
                let (control, servers) = match dialect {
                    Dialect::Legacy => (None, None),
                    Dialect::Towline => {
                        let hello = ControlStream::handshake(&agent, hello(), HOUR);
                        let (agents, servers) = tokio::join!(hello, welcome(&server));
                        (Some(agents.unwrap()), Some(servers))
                    }
                };
                let accepted = Accepted {
                    session: server,
                    control: servers,
                };
                self.accepted.send(accepted).unwrap();
                Ok(Established {
                    session: agent,
                    control,
                })
            }
        }
    }
}

fn hello() -> Hello {
    Hello {
        agent_id: "agent".parse().unwrap(),
        epoch: Epoch(1),
        version: "0".to_owned(),
        kind: AgentKind::Connect,
        max_streams: 10,
    }
}

/// The server's part of the handshake, on a stream that a test may write anything to.
async fn welcome(server: &Session) -> TunnelStream {
    let mut control = server.accept_stream().await.unwrap();
    assert_eq!(message(&mut control).await, Message::Hello(hello()));
    let welcome = Welcome {
        server_id: "server".to_owned(),
        session_id: 7,
        version: "0".to_owned(),
    };
    send(&mut control, &Message::Welcome(welcome)).await;
    control
}

/// Sends a message.
pub(crate) async fn send(control: &mut TunnelStream, message: &Message) {
    control.write_all(&control::encode(message)).await.unwrap();
}

/// The one message that comes next.
pub(crate) async fn message(control: &mut TunnelStream) -> Message {
    let mut decoder = Decoder::default();
    loop {
        let byte = control.read_u8().await.unwrap();
        decoder.push(&[byte]);
        if let Some(message) = decoder.next().unwrap() {
            return message;
        }
    }
}

// === impl Observer ===

impl SessionObserver for Observer {
    fn connected(&self, server: &Target, _session: &Session) {
        self.0.send(format!("{server} connected")).ok();
    }

    fn disconnected(&self, server: &Target, session: &Session, why: &str) {
        let end = session.close_reason().map_or("open", |end| end.label());
        self.0
            .send(format!("{server} disconnected as {end}: {why}"))
            .ok();
    }

    fn failed(&self, server: &Target, why: &DialError) {
        self.0
            .send(format!("{server} failed to {}", why.phase()))
            .ok();
    }
}

// === impl Running ===

impl Running {
    pub(crate) fn start(servers: &[&str], plan: impl IntoIterator<Item = Attempt>) -> Self {
        let agent = Agent::new("", TunnelConfig::default());
        let (attempts_sender, attempts) = mpsc::unbounded_channel();
        let (accepted_sender, accepted) = mpsc::unbounded_channel();
        let (observer, observed) = mpsc::unbounded_channel();
        let shutdown = CancellationToken::new();
        let session_loop = SessionLoop {
            connector: FakeServers {
                plan: Arc::new(Mutex::new(plan.into_iter().collect())),
                attempts: attempts_sender,
                accepted: accepted_sender,
            },
            handler: agent.handler.clone(),
            observer: Observer(observer),
            drain_timeout: DRAIN,
            shutdown: shutdown.clone(),
        };
        let servers = servers.iter().map(|server| server.parse().unwrap());
        let task = Tasks::new();
        task.spawn("session loops", session_loop.run_all(servers.collect()));
        Self {
            agent,
            shutdown,
            attempts,
            accepted,
            observed,
            task,
        }
    }

    /// A loop with a session of this dialect.
    pub(crate) async fn connected(dialect: Dialect) -> (Self, Accepted) {
        let mut running = Self::start(&["s:1"], [Attempt::Connects(dialect)]);
        running.attempt().await;
        let accepted = running.accepted.recv().await.unwrap();
        running.observe("s:1 connected").await;
        (running, accepted)
    }

    /// The time of the next attempt to connect.
    pub(crate) async fn attempt(&mut self) -> Instant {
        self.attempts.recv().await.unwrap()
    }

    /// Waits until the observer is told this.
    #[track_caller]
    pub(crate) fn observe(&mut self, expected: &str) -> impl Future<Output = ()> {
        let expected = expected.to_owned();
        async move {
            let observed = timeout(HOUR, self.observed.recv()).await;
            assert_eq!(observed.unwrap().unwrap(), expected);
        }
    }

    /// Waits for the end of the loop; returns how long it took.
    pub(crate) async fn stopped(self) -> Duration {
        let began = Instant::now();
        assert!(self.task.finish_within(HOUR).await, "the loop goes on");
        assert_eq!(self.task.panics(), 0);
        assert_eq!(self.agent.table.stats().live, 0);
        began.elapsed()
    }
}
