//! Agents that break the protocol: their own tunnels fail, and those of other agents do not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_rustls::rustls::ClientConfig;
use towline_e2e::certs::Certs;
use towline_e2e::endings::{End, echoes, end};
use towline_e2e::programs::{Agent, Server};
use towline_e2e::target::Target;
use towline_e2e::{admin, bounded, client, eventually};
use towline_protocol::code::{SessionCode, StreamCode};
use towline_protocol::control::{AgentKind, Hello, Message, encode};
use towline_protocol::failure::{SessionError, StreamError};
use towline_protocol::ids::Epoch;
use towline_quic::args::QuicConfig;
use towline_quic::dialer::{DialConfig, QuicDialer};
use towline_service::runtime::shard;
use towline_session::control_stream::ControlStream;
use towline_session::dialect::ALPN;
use towline_session::session::Session;
use towline_session::stream::TunnelStream;
use towline_tls::devcerts::{DevCerts, Profile, Validity};
use towline_tls::load::{Credentials, PemPath, Roots};

/// The limit of each step of a handshake.
const LIMIT: Duration = Duration::from_secs(5);

/// How long a rogue agent waits for the server to acknowledge its close.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Tunnels of the good agent: more than the rogue has, which therefore gets the next ones.
const BUSY: usize = 16;

/// Bytes that a flooding agent sends a client before the other tunnels are tried again.
const FLOOD: u64 = 32 * 1024 * 1024;

/// A tunnel through the good agent works within this time, whatever the rogue does.
const PROMPT: Duration = Duration::from_secs(2);

/// A server, a good agent with tunnels on it, and a target behind that.
struct Setup {
    certs: Certs,
    server: Server,
    good: Agent,
    echo: Target,
    busy: Vec<TcpStream>,
}

/// An agent whose streams the test serves by hand.
struct Rogue {
    session: Session,
    /// Kept open as long as the session.
    _control: ControlStream,
}

#[tokio::test]
async fn an_agent_that_accepts_tunnels_and_never_reads_or_writes() {
    bounded(async {
        let mut setup = Setup::start(&[]).await;
        let rogue = setup.rogue().await;
        let mut accepted = Vec::new();
        let mut silent = Vec::new();
        for _ in 0..4 {
            let (tunnel, stream) = tokio::join!(setup.tunnel(), accepts(&rogue.session));
            silent.push(tunnel);
            accepted.push(stream);
        }
        // Their clients can send what fits into a window, and no more.
        let mut flood = JoinSet::new();
        for mut tunnel in silent {
            flood.spawn(async move { tunnel.write_all(&vec![1; 64 * 1024 * 1024]).await });
        }
        setup.works().await;
        assert!(flood.try_join_next().is_none(), "64 MiB were taken");
        rogue.session.close(SessionCode::Closed, "enough");
        while let Some(written) = flood.join_next().await {
            written.unwrap().unwrap_err();
        }
        setup.ends_with(&[]).await;
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_floods() {
    bounded(async {
        let mut setup = Setup::start(&[]).await;
        let (dialer, server) = (setup.dialer(), setup.server.agents);
        let (quit, until) = oneshot::channel();
        // On a thread of its own, so that it takes no time from the server's runtime.
        let flood = thread::spawn(move || {
            let runtime = shard().expect("a runtime");
            runtime.block_on(async {
                let session = dial(server, &dialer).await.expect("a session");
                flood(session, until).await;
            });
        });
        setup.server.has_sessions(2).await;
        let _never_read = setup.tunnel().await;
        let mut read = setup.tunnel().await;
        let mut reader = JoinSet::new();
        reader.spawn(async move {
            let mut bytes = vec![0; 64 * 1024];
            while read.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
        });
        for round in 1..=4 {
            let flooded = || setup.server.tunnels.stats().to_client > round * FLOOD;
            eventually("the flood has reached the server", true, flooded).await;
            setup.works().await;
        }
        quit.send(()).unwrap();
        drop(reader);
        tokio::task::spawn_blocking(|| flood.join())
            .await
            .unwrap()
            .unwrap();
        setup.ends_with(&[]).await;
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_sends_invalid_answers() {
    bounded(async {
        let mut setup = Setup::start(&[]).await;
        let rogue = setup.rogue().await;
        let endless = [b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'x'; 32 * 1024]].concat();
        for garbage in [
            &b"\0\xff\x16\x03\x01 no answer at all\r\n\r\n"[..],
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"HTTP/2 200\r\n\r\n",
            b"CONNECT a:1 HTTP/1.1\r\n\r\n",
            &endless,
        ] {
            let shown = String::from_utf8_lossy(&garbage[..garbage.len().min(40)]).into_owned();
            let (refused, told) = tokio::join!(setup.refused(), async {
                let mut stream = asked(&rogue.session).await;
                // The server stops reading an answer that is too long.
                stream.write_all(garbage).await.ok();
                stop_of(&mut stream).await
            });
            assert_eq!(
                refused.answer.status, 500,
                "{shown}: {}",
                refused.answer.head
            );
            assert_eq!(told, StreamError::Reset(StreamCode::Protocol), "{shown}");
            setup.works().await;
        }
        rogue.session.close(SessionCode::Closed, "enough");
        setup.ends_with(&[]).await;
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_never_answers() {
    bounded(async {
        let setup = Setup::start(&["--dial-timeout", "1s"]).await;
        let rogue = setup.rogue().await;
        // After half of the deadline the other agent is asked beside it, and serves.
        let began = Instant::now();
        let (mut tunnel, stream) = tokio::join!(setup.tunnel(), async {
            let mut stream = asked(&rogue.session).await;
            stop_of(&mut stream).await
        });
        assert!(began.elapsed() >= Duration::from_millis(500));
        assert_eq!(stream, StreamError::Reset(StreamCode::Cancelled));
        echoes(&mut tunnel).await;
        drop(tunnel);

        // If the agent ends or resets the stream, another agent gets the request.
        for finish in [true, false] {
            let (mut tunnel, ()) = tokio::join!(setup.tunnel(), async {
                let mut stream = asked(&rogue.session).await;
                match finish {
                    true => stream.finish(),
                    false => stream.reset(StreamCode::Internal),
                }
            });
            echoes(&mut tunnel).await;
        }
        rogue.session.close(SessionCode::Closed, "enough");
        setup.ends_with(&[]).await;
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_sends_invalid_control_messages() {
    bounded(async {
        let mut setup = Setup::start(&[]).await;
        let long = vec![b'x'; 128 * 1024];
        for garbage in [
            &b"\0\xff\x16\n"[..],
            b"{}\n",
            b"[1,2]\n",
            b"{\"type\":\"draining\",\"deadline_ms\":-1}\n",
            &long,
        ] {
            let shown = String::from_utf8_lossy(&garbage[..garbage.len().min(40)]).into_owned();
            // After a valid hello.
            let session = setup.dial().await;
            let mut control = session.open_stream().unwrap();
            let hello = encode(&Message::Hello(hello("rogue")));
            control.write_all(&hello).await.unwrap();
            setup.server.has_sessions(2).await;
            let (mut tunnel, _stream) = tokio::join!(setup.tunnel(), accepts(&session));
            control.write_all(garbage).await.ok();
            assert_eq!(closed(&session).await, SessionCode::Protocol, "{shown}");
            assert_eq!(end(&mut tunnel).await, End::Reset, "{shown}");
            setup.server.has_sessions(1).await;

            // Instead of a hello.
            let session = setup.dial().await;
            let mut control = session.open_stream().unwrap();
            control.write_all(garbage).await.ok();
            assert_eq!(closed(&session).await, SessionCode::Protocol, "{shown}");
            setup.works().await;
        }
        setup.ends_with(&[("protocol", 5.0)]).await;
    })
    .await;
}

#[tokio::test]
async fn an_agent_whose_hello_is_late_missing_or_wrong() {
    bounded(async {
        let setup = Setup::start(&["--quic-handshake-timeout", "1s"]).await;
        // No control stream; a silent one; one that ends.
        let mute = setup.dial().await;
        let silent = setup.dial().await;
        let control = silent.open_stream().unwrap();
        let short = setup.dial().await;
        short.open_stream().unwrap().finish();
        for session in [&mute, &silent, &short] {
            assert_eq!(closed(session).await, SessionCode::Protocol);
        }
        drop(control);

        let long = "x".repeat(254);
        for id in ["", "a\nb", &long] {
            let session = setup.dial().await;
            let mut control = session.open_stream().unwrap();
            // What no agent of ours can say.
            let line = String::from_utf8(encode(&Message::Hello(hello("rogue")))).unwrap();
            let id = serde_json::to_string(id).unwrap();
            let line = line.replace("\"rogue\"", &id);
            control.write_all(line.as_bytes()).await.unwrap();
            assert_eq!(closed(&session).await, SessionCode::Protocol, "{id:?}");
        }

        // An older instance of a connected agent.
        let rogue = setup.rogue().await;
        let session = setup.dial().await;
        let old = Hello {
            epoch: Epoch(1),
            ..hello("rogue")
        };
        ControlStream::handshake(&session, old, LIMIT)
            .await
            .unwrap_err();
        assert_eq!(closed(&session).await, SessionCode::Replaced);
        setup.server.has_sessions(2).await;
        rogue.session.close(SessionCode::Closed, "enough");
        setup
            .ends_with(&[("protocol", 6.0), ("replaced", 1.0)])
            .await;
    })
    .await;
}

#[tokio::test]
async fn agents_without_a_valid_certificate() {
    bounded(async {
        let setup = Setup::start(&[]).await;
        let foreign = DevCerts::generate(Validity::days(1)).unwrap();
        let issue = |profile: Profile| setup.certs.issue(&profile).credentials();
        for (what, credentials) in [
            ("none", None),
            ("of a foreign authority", Some(foreign.agent.credentials())),
            (
                "expired",
                Some(issue(Profile::client().valid(Validity::expired()))),
            ),
            (
                "not yet valid",
                Some(issue(Profile::client().valid(Validity::not_yet()))),
            ),
            ("of a server", Some(issue(Profile::server(&["localhost"])))),
        ] {
            // In TLS 1.3 the client's handshake ends before the server refuses it.
            let why = match setup.dial_with(setup.tls(credentials.as_ref())).await {
                Err(error) => error,
                Ok(session) => timeout(LIMIT, session.closed()).await.unwrap(),
            };
            assert!(matches!(why, SessionError::Transport(_)), "{what}: {why}");
        }
        setup.ends_with(&[("handshake", 5.0)]).await;
    })
    .await;
}

// === impl Setup ===

impl Setup {
    async fn start(flags: &[&str]) -> Self {
        let certs = Certs::new();
        let server = Server::start(&certs, flags);
        let good = Agent::start(&certs, server.agents, &["--agent-id", "good"]);
        good.is_ready().await;
        server.has_sessions(1).await;
        let echo = Target::echo().await;
        let mut busy = Vec::new();
        for _ in 0..BUSY {
            busy.push(client::tunnel(server.tcp(0), echo.address).await);
        }
        Self {
            certs,
            server,
            good,
            echo,
            busy,
        }
    }

    /// Opens a tunnel; the agent with the fewest tunnels serves it.
    async fn tunnel(&self) -> TcpStream {
        client::tunnel(self.server.tcp(0), self.echo.address).await
    }

    async fn refused(&self) -> client::Refused {
        client::refused(self.server.tcp(0), self.echo.address).await
    }

    /// Every tunnel of the good agent works, and the server still admits agents.
    async fn works(&mut self) {
        let began = Instant::now();
        for tunnel in &mut self.busy {
            echoes(tunnel).await;
        }
        let fresh = Agent::start(&self.certs, self.server.agents, &["--agent-id", "fresh"]);
        fresh.is_ready().await;
        let took = began.elapsed();
        assert!(took < PROMPT, "{took:?}");
        let sessions = self.server.registry.snapshot().len();
        fresh.stop().await;
        self.server.has_sessions(sessions - 1).await;
    }

    /// A TLS configuration with these credentials.
    fn tls(&self, credentials: Option<&Credentials>) -> Arc<ClientConfig> {
        let roots = Roots::load(&PemPath {
            flag: "test",
            path: self.certs.path("ca.pem"),
        })
        .expect("an authority");
        match credentials {
            Some(own) => towline_tls::quic_client(own, &roots, &ALPN),
            None => {
                let mut config = ClientConfig::clone(&towline_tls::tcp_client(&roots, None));
                config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
                Arc::new(config)
            }
        }
    }

    /// A session of an agent with a valid certificate.
    async fn dial(&self) -> Session {
        let config = self.dialer();
        self.dial_with(config.tls).await.expect("a session")
    }

    /// The dial configuration of an agent with a valid certificate.
    fn dialer(&self) -> DialConfig {
        let agent = self.certs.issue(&Profile::client().common_name("rogue"));
        dial_config(self.tls(Some(&agent.credentials())))
    }

    async fn dial_with(&self, tls: Arc<ClientConfig>) -> Result<Session, SessionError> {
        let config = dial_config(tls);
        let server = self.server.agents;
        dial(server, &config).await
    }

    /// An agent that is admitted.
    async fn rogue(&self) -> Rogue {
        let session = self.dial().await;
        let greeted = ControlStream::handshake(&session, hello("rogue"), LIMIT).await;
        let (control, _) = greeted.expect("a welcome");
        Rogue {
            session,
            _control: control,
        }
    }

    /// Nothing is left once the rogues are gone; `refused` are the sessions that were refused.
    async fn ends_with(mut self, refused: &[(&str, f64)]) {
        self.server.has_sessions(1).await;
        self.works().await;
        let metrics = admin::metrics(self.server.admin).await;
        let all = metrics.by("towline_server_sessions_refused_total", "reason");
        for (reason, count) in refused {
            assert_eq!(all.get(*reason), Some(count), "{all:?}");
        }
        assert_eq!(metrics.value("towline_server_panics_total", &[]), 0.0);
        drop(self.busy);
        self.server.is_at_rest().await;
        self.good.is_at_rest().await;
        self.good.stop().await;
        self.server.stop().await;
    }
}

async fn dial(server: SocketAddr, config: &DialConfig) -> Result<Session, SessionError> {
    let dialer = QuicDialer::bind(server, config).expect("a socket");
    let connection = dialer.dial(server, "localhost", LIMIT).await?;
    Session::over_quic(connection, config.quic.max_streams)
}

fn dial_config(tls: Arc<ClientConfig>) -> DialConfig {
    DialConfig {
        tls,
        quic: QuicConfig::default(),
        keep_alive: Duration::from_secs(1),
    }
}

/// Sends without end on two tunnels and the control stream, until the test ends it.
async fn flood(session: Session, until: oneshot::Receiver<()>) {
    let mut control = session.open_stream().expect("a stream");
    let hello = encode(&Message::Hello(hello("rogue")));
    control
        .write_all(&hello)
        .await
        .expect("a server that reads");
    let mut floods = JoinSet::new();
    floods.spawn(async move {
        // Well-formed messages of a type that the server ignores.
        let messages = encode(&Message::Unknown).repeat(4_096);
        while control.write_all(&messages).await.is_ok() {}
    });
    for _ in 0..2 {
        let mut stream = accepts(&session).await;
        floods.spawn(async move {
            let bytes = vec![2; 64 * 1024];
            while stream.write_all(&bytes).await.is_ok() {}
        });
    }
    until.await.expect("a test that goes on");
    session
        .close_and_wait(SessionCode::Closed, "enough", CLOSE_TIMEOUT)
        .await;
}

/// Accepts the next stream and grants the tunnel.
async fn accepts(session: &Session) -> TunnelStream {
    let mut stream = asked(session).await;
    let yes = b"HTTP/1.1 200 OK\r\n\r\n";
    stream.write_all(yes).await.expect("a server that reads");
    stream
}

/// Accepts the next stream and reads its head.
async fn asked(session: &Session) -> TunnelStream {
    let mut stream = session.accept_stream().await.expect("a stream");
    stream.read_request().await.expect("a head");
    stream
}

/// The error with which the server ends a stream.
async fn stop_of(stream: &mut TunnelStream) -> StreamError {
    let error = stream.read_u8().await.expect_err("the end of the stream");
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    *inner.expect("a reset")
}

/// The code with which the server closes the session.
async fn closed(session: &Session) -> SessionCode {
    match timeout(LIMIT, session.closed()).await {
        Ok(SessionError::Closed { code, .. }) => code,
        other => panic!("not closed by the server: {other:?}"),
    }
}

fn hello(id: &str) -> Hello {
    Hello {
        agent_id: id.parse().expect("an agent id"),
        epoch: Epoch(2),
        version: "rogue".to_owned(),
        kind: AgentKind::Connect,
        max_streams: 100,
    }
}
