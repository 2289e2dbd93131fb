//! Clients that are slow, silent or gone, or send garbage, on every port: each is ended as
//! specified, and a good client is served promptly meanwhile.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{Mutex, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use towline_e2e::certs::Certs;
use towline_e2e::client::{Connection, Way, Ways};
use towline_e2e::endings::echoes;
use towline_e2e::footprint::descriptors;
use towline_e2e::programs::{Agent, pair};
use towline_e2e::target::Target;
use towline_e2e::{admin, bounded, client, eventually};

/// One test at a time, because they count the descriptors of the process.
static ALONE: Mutex<()> = Mutex::const_new(());

/// How long the server waits for a head, and for a handshake.
const FLAGS: [&str; 6] = [
    "--head-timeout",
    "2s",
    "--tls-handshake-timeout",
    "2s",
    "--quic-handshake-timeout",
    "2s",
];
const WAIT: Duration = Duration::from_secs(2);

/// How long the admin pages wait for a head; no flag sets it.
const ADMIN_WAIT: Duration = Duration::from_secs(5);

/// The allowance for a loaded machine.
const LATE: Duration = Duration::from_secs(3);

/// A good client is served within this time.
const PROMPT: Duration = Duration::from_secs(2);

/// Hostile clients of each kind on each port.
const CROWD: usize = 50;

/// Handshakes that begin and never continue, with two datagrams each.
const FORGED: usize = 200;

/// Pending handshakes of unvalidated addresses; beyond, the server answers with Retry.
const UNVALIDATED: f64 = 64.0;

#[tokio::test]
async fn slow_and_silent_clients() {
    let attack = UnderAttack::begin().await;
    bounded(async {
        let mut crowd = JoinSet::new();
        for way in Way::ALL {
            for slow in [true, false] {
                for _ in 0..CROWD {
                    let mut stream = attack.ways.enter(way).await;
                    crowd.spawn(async move {
                        let began = Instant::now();
                        let answer = if slow {
                            send_slowly(&mut stream).await
                        } else {
                            rest(&mut stream).await
                        };
                        assert!(answer.starts_with("HTTP/1.1 408 "), "{way:?}: {answer:?}");
                        assert!(began.elapsed() < WAIT + LATE, "{:?}", began.elapsed());
                    });
                }
            }
        }
        // Handshakes and admin requests that are never completed.
        for (address, wait) in [
            (attack.ways.server.tcp(1), WAIT),
            (attack.ways.server.admin, ADMIN_WAIT),
        ] {
            for slow in [true, false] {
                for _ in 0..CROWD / 2 {
                    let mut stream = TcpStream::connect(address).await.unwrap();
                    crowd.spawn(async move {
                        let began = Instant::now();
                        if slow {
                            send_slowly(&mut stream).await;
                        } else {
                            rest(&mut stream).await;
                        }
                        assert!(began.elapsed() < wait + LATE, "{:?}", began.elapsed());
                    });
                }
            }
        }
        crowd.join_all().await;
    })
    .await;
    attack.end().await;
}

#[tokio::test]
async fn clients_that_send_garbage() {
    let attack = UnderAttack::begin().await;
    bounded(async {
        let mut dice = fastrand::Rng::with_seed(7);
        let mut noise = vec![0; 64 * 1024];
        dice.fill(&mut noise);
        let headers = [
            b"CONNECT a:1 HTTP/1.1\r\n".to_vec(),
            b"X-Filler: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(200_000),
        ]
        .concat();
        let endless = [b"CONNECT ".to_vec(), vec![b'a'; 1024 * 1024]].concat();
        let kinds: [(&[u8], &[&str]); 13] = [
            (b"\0\0\0\0\r\n\r\n", &["400"]),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &["405"]),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &["400", "405"]),
            (b"CONNECT HTTP/1.1\r\n\r\n", &["400"]),
            (b"CONNECT a HTTP/1.1\r\n\r\n", &["400"]),
            (b"CONNECT a:99999 HTTP/1.1\r\n\r\n", &["400"]),
            (b"CONNECT a:1 HTTP/1.1\r\nno colon\r\n\r\n", &["400"]),
            (b"CONNECT a:1 HTTP/9.9\r\n\r\n", &["400"]),
            (b"SSH-2.0-OpenSSH_9.9\r\n", &["400"]),
            (
                b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03 a TLS hello",
                &["400"],
            ),
            (b"\x05\x01\x00", &["400"]),
            (&endless, &["431"]),
            (&headers, &["431"]),
        ];
        for (garbage, expected) in kinds {
            let shown = String::from_utf8_lossy(&garbage[..garbage.len().min(30)]).into_owned();
            for way in Way::ALL {
                let answer = say(attack.ways.enter(way).await, garbage).await;
                let status = answer.split(' ').nth(1).unwrap_or_default();
                assert!(expected.contains(&status), "{way:?} {shown:?}: {answer:?}");
            }
        }
        for garbage in kinds.map(|(garbage, _)| garbage).iter().chain([&&*noise]) {
            // Whatever the server answers, the connection ends.
            let admin = TcpStream::connect(attack.ways.server.admin).await.unwrap();
            say(Box::new(admin), garbage).await;
            let tls = TcpStream::connect(attack.ways.server.tcp(1)).await.unwrap();
            say(Box::new(tls), garbage).await;
        }
        for way in Way::ALL {
            for _ in 0..CROWD {
                let piece = &noise[dice.usize(..noise.len() / 2)..][..dice.usize(1..2_000)];
                say(attack.ways.enter(way).await, piece).await;
            }
        }
    })
    .await;
    attack.end().await;
}

#[tokio::test]
async fn clients_that_vanish() {
    let attack = UnderAttack::begin().await;
    bounded(async {
        let server = &attack.ways.server;
        for address in [server.tcp(0), server.tcp(1), server.admin] {
            for reset in [true, false] {
                for said in [&b""[..], b"C", b"CONNECT a:1 HTTP/1.1\r\n"] {
                    for _ in 0..CROWD {
                        let mut stream = TcpStream::connect(address).await.unwrap();
                        stream.write_all(said).await.unwrap();
                        if reset {
                            stream.set_zero_linger().unwrap();
                        }
                    }
                }
            }
        }
        for way in [Way::Tls, Way::Unix] {
            for _ in 0..CROWD {
                drop(attack.ways.enter(way).await);
            }
        }
    })
    .await;
    attack.end().await;
}

#[tokio::test]
async fn datagrams_that_belong_to_no_connection() {
    let attack = UnderAttack::begin().await;
    bounded(async {
        let agents = attack.ways.server.agents;
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut dice = fastrand::Rng::with_seed(9);
        let mut noise = vec![0; 1_500];
        for _ in 0..2_000 {
            dice.fill(&mut noise);
            // Half of them look like an Initial of QUIC version 1 (RFC 9000 §17.2.2).
            if dice.bool() {
                let first = 0xc0 | noise[0] & 0x0f;
                noise[..6].copy_from_slice(&[first, 0, 0, 0, 1, 8]);
            }
            let length = dice.usize(..noise.len());
            socket.send_to(&noise[..length], agents).await.unwrap();
        }
        for datagram in first_flights(&attack.ways.certs).await {
            socket.send_to(&datagram, agents).await.unwrap();
        }
        // Some are accepted; from then on addresses are validated first.
        let server = &attack.ways.server;
        admin::metrics_become("handshakes under way", server.admin, |metrics| {
            metrics.value("towline_server_agent_tasks", &[]) == UNVALIDATED + 1.0
        })
        .await;
        // While those handshakes are pending, an agent is admitted.
        let id = ["--agent-id", "good"];
        let agent = Agent::start(&attack.ways.certs, agents, &id);
        agent.is_ready().await;
        agent.stop().await;
    })
    .await;
    attack.end().await;
}

#[tokio::test]
async fn more_clients_than_the_limit() {
    let _alone = ALONE.lock().await;
    bounded(async {
        let certs = Certs::new();
        let echo = Target::echo().await;
        let (server, agent) = pair(&certs, &["--max-connections", "4"]).await;
        let mut inside = Vec::new();
        for _ in 0..4 {
            inside.push(client::tunnel(server.tcp(0), echo.address).await);
        }
        let mut waiting = TcpStream::connect(server.tcp(0)).await.unwrap();
        let head = client::connect_head(echo.address);
        waiting.write_all(head.as_bytes()).await.unwrap();
        let metrics = admin::metrics_become("a pause", server.admin, |metrics| {
            metrics.value("towline_server_accept_pauses_total", &[]) == 1.0
        })
        .await;
        assert_eq!(metrics.value("towline_server_connections_total", &[]), 4.0);
        assert_eq!(server.tunnels.stats().live, 4);
        for tunnel in &mut inside {
            echoes(tunnel).await;
        }

        drop(inside.pop());
        let answer = client::read_answer(&mut waiting).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.head);
        echoes(&mut waiting).await;
        drop((inside, waiting));
        server.is_at_rest().await;
        agent.is_at_rest().await;
        agent.stop().await;
        server.stop().await;
    })
    .await;
}

/// Both programs, a good client at work, and the count of descriptors before the attack.
struct UnderAttack {
    ways: Ways,
    baseline: usize,
    good: JoinSet<()>,
    quit: oneshot::Sender<()>,
    _alone: tokio::sync::MutexGuard<'static, ()>,
}

// === impl UnderAttack ===

impl UnderAttack {
    async fn begin() -> Self {
        let alone = ALONE.lock().await;
        let ways = Ways::start(&FLAGS).await;
        let echo = Target::echo().await;
        for way in Way::ALL {
            echoes(&mut ways.tunnel(way, echo.address).await).await;
        }
        ways.server.is_at_rest().await;
        ways.agent.is_at_rest().await;
        let baseline = descriptors();
        let (quit, until) = oneshot::channel();
        let mut good = JoinSet::new();
        good.spawn(serve_good_clients(ways.server.tcp(0), echo, until));
        Self {
            ways,
            baseline,
            good,
            quit,
            _alone: alone,
        }
    }

    async fn end(self) {
        let Self {
            ways,
            baseline,
            good,
            quit,
            _alone: alone,
        } = self;
        quit.send(()).expect("a good client that is still served");
        good.join_all().await;
        ways.server.is_at_rest().await;
        ways.agent.is_at_rest().await;
        let is = |metrics: &towline_e2e::openmetrics::Metrics| {
            metrics.value("towline_server_agent_tasks", &[]) == 1.0
        };
        let metrics = admin::metrics_become("handshakes are over", ways.server.admin, is).await;
        assert_eq!(metrics.value("towline_server_panics_total", &[]), 0.0);
        // The target of the good client has ended with it.
        eventually("descriptors", baseline - 1, descriptors).await;
        ways.rest_and_stop().await;
        drop(alone);
    }
}

/// Opens one tunnel after the other, each of which has to work promptly.
async fn serve_good_clients(proxy: SocketAddr, echo: Target, mut until: oneshot::Receiver<()>) {
    while until.try_recv().is_err() {
        let began = Instant::now();
        echoes(&mut client::tunnel(proxy, echo.address).await).await;
        assert!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
        sleep(Duration::from_millis(10)).await;
    }
}

/// Sends one byte after the other until the connection ends; returns the answer.
async fn send_slowly<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> String {
    let (mut read, mut write) = tokio::io::split(stream);
    let slowly = async {
        for byte in client::connect_head("a.very.long.name.example:1").bytes() {
            if write.write_all(&[byte]).await.is_err() || write.flush().await.is_err() {
                break;
            }
            sleep(Duration::from_millis(250)).await;
        }
        std::future::pending().await
    };
    tokio::select! {
        answer = rest(&mut read) => answer,
        () = slowly => unreachable!("it sends bytes and then waits"),
    }
}

/// Reads to the end, which may be a reset.
async fn rest<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok();
    String::from_utf8_lossy(&answer).into_owned()
}

/// Sends `bytes`, waits for the end, and returns the answer.
async fn say(stream: Box<dyn Connection>, bytes: &[u8]) -> String {
    let (mut read, mut write) = tokio::io::split(stream);
    let speak = async {
        // The server need not read all of it.
        if write.write_all(bytes).await.is_ok() {
            write.flush().await.ok();
        }
    };
    let ended = async { tokio::join!(speak, rest(&mut read)).1 };
    let limit = ADMIN_WAIT + LATE;
    timeout(limit, ended).await.expect("a connection that ends")
}

/// The first datagrams of agents that dial, as they would reach a server.
async fn first_flights(certs: &Certs) -> Vec<Vec<u8>> {
    let trap = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    let address = trap.local_addr().expect("an address");
    let mut caught = Vec::new();
    let mut datagram = vec![0; 2_000];
    let mut known = HashSet::new();
    for number in 0..FORGED {
        let id = format!("forged-{number}");
        let agent = Agent::start(certs, address, &["--agent-id", &id]);
        let mut source = None;
        for _ in 0..2 {
            // Not the close packet of an earlier agent.
            let length = loop {
                let received = trap.recv_from(&mut datagram).await;
                let (length, from) = received.expect("a first flight");
                if source == Some(from) || (source.is_none() && known.insert(from)) {
                    source = Some(from);
                    break length;
                }
            };
            caught.push(datagram[..length].to_vec());
        }
        agent.vanish();
    }
    caught
}
