//! Metrics and logs after a mixed load: the metrics add up, each tunnel has one access-log line,
//! and no log contains payload or secrets.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use towline_e2e::certs::Certs;
use towline_e2e::endings::{End, end};
use towline_e2e::openmetrics::Metrics;
use towline_e2e::process::{Line, Process};
use towline_e2e::target::{BlackHole, Closed, Target};
use towline_e2e::{admin, bounded, client};

/// Part of every payload and of the secret parts of every head.
const MARKER: &str = "pAyLoAd-MaRkEr";

const FINISHED: usize = 20;
const RAW: usize = 5;
const REFUSED: usize = 3;
const RESET: usize = 2;

/// An idle program ends within the limit of its connection closes.
const STOP: Duration = Duration::from_secs(10);

/// The three programs with the log level `debug`.
struct Programs {
    certs: Certs,
    server: Process,
    agent: Process,
    agent_tcp: Process,
    echo: Target,
    proxy: SocketAddr,
    raw: SocketAddr,
}

/// The load, by the clients' addresses: outcome, bytes to the target and to the client.
#[derive(Debug, Default)]
struct Load {
    tunnels: HashMap<String, (&'static str, u64, u64)>,
    unread: HashMap<String, u16>,
    connections: f64,
}

// === impl Programs ===

impl Programs {
    async fn start() -> Self {
        let certs = Certs::new();
        let echo = Target::echo().await;
        let debug = ["--log", "debug"];
        let listen = ["--listen", "raw=tcp://127.0.0.1:0"];
        let server = Process::server(&certs, &[debug, listen].concat());
        let agents = server.address("agents").await;
        let agent = Process::agent(&certs, agents, &[&debug[..], &["--agent-id", "c"]].concat());
        let tcp_flags = [&debug[..], &["--agent-id", "p"]].concat();
        let agent_tcp = Process::agent_tcp(&certs, agents, echo.address, &tcp_flags);
        for page in [agent.admin().await, agent_tcp.admin().await] {
            admin::is_ready(page).await;
        }
        let (proxy, raw) = (server.address("connect").await, server.address("raw").await);
        Self {
            certs,
            server,
            agent,
            agent_tcp,
            echo,
            proxy,
            raw,
        }
    }

    /// Waits until the load has ended everywhere, then scrapes all three.
    async fn scrape(&self) -> [Metrics; 3] {
        let server = self.server.admin().await;
        let at_rest = admin::metrics_become("a server at rest", server, |metrics| {
            metrics.find("towline_server_client_tasks", &[]) == Some(0.0)
                && metrics.sum("towline_server_session_streams") == 0.0
        });
        let server = at_rest.await;
        let agents = [&self.agent, &self.agent_tcp].map(|agent| async {
            admin::metrics_become("an agent at rest", agent.admin().await, |metrics| {
                metrics.find("towline_agent_tunnels_open", &[]) == Some(0.0)
                    && metrics.sum("towline_agent_session_streams") == 0.0
            })
            .await
        });
        let [agent, agent_tcp] = agents;
        [server, agent.await, agent_tcp.await]
    }

    /// Stops all three, and returns their complete logs.
    async fn stop(mut self) -> [Vec<Line>; 3] {
        for program in [&mut self.agent_tcp, &mut self.agent, &mut self.server] {
            program.terminate().await;
            let status = program.exit_status(STOP).await;
            assert_eq!(status.code(), Some(0), "{}", program.text());
        }
        [&self.server, &self.agent, &self.agent_tcp].map(Process::lines)
    }
}

// === impl Load ===

impl Load {
    async fn run(programs: &Programs) -> Self {
        let mut load = Self::default();
        for index in 0..FINISHED {
            let stream = load.tunnel(programs, programs.echo.address).await;
            load.echo_and_finish(stream, 1 + index * 7_000).await;
        }
        for index in 0..RAW {
            let stream = load.connected(programs.raw).await;
            load.echo_and_finish(stream, 10 + index * 5_000).await;
        }
        load.resets(programs).await;
        let closed = Closed::new();
        for _ in 0..REFUSED {
            load.refused(programs, &closed.address.to_string(), "refused")
                .await;
        }
        load.refused(programs, "towline.invalid:80", "dns").await;
        load.cancelled(programs).await;
        load.unread(programs).await;
        // Disconnects without sending anything.
        let mut silent = load.connected(programs.proxy).await;
        silent.shutdown().await.unwrap();
        end(&mut silent).await;
        load
    }

    async fn connected(&mut self, address: SocketAddr) -> TcpStream {
        self.connections += 1.0;
        TcpStream::connect(address).await.unwrap()
    }

    async fn tunnel(&mut self, programs: &Programs, target: SocketAddr) -> TcpStream {
        let mut stream = self.connected(programs.proxy).await;
        let answer = client::ask(&mut stream, target).await.unwrap();
        assert_eq!(answer.status, 200);
        stream
    }

    fn note(&mut self, stream: &TcpStream, outcome: &'static str, up: usize, down: usize) {
        let client = stream.local_addr().unwrap().to_string();
        let count = |bytes| u64::try_from(bytes).unwrap();
        self.tunnels
            .insert(client, (outcome, count(up), count(down)));
    }

    async fn echo_and_finish(&mut self, mut stream: TcpStream, size: usize) {
        self.note(&stream, "finished", size, size);
        let sent = payload(size);
        let (mut read, mut write) = stream.split();
        let mut got = Vec::new();
        let send = async {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        };
        tokio::join!(send, async { read.read_to_end(&mut got).await.unwrap() });
        assert!(got == sent, "{} of {size} bytes, or others", got.len());
    }

    /// Tunnels that the client resets, and tunnels that the target resets.
    async fn resets(&mut self, programs: &Programs) {
        for _ in 0..RESET {
            let mut stream = self.tunnel(programs, programs.echo.address).await;
            self.note(&stream, "socket_reset", MARKER.len(), MARKER.len());
            stream.write_all(MARKER.as_bytes()).await.unwrap();
            stream.read_exact(&mut [0; MARKER.len()]).await.unwrap();
            stream.set_zero_linger().unwrap();
        }
        let rude = Target::start(|mut stream| async move {
            stream.read_exact(&mut [0; MARKER.len()]).await.unwrap();
            stream.set_zero_linger().unwrap();
        })
        .await;
        let mut stream = self.tunnel(programs, rude.address).await;
        self.note(&stream, "far_reset", MARKER.len(), 0);
        stream.write_all(MARKER.as_bytes()).await.unwrap();
        assert_eq!(end(&mut stream).await, End::Reset);
    }

    async fn refused(&mut self, programs: &Programs, target: &str, outcome: &'static str) {
        let mut stream = self.connected(programs.proxy).await;
        self.note(&stream, outcome, 0, 0);
        let head = format!(
            "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\
             Proxy-Authorization: Basic {MARKER}\r\nCookie: {MARKER}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = client::read_answer(&mut stream).await.unwrap();
        assert_eq!(answer.status, 502, "{}", answer.head);
    }

    /// Disconnects while the agent dials a target that never answers.
    async fn cancelled(&mut self, programs: &Programs) {
        let hole = BlackHole::new();
        let mut stream = self.connected(programs.proxy).await;
        self.note(&stream, "cancelled", 0, 0);
        let head = client::connect_head(hole.address);
        stream.write_all(head.as_bytes()).await.unwrap();
        let page = programs.agent.admin().await;
        admin::metrics_become("the agent dials", page, |metrics| {
            metrics.sum("towline_agent_session_streams") > 0.0
        })
        .await;
        drop(stream);
        self.at_rest(programs).await;
    }

    async fn at_rest(&self, programs: &Programs) {
        let page = programs.server.admin().await;
        admin::metrics_become("the tunnel is cancelled", page, |metrics| {
            metrics.value("towline_server_tunnels_total", &[("outcome", "cancelled")]) == 1.0
        })
        .await;
    }

    /// Heads that do not ask for a tunnel.
    async fn unread(&mut self, programs: &Programs) {
        for (status, head) in [
            (
                405,
                format!("GET http://{MARKER}/ HTTP/1.1\r\nHost: x\r\n\r\n"),
            ),
            (
                400,
                format!("CONNECT user:{MARKER}@host:80 HTTP/1.1\r\n\r\n"),
            ),
            (400, format!("CONNECT {MARKER} HTTP/1.1\r\n\r\n")),
            (400, format!("\u{16}\u{3}\u{1}{MARKER}\r\n\r\n")),
        ] {
            let mut stream = self.connected(programs.proxy).await;
            let client = stream.local_addr().unwrap().to_string();
            self.unread.insert(client, status);
            stream.write_all(head.as_bytes()).await.unwrap();
            let answer = client::read_answer(&mut stream).await.unwrap();
            assert_eq!(answer.status, status, "{}", answer.head);
        }
    }

    /// How many tunnels of this kind had each outcome.
    fn outcomes(&self) -> BTreeMap<String, f64> {
        let mut outcomes = BTreeMap::new();
        for (outcome, ..) in self.tunnels.values() {
            let counted = match *outcome {
                "refused" | "dns" => "refused",
                other => other,
            };
            *outcomes.entry(counted.to_owned()).or_default() += 1.0;
        }
        *outcomes.entry("refused".to_owned()).or_default() += count(self.unread.len());
        outcomes
    }

    fn bytes(&self) -> (f64, f64) {
        let up: u64 = self.tunnels.values().map(|(_, up, _)| up).sum();
        let down: u64 = self.tunnels.values().map(|(.., down)| down).sum();
        let exact = |bytes: u64| f64::from(u32::try_from(bytes).unwrap());
        (exact(up), exact(down))
    }
}

fn payload(size: usize) -> Vec<u8> {
    MARKER.bytes().cycle().take(size).collect()
}

fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap())
}

fn counts(expected: &[(&str, usize)]) -> BTreeMap<String, f64> {
    expected
        .iter()
        .map(|(label, number)| ((*label).to_owned(), count(*number)))
        .collect()
}

#[tokio::test]
async fn the_metrics_add_up() {
    bounded(async {
        let programs = Programs::start().await;
        let load = Load::run(&programs).await;
        let scraped = programs.scrape().await;
        let [server, agent, agent_tcp] = &scraped;
        server_adds_up(server, &load);
        agent_adds_up(agent);
        agent_tcp_adds_up(agent_tcp);
        // Both ends of every tunnel count the same bytes.
        let bytes = |metrics: &Metrics, program: &str| {
            ["to_target", "to_client"]
                .map(|way| metrics.value(&format!("towline_{program}_{way}_bytes_total"), &[]))
        };
        let [agent_up, agent_down] = bytes(agent, "agent");
        let [tcp_up, tcp_down] = bytes(agent_tcp, "agent");
        assert_eq!(
            bytes(server, "server"),
            [agent_up + tcp_up, agent_down + tcp_down]
        );
        for metrics in &scraped {
            assert_eq!(
                metrics.find("towline_log_lines_dropped_total", &[]),
                Some(0.0)
            );
            let named = |(name, _): (&str, &str)| name.starts_with("towline_");
            assert!(metrics.families().all(named), "{metrics:?}");
            assert_eq!(metrics.sum("towline_build_info"), 1.0);
        }
    })
    .await;
}

fn server_adds_up(server: &Metrics, load: &Load) {
    let value = |name: &str| {
        let name = format!("towline_server_{name}");
        server
            .find(&name, &[])
            .unwrap_or_else(|| panic!("no {name}"))
    };
    assert_eq!(
        server.by("towline_server_tunnels_total", "outcome"),
        load.outcomes()
    );
    assert_eq!(
        server.by("towline_server_refusals_total", "reason"),
        counts(&[
            ("bad_request", 3),
            ("dns", 1),
            ("method", 1),
            ("refused", REFUSED)
        ])
    );
    assert_eq!(
        (
            value("to_target_bytes_total"),
            value("to_client_bytes_total")
        ),
        load.bytes()
    );
    assert_eq!(value("connections_total"), load.connections);
    assert_eq!(value("clients_left_early_total"), 1.0);
    assert_eq!(
        (value("sessions"), value("sessions_admitted_total")),
        (2.0, 2.0)
    );
    assert_eq!(value("agent_tasks"), 2.0);
    for name in [
        "tunnels_open",
        "tunnels_stalled",
        "overloads_total",
        "panics_total",
    ] {
        assert_eq!(value(name), 0.0, "{name}");
    }
    for name in [
        "retries_total",
        "accept_errors_total",
        "accept_pauses_total",
        "tls_failures_total",
    ] {
        assert_eq!(value(name), 0.0, "{name}");
    }
    let opened = count(FINISHED + RAW + RESET + 1);
    assert_eq!(value("open_seconds_count"), opened);
    assert_eq!(value("tunnel_seconds_count"), opened);
    // Every answer of an agent, whether it grants or refuses.
    assert_eq!(value("answer_seconds_count"), opened + count(REFUSED + 1));
    assert!(value("open_seconds_sum") > 0.0 && value("tunnel_seconds_sum") > 0.0);
    for name in ["udp_receive_buffer_bytes", "udp_send_buffer_bytes"] {
        assert!(value(name) > 0.0, "{name}");
    }
    sessions_are_described(server);
}

fn sessions_are_described(server: &Metrics) {
    for agent in ["c", "p"] {
        // Values of 0 are left out.
        let of = |name: &str| {
            let by_agent = server.by(&format!("towline_server_session_{name}"), "agent");
            by_agent.get(agent).copied().unwrap_or_default()
        };
        for name in ["rtt_seconds", "congestion_window_bytes", "mtu_bytes"] {
            assert!(of(name) > 0.0, "{name}");
        }
        for name in [
            "sent_packets_total",
            "sent_bytes_total",
            "received_bytes_total",
        ] {
            assert!(of(name) > 0.0, "{name}");
        }
        assert!(of("lost_packets_total") < of("sent_packets_total"));
        assert_eq!(of("streams"), 0.0);
    }
    let families: Vec<_> = server.families().map(|(name, _)| name).collect();
    for name in ["session_lost_packets", "session_streams"] {
        assert!(
            families.contains(&&*format!("towline_server_{name}")),
            "{name}"
        );
    }
}

fn agent_adds_up(agent: &Metrics) {
    assert_eq!(
        agent.by("towline_agent_tunnels_total", "outcome"),
        counts(&[
            ("cancelled", 1),
            ("far_reset", RESET),
            ("finished", FINISHED),
            ("refused", REFUSED + 1),
            ("socket_reset", 1),
        ])
    );
    assert_eq!(
        agent.by("towline_agent_refusals_total", "reason"),
        counts(&[("dns", 1), ("refused", REFUSED)])
    );
    assert_eq!(
        agent.by("towline_agent_dial_seconds_count", "outcome"),
        counts(&[("connected", FINISHED + RESET + 1), ("failed", REFUSED + 1)])
    );
    agent_is_connected(agent);
}

fn agent_tcp_adds_up(agent: &Metrics) {
    let finished = agent.by("towline_agent_tunnels_total", "outcome");
    assert_eq!(finished, counts(&[("finished", RAW)]));
    let dialed = agent.by("towline_agent_dial_seconds_count", "outcome");
    assert_eq!(dialed, counts(&[("connected", RAW)]));
    agent_is_connected(agent);
}

fn agent_is_connected(agent: &Metrics) {
    assert_eq!(agent.sum("towline_agent_sessions"), 1.0);
    for name in [
        "session_ends_total",
        "session_failures_total",
        "overloads_total",
        "session_streams",
    ] {
        assert_eq!(agent.sum(&format!("towline_agent_{name}")), 0.0, "{name}");
    }
    for name in [
        "session_rtt_seconds",
        "session_sent_packets_total",
        "udp_receive_buffer_bytes",
        "udp_send_buffer_bytes",
    ] {
        assert!(agent.sum(&format!("towline_agent_{name}")) > 0.0, "{name}");
    }
}

#[tokio::test]
async fn every_tunnel_has_one_line_in_the_access_log() {
    bounded(async {
        let programs = Programs::start().await;
        let load = Load::run(&programs).await;
        programs.scrape().await;
        let [log, ..] = programs.stop().await;
        let mut tunnels = HashMap::new();
        let mut unread = HashMap::new();
        let access = log
            .iter()
            .filter_map(|line| line.event.as_ref())
            .filter(|event| event["target"] == "access");
        for event in access {
            let client = event["client"].as_str().expect("a client").to_owned();
            let before = match event["message"].as_str() {
                Some("tunnel") => tunnels.insert(client, read_tunnel(event)),
                Some("refused") => unread
                    .insert(client, read_refused(event))
                    .map(|_| (String::new(), 0, 0)),
                other => panic!("{other:?}"),
            };
            assert!(before.is_none(), "two lines: {event}");
        }
        let expected: HashMap<_, _> = load
            .tunnels
            .iter()
            .map(|(client, (outcome, up, down))| {
                (client.clone(), ((*outcome).to_owned(), *up, *down))
            })
            .collect();
        assert_eq!(tunnels, expected);
        assert_eq!(unread, load.unread);
    })
    .await;
}

/// Outcome and bytes of an access-log line, which must have every field that its outcome has.
fn read_tunnel(event: &Value) -> (String, u64, u64) {
    let text = |name: &str| {
        let text = event[name]
            .as_str()
            .unwrap_or_else(|| panic!("no {name}: {event}"));
        text.to_owned()
    };
    let number = |name: &str| {
        event[name]
            .as_f64()
            .unwrap_or_else(|| panic!("no {name}: {event}"))
    };
    for name in ["timestamp", "listener", "to", "reason"] {
        assert!(!text(name).is_empty(), "{name}: {event}");
    }
    assert_eq!(event["level"], "INFO");
    let status = number("status");
    if status == 200.0 {
        assert!(["c", "p"].contains(&&*text("agent")), "{event}");
        assert!(number("session") >= 1.0, "{event}");
        assert!(number("open_ms") <= number("duration_ms"), "{event}");
    }
    assert!(number("duration_ms") > 0.0, "{event}");
    let outcome = text("outcome");
    let expected = match outcome.as_str() {
        "finished" | "socket_reset" | "far_reset" => 200.0,
        "refused" | "dns" => 502.0,
        "cancelled" => 499.0,
        other => panic!("{other}: {event}"),
    };
    assert_eq!(status, expected, "{event}");
    let bytes = |name: &str| {
        event[name]
            .as_u64()
            .unwrap_or_else(|| panic!("no {name}: {event}"))
    };
    (outcome, bytes("bytes_to_target"), bytes("bytes_to_client"))
}

/// The status in a line about a request that could not be parsed.
fn read_refused(event: &Value) -> u16 {
    for name in ["timestamp", "listener", "outcome", "reason"] {
        assert!(
            event[name].as_str().is_some_and(|text| !text.is_empty()),
            "{name}: {event}"
        );
    }
    let status = event["status"].as_u64().expect("a status");
    u16::try_from(status).expect("a status of HTTP")
}

#[tokio::test]
async fn no_payload_and_no_secret_is_logged() {
    bounded(async {
        let programs = Programs::start().await;
        Load::run(&programs).await;
        programs.scrape().await;
        let mut secrets = vec![MARKER.to_owned()];
        for file in ["server-key.pem", "agent-key.pem", "client-key.pem"] {
            let key = std::fs::read_to_string(programs.certs.path(file)).unwrap();
            let lines = key.lines().filter(|line| !line.starts_with("-----"));
            // The first line begins alike in all keys of a kind, and must not be logged either.
            secrets.extend(lines.map(str::to_owned));
        }
        assert!(secrets.len() > 6);
        for (program, log) in ["proxy-server", "proxy-agent", "agent-tcp"]
            .iter()
            .zip(programs.stop().await)
        {
            let debug = |line: &&Line| {
                let event = line.event.as_ref();
                event.is_some_and(|event| event["level"] == "DEBUG")
            };
            assert!(
                log.iter().filter(debug).count() > 0,
                "{program} logs at the level debug"
            );
            for line in &log {
                assert!(line.event.is_some(), "{program}: no JSON: {}", line.text);
                for secret in &secrets {
                    assert!(!line.text.contains(secret), "{program}: {}", line.text);
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn sessions_are_counted_from_admission_to_end() {
    bounded(async {
        let mut programs = Programs::start().await;
        let page = programs.server.admin().await;
        // Its certificate is of an authority that the server does not trust.
        let stranger = Certs::new();
        let agents = programs.server.address("agents").await;
        let stranger = Process::agent(&stranger, agents, &[]);
        admin::metrics_become("a refused agent", page, |metrics| {
            metrics.value(
                "towline_server_sessions_refused_total",
                &[("reason", "handshake")],
            ) >= 1.0
        })
        .await;
        let failures = "towline_agent_session_failures_total";
        admin::metrics_become("failed dials", stranger.admin().await, |metrics| {
            metrics.value(failures, &[("phase", "handshake")]) >= 1.0
        })
        .await;
        let reasons = admin::is_not_ready(stranger.admin().await).await;
        assert!(reasons.contains(&agents.to_string()), "{reasons}");

        programs.agent_tcp.terminate().await;
        programs.agent_tcp.exit_status(STOP).await;
        let metrics = admin::metrics_become("an ended session", page, |metrics| {
            metrics.sum("towline_server_sessions_ended_total") == 1.0
        })
        .await;
        assert_eq!(metrics.find("towline_server_sessions", &[]), Some(1.0));
        assert_eq!(
            metrics.find("towline_server_sessions_admitted_total", &[]),
            Some(2.0)
        );
        // The metrics of a session end with it.
        assert_eq!(
            metrics
                .by("towline_server_session_mtu_bytes", "agent")
                .len(),
            1
        );
        assert_eq!(admin::get(page, "/livez").await.unwrap().status, 200);
        assert_eq!(admin::get(page, "/readyz").await.unwrap().status, 200);
        assert_eq!(admin::get(page, "/else").await.unwrap().status, 404);
    })
    .await;
}
