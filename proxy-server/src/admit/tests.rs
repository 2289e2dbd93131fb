//! Sessions from their hello to their end, over a transport in memory.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::Instant;
use towline_protocol::code::SessionCode;
use towline_protocol::control::{self, AgentKind, Bye, Decoder, Draining, Hello, Message, Welcome};
use towline_protocol::failure::SessionError;
use towline_protocol::ids::Epoch;
use towline_service::tasks::Tasks;
use towline_session::control_stream::{ControlStream, ControlStreamError};
use towline_session::dialect::Dialect;
use towline_session::memory::{Limits, pair};
use towline_session::session::Session;
use towline_session::stream::TunnelStream;

use super::{Admission, AdmitConfig, LegacyAgents};
use crate::fixture::{Fixture, take_events, within};
use crate::registry::SessionEntry;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// A server that admits, with the tasks of its sessions.
struct Server {
    fixture: Fixture,
    admission: Arc<Admission>,
    tasks: Tasks,
}

// === impl Server ===

impl Server {
    fn new() -> Self {
        Self::with(AdmitConfig {
            handshake_timeout: HANDSHAKE_TIMEOUT,
            ..AdmitConfig::default()
        })
    }

    fn with(config: AdmitConfig) -> Self {
        let fixture = Fixture::new();
        let registry = fixture.registry.clone();
        let admission = Admission::new(config, registry, Arc::clone(&fixture.metrics));
        Self {
            fixture,
            admission: Arc::new(admission),
            tasks: Tasks::new(),
        }
    }

    /// The agent's end of a session that is served as a task.
    fn dial(&self, dialect: Dialect) -> Session {
        let (near, far) = pair(dialect, Limits::default());
        let admission = Arc::clone(&self.admission);
        self.tasks
            .spawn("agent", async move { admission.serve(far).await });
        near
    }

    /// A session that is admitted.
    async fn connect(&self, epoch: u64) -> (Session, ControlStream, Arc<SessionEntry>) {
        let session = self.dial(Dialect::Towline);
        let (control, welcome) = greet(&session, hello(epoch)).await.unwrap();
        (session, control, self.entry(&welcome))
    }

    fn entry(&self, welcome: &Welcome) -> Arc<SessionEntry> {
        let sessions = self.fixture.registry.snapshot();
        let is_it = |entry: &&Arc<SessionEntry>| entry.id.number() == welcome.session_id;
        Arc::clone(sessions.iter().find(is_it).unwrap())
    }

    /// Waits until no session is served; each count of ended sessions must then be this.
    async fn assert_ended(&self, reason: &str, count: u64) {
        within(self.tasks.emptied()).await;
        assert!(self.fixture.registry.snapshot().is_empty());
        let metric = format!("sessions_ended_total{{reason=\"{reason}\"}}");
        assert_eq!(self.fixture.metric(&metric), count, "{metric}");
    }
}

fn hello(epoch: u64) -> Hello {
    Hello {
        agent_id: "a".parse().unwrap(),
        epoch: Epoch(epoch),
        version: "1.2.3".to_owned(),
        kind: AgentKind::Connect,
        max_streams: 100,
    }
}

async fn greet(
    session: &Session,
    hello: Hello,
) -> Result<(ControlStream, Welcome), ControlStreamError> {
    ControlStream::handshake(session, hello, Duration::from_secs(60)).await
}

fn closed(code: SessionCode, reason: &str) -> SessionError {
    let reason = reason.to_owned();
    SessionError::Closed { code, reason }
}

/// The control stream of an agent that writes what it wants.
async fn raw_control(session: &Session, bytes: &[u8]) -> TunnelStream {
    let mut stream = session.open_stream().unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

#[tokio::test(start_paused = true)]
async fn an_agent_is_welcomed_and_registered() {
    for kind in [AgentKind::Connect, AgentKind::Passthrough] {
        let server = Server::new();
        let session = server.dial(Dialect::Towline);
        let hello = Hello { kind, ..hello(7) };
        let (_control, welcome) = greet(&session, hello).await.unwrap();
        assert!(welcome.server_id.starts_with("proxy-server-"));
        assert_eq!(welcome.version, env!("CARGO_PKG_VERSION"));
        let entry = server.entry(&welcome);
        assert_eq!(entry.agent.id.as_str(), "a");
        assert_eq!(&*entry.agent.identity, "agent.memory");
        assert_eq!(entry.agent.kind, kind);
        assert_eq!(entry.agent.epoch, Some(Epoch(7)));
        assert!(entry.takes_tunnels());
        assert_eq!(server.fixture.metric("sessions_admitted_total"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_of_the_legacy_dialect_is_what_the_operator_says() {
    let table = [
        (LegacyAgents::Connect, Some(AgentKind::Connect)),
        (LegacyAgents::Passthrough, Some(AgentKind::Passthrough)),
        (LegacyAgents::Refuse, None),
    ];
    for (legacy_agents, expected) in table {
        let server = Server::with(AdmitConfig {
            legacy_agents,
            ..AdmitConfig::default()
        });
        let session = server.dial(Dialect::Legacy);
        match expected {
            Some(kind) => {
                // Nothing tells the agent that it was admitted.
                tokio::time::sleep(Duration::from_secs(1)).await;
                let sessions = server.fixture.registry.snapshot();
                let agent = &sessions[0].agent;
                assert_eq!((agent.kind, agent.epoch), (kind, None));
                assert_eq!(agent.id.as_str(), "agent.memory");
                session.close(SessionCode::Closed, "");
                server.assert_ended("closed", 1).await;
            }
            None => {
                let why = within(session.closed()).await;
                let words = "legacy agents are refused here";
                assert_eq!(why, closed(SessionCode::Refused, words));
                let metric = "sessions_refused_total{reason=\"refused\"}";
                assert_eq!(server.fixture.metric(metric), 1);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_hello_closes_the_session() {
    let bye = control::encode(&Message::Bye(Bye {
        reason: "hi".to_owned(),
    }));
    let long = vec![b' '; control::MAX_LINE + 1];
    // What is written, whether the stream ends then, and the words of the close.
    let table: [(Option<&[u8]>, bool, &str); 7] = [
        (
            None,
            false,
            "no hello or welcome within the handshake timeout",
        ),
        (
            Some(b"{\"type\":\"hello\""),
            false,
            "no hello or welcome within the handshake timeout",
        ),
        (
            Some(b"GET / HTTP/1.1\r\n"),
            false,
            "malformed control message: expected value at line 1 column 1",
        ),
        (Some(&bye), false, "the first message must be hello"),
        (
            Some(b"{\"type\":\"unknown\"}\n"),
            false,
            "the first message must be hello",
        ),
        (
            Some(&long),
            false,
            "control message is longer than 65536 bytes",
        ),
        (Some(b""), true, "the peer ended the control stream"),
    ];
    for (bytes, finish, words) in table {
        let server = Server::new();
        let began = Instant::now();
        let session = server.dial(Dialect::Towline);
        let mut control = None;
        if let Some(bytes) = bytes {
            let stream = control.insert(session.open_stream().unwrap());
            // A line that is too long does not fit the buffer of the stream.
            stream.write_all(bytes).await.ok();
            if finish {
                stream.finish();
            }
        }
        let why = within(session.closed()).await;
        assert_eq!(why, closed(SessionCode::Protocol, words));
        let slow = words.contains("timeout");
        assert_eq!(began.elapsed() >= HANDSHAKE_TIMEOUT, slow, "{words}");
        let metric = "sessions_refused_total{reason=\"protocol\"}";
        assert_eq!(server.fixture.metric(metric), 1, "{words}");
        assert_eq!(server.fixture.metric("sessions_admitted_total"), 0);
        server.assert_ended("ended_here", 0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_not_registered_is_closed_with_its_reason() {
    let stale = "a newer instance of agent a is connected; \
                 give every agent an --agent-id of its own";
    let table = [
        ("replaced", SessionCode::Replaced, stale),
        (
            "overload",
            SessionCode::Overload,
            "this server has all the sessions that it takes",
        ),
        (
            "draining",
            SessionCode::Draining,
            "this server is shutting down",
        ),
    ];
    for (label, code, words) in table {
        let server = Server::with(AdmitConfig {
            max_sessions: if label == "overload" { 1 } else { 10 },
            ..AdmitConfig::default()
        });
        let (first, _control, entry) = server.connect(2).await;
        // A tunnel keeps the first session open in a drain.
        let _tunnel = entry.session.open_stream().unwrap();
        if label == "draining" {
            server.fixture.registry.close();
        }
        let session = server.dial(Dialect::Towline);
        let error = greet(&session, hello(1)).await.unwrap_err();
        assert!(matches!(error, ControlStreamError::Session(_)), "{error:?}");
        assert_eq!(session.closed().await, closed(code, words));
        let metric = format!("sessions_refused_total{{reason=\"{label}\"}}");
        assert_eq!(server.fixture.metric(&metric), 1, "{label}");
        assert_eq!(first.close_reason(), None, "{label}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_gone_before_its_hello_is_refused() {
    let server = Server::new();
    drop(server.dial(Dialect::Towline));
    within(server.tasks.emptied()).await;
    let metric = "sessions_refused_total{reason=\"protocol\"}";
    assert_eq!(server.fixture.metric(metric), 1);
    let lines = take_events();
    let refused = lines
        .iter()
        .find(|event| event.field("message") == "agent refused");
    let error = refused.unwrap().field("error");
    assert_eq!(error, "the peer was silent for the idle timeout");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_session_is_counted_by_its_reason() {
    for code in SessionCode::ALL {
        let server = Server::new();
        let (session, _control, entry) = server.connect(1).await;
        session.close(code, "words");
        server.assert_ended(code.label(), 1).await;
        let ended = entry.session.closed().await;
        assert_eq!(ended, closed(code, "words"));
    }
    let server = Server::new();
    drop(server.connect(1).await);
    // The test holds no end of the session any more, and the agent did not close it.
    server.assert_ended("silent", 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_control_stream_that_breaks_closes_the_session() {
    let hello = control::encode(&Message::Hello(hello(1)));
    let table: [(&[u8], bool, &str); 2] = [
        (b"", true, "the peer ended the control stream"),
        (
            b"?\n",
            false,
            "malformed control message: expected value at line 1 column 1",
        ),
    ];
    for (bytes, finish, words) in table {
        let server = Server::new();
        let session = server.dial(Dialect::Towline);
        let mut control = raw_control(&session, &hello).await;
        read_message(&mut control).await;
        control.write_all(bytes).await.unwrap();
        if finish {
            control.finish();
        }
        let why = within(session.closed()).await;
        assert_eq!(why, closed(SessionCode::Protocol, words));
        server.assert_ended("ended_here", 1).await;
    }
}

/// Reads the one message that is there.
async fn read_message(control: &mut TunnelStream) -> Message {
    let mut decoder = Decoder::default();
    loop {
        let mut bytes = [0; 512];
        let read = within(control.read(&mut bytes)).await.unwrap();
        decoder.push(&bytes[..read]);
        if let Some(message) = decoder.next().unwrap() {
            return message;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn further_messages_change_nothing() {
    let server = Server::new();
    let (session, mut control, entry) = server.connect(1).await;
    let bye = Message::Bye(Bye {
        reason: "I leave".to_owned(),
    });
    for message in [bye, Message::Unknown, Message::Hello(hello(9))] {
        control.send(&message).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(session.close_reason(), None);
    assert!(entry.takes_tunnels());
    let events = take_events();
    let left = events
        .iter()
        .find(|event| event.field("message") == "agent announced its close");
    assert_eq!(left.unwrap().field("reason"), "I leave");
}

/// What makes a session drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// The agent says so.
    Agent,
    /// The server shuts down.
    Close,
    /// A newer instance of the agent connects.
    Takeover,
}

#[tokio::test(start_paused = true)]
async fn a_session_that_drains_ends_with_its_last_tunnel() {
    for cause in [Cause::Agent, Cause::Close, Cause::Takeover] {
        for tunnels in [0, 1, 2] {
            let server = Server::new();
            let (session, mut control, entry) = server.connect(1).await;
            let mut open: Vec<_> = (0..tunnels)
                .map(|_| entry.session.open_stream().unwrap())
                .collect();
            let mut newer = None;
            match cause {
                Cause::Agent => {
                    let draining = Draining { deadline_ms: 1 };
                    control.send(&Message::Draining(draining)).await.unwrap();
                }
                Cause::Close => server.fixture.registry.close(),
                Cause::Takeover => newer = Some(server.connect(2).await),
            }
            within(entry.draining()).await;
            while let Some(tunnel) = open.pop() {
                // Only the deadline of the whole shutdown bounds this.
                tokio::time::sleep(Duration::from_secs(600)).await;
                assert_eq!(session.close_reason(), None, "{cause:?}");
                drop(tunnel);
            }
            let why = within(session.closed()).await;
            let drained = closed(SessionCode::Closed, "drained");
            assert_eq!(why, drained, "{cause:?}, {tunnels} tunnels");
            if let Some((newer, _control, entry)) = newer {
                assert!(entry.takes_tunnels());
                assert_eq!(newer.close_reason(), None);
                newer.close(SessionCode::Closed, "");
            }
            server.assert_ended("ended_here", 1).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_is_told_once_that_its_session_drains_and_until_when() {
    for cause in [Cause::Close, Cause::Takeover] {
        let server = Server::with(AdmitConfig {
            drain_timeout: Duration::from_millis(1234),
            ..AdmitConfig::default()
        });
        let (session, mut control, entry) = server.connect(1).await;
        let tunnel = entry.session.open_stream().unwrap();
        let newer = match cause {
            Cause::Takeover => Some(server.connect(2).await),
            _ => None,
        };
        server.fixture.registry.close();
        let message = within(control.next()).await.unwrap();
        let expected = Message::Draining(Draining { deadline_ms: 1234 });
        assert_eq!(message, expected, "{cause:?}");
        drop((tunnel, newer));
        within(control.next()).await.unwrap_err();
        let drained = closed(SessionCode::Closed, "drained");
        assert_eq!(session.closed().await, drained);
    }
}

#[tokio::test(start_paused = true)]
async fn a_legacy_session_drains_without_a_word() {
    let server = Server::new();
    let session = server.dial(Dialect::Legacy);
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.fixture.registry.close();
    let why = within(session.closed()).await;
    assert_eq!(why, closed(SessionCode::Closed, "drained"));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_without_a_session_is_counted() {
    let server = Server::new();
    let error = SessionError::HandshakeTimeout;
    server.admission.handshake_failed(&error);
    let metric = "sessions_refused_total{reason=\"handshake\"}";
    assert_eq!(server.fixture.metric(metric), 1);
}
