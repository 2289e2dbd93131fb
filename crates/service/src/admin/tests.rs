use std::fmt;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::Counter;

use super::*;

/// Longer than anything here takes, so that a failure ends the test instead of hanging it.
const PATIENCE: Duration = Duration::from_secs(20);

fn start(limits: Limits, readiness: &Readiness, registry: Registry) -> (AdminThread, SocketAddr) {
    let admin = Admin::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let addr = admin.local_addr();
    let routes = Routes::standard(readiness.clone(), Arc::new(registry));
    (admin.serve_within(limits, routes).unwrap(), addr)
}

fn connect(addr: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(addr).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_nodelay(true).unwrap();
    socket
}

/// Everything until the end of the connection, which must come; a reset is an end too.
fn rest(mut socket: TcpStream) -> String {
    let mut answer = Vec::new();
    if let Err(error) = socket.read_to_end(&mut answer) {
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
    String::from_utf8(answer).unwrap()
}

fn ask(addr: SocketAddr, request_line: &str) -> String {
    let mut socket = connect(addr);
    write!(socket, "{request_line} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    rest(socket)
}

#[test]
fn answers_each_page_and_refuses_the_rest() {
    let (_thread, addr) = start(LIMITS, &Readiness::new(), Registry::default());
    for (request, status, part) in [
        ("GET /livez", "200 OK", "\r\n\r\nlive\n"),
        ("GET /livez?verbose=1", "200 OK", "\r\n\r\nlive\n"),
        ("GET /readyz", "200 OK", "\r\n\r\nready\n"),
        ("GET /metrics", "200 OK", "\r\n\r\n# EOF\n"),
        ("HEAD /livez", "200 OK", "content-length: 5\r\n"),
        ("GET /", "404 Not Found", "not found"),
        ("POST /nothing", "404 Not Found", "not found"),
        (
            "POST /livez",
            "405 Method Not Allowed",
            "allow: GET, HEAD\r\n",
        ),
        ("CONNECT a:1", "404 Not Found", "not found"),
    ] {
        let answer = ask(addr, request);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{request}: {answer}"
        );
        assert!(answer.contains(part), "{request}: {answer}");
    }
    assert!(ask(addr, "HEAD /livez").ends_with("\r\n\r\n"));
}

#[test]
fn a_program_adds_pages_of_its_own() {
    let admin = Admin::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let addr = admin.local_addr();
    let asked = AtomicUsize::new(0);
    let routes = Routes::standard(Readiness::new(), Arc::default())
        .get("/sessions", move || {
            let count = asked.fetch_add(1, Ordering::Relaxed);
            Page::new("application/json", format!("{{\"asked\":{count}}}"))
        })
        .get("/reload", || Page::unavailable("no files\n"))
        .get("/bug", || panic!("on purpose"));
    let _thread = admin.serve_routes(routes).unwrap();
    for count in 0..2 {
        let answer = ask(addr, "GET /sessions");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(
            answer.contains("content-type: application/json\r\n"),
            "{answer}"
        );
        assert!(
            answer.ends_with(&format!("\r\n\r\n{{\"asked\":{count}}}")),
            "{answer}"
        );
    }
    let head = ask(addr, "HEAD /sessions");
    assert!(
        head.contains("content-length: 11\r\n") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    assert!(ask(addr, "POST /sessions").starts_with("HTTP/1.1 405 "));
    assert!(ask(addr, "GET /sessions/").starts_with("HTTP/1.1 404 "));
    assert!(ask(addr, "GET /reload").starts_with("HTTP/1.1 503 "));
    assert_eq!(ask(addr, "GET /bug"), "");
    for standard in ["/livez", "/readyz", "/metrics"] {
        let answer = ask(addr, &format!("GET {standard}"));
        assert!(answer.starts_with("HTTP/1.1 200 "), "{standard}: {answer}");
    }
}

#[test]
#[should_panic(expected = "the admin path /livez has two pages")]
fn a_path_has_one_page() {
    let routes = Routes::standard(Readiness::new(), Arc::default());
    drop(routes.get("/livez", || Page::text("mine")));
}

#[test]
fn readyz_lists_what_is_missing_until_nothing_is() {
    let readiness = Readiness::new();
    let (_thread, addr) = start(LIMITS, &readiness, Registry::default());
    let listener = readiness.latch("listener", "not bound");
    let session = readiness.latch("session", "no server reached");
    let answer = ask(addr, "GET /readyz");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    let body = "\r\n\r\nlistener: not bound\nsession: no server reached\n";
    assert!(answer.ends_with(body), "{answer}");
    listener.ready();
    drop(session);
    assert!(ask(addr, "GET /readyz").starts_with("HTTP/1.1 200 "));
}

#[test]
fn metrics_are_lines_of_name_and_number_with_their_type_and_an_end() {
    let mut registry = Registry::default();
    let tunnels = Counter::<u64>::default();
    registry.register("towline_tunnels", "Tunnels opened", tunnels.clone());
    let (_thread, addr) = start(LIMITS, &Readiness::new(), registry);
    tunnels.inc_by(3);
    let answer = ask(addr, "GET /metrics");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
        "{head}"
    );
    assert!(body.ends_with("# EOF\n"), "{body}");
    let samples = body.lines().filter(|line| !line.starts_with('#'));
    let parsed: Vec<(&str, f64)> = samples
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, number)| (name, number.parse().unwrap()))
        .collect();
    assert_eq!(parsed, [("towline_tunnels_total", 3.0)]);
}

#[test]
fn a_request_may_come_byte_by_byte_and_its_end_may_be_closed() {
    let (_thread, addr) = start(LIMITS, &Readiness::new(), Registry::default());
    let mut socket = connect(addr);
    for byte in b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" {
        socket.write_all(&[*byte]).unwrap();
    }
    socket.shutdown(Shutdown::Write).unwrap();
    assert!(rest(socket).ends_with("live\n"));
}

#[test]
fn garbage_ends_its_own_connection_only() {
    let (_thread, addr) = start(LIMITS, &Readiness::new(), Registry::default());
    let endless = format!("GET /livez HTTP/1.1\r\nA: {}", "a".repeat(2 * HEAD_SIZE));
    let tls_hello: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n";
    for garbage in [tls_hello, b"\0\0\0\0", b"GET\r\n\r\n", endless.as_bytes()] {
        let mut socket = connect(addr);
        // The other side may have closed before everything was written.
        drop(socket.write_all(garbage));
        let answer = rest(socket);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{answer}"
        );
        assert!(ask(addr, "GET /livez").ends_with("live\n"));
    }
}

#[test]
fn a_head_that_does_not_end_meets_the_deadline() {
    let head = Duration::from_millis(200);
    let limits = Limits { head, ..LIMITS };
    let (_thread, addr) = start(limits, &Readiness::new(), Registry::default());
    let begin = Instant::now();
    let mut slow = connect(addr);
    let idle = connect(addr);
    // One more header every 20 ms: progress must not move the deadline.
    slow.write_all(b"GET /livez HTTP/1.1\r\n").unwrap();
    slow.set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    let mut answer = [0; 64];
    while begin.elapsed() < PATIENCE {
        match slow.read(&mut answer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => break,
        }
        drop(slow.write_all(b"A: b\r\n"));
    }
    rest(idle);
    assert!(begin.elapsed() >= head);
    assert!(begin.elapsed() < LIMITS.head, "{:?}", begin.elapsed());
}

#[test]
fn a_thousand_idle_connections_do_not_keep_a_probe_waiting() {
    // No deadline closes them before this test gives up.
    let limits = Limits {
        head: 10 * PATIENCE,
        whole: 10 * PATIENCE,
        ..LIMITS
    };
    let (_thread, addr) = start(limits, &Readiness::new(), Registry::default());
    let idle: Vec<TcpStream> = (0..1000).map(|_| connect(addr)).collect();
    let begin = Instant::now();
    assert!(ask(addr, "GET /livez").ends_with("live\n"));
    assert!(begin.elapsed() < PATIENCE / 4);
    // All but the newest have been closed: the limit holds.
    for socket in idle.into_iter().take(1000 - limits.connections) {
        assert_eq!(rest(socket), "");
    }
}

#[derive(Debug)]
struct Panics;

impl Collector for Panics {
    fn encode(&self, _: DescriptorEncoder<'_>) -> fmt::Result {
        panic!("on purpose")
    }
}

#[test]
fn a_collector_that_panics_costs_only_its_own_answer() {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Panics));
    let (_thread, addr) = start(LIMITS, &Readiness::new(), registry);
    assert_eq!(ask(addr, "GET /metrics"), "");
    assert!(ask(addr, "GET /livez").ends_with("live\n"));
}

#[test]
fn drop_stops_at_once_and_frees_the_address() {
    let (thread, addr) = start(LIMITS, &Readiness::new(), Registry::default());
    let idle = connect(addr);
    assert!(ask(addr, "GET /livez").ends_with("live\n"));
    let begin = Instant::now();
    drop(thread);
    assert!(begin.elapsed() < LIMITS.head);
    assert_eq!(rest(idle), "");
    Admin::bind(addr).unwrap();
}

#[test]
fn a_taken_address_is_named() {
    let first = Admin::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let error = Admin::bind(first.local_addr()).unwrap_err();
    let addr = first.local_addr();
    assert_eq!(
        error.to_string(),
        format!("cannot listen on the admin address {addr}")
    );
}
