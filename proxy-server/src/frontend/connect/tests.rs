//! CONNECT clients over a socket pair: what they send, and which bytes they get.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::yield_now;
use tokio::time::Instant;
use towline_protocol::code::StreamCode;
use towline_protocol::control::AgentKind;
use towline_protocol::head::MAX_HEAD;
use towline_protocol::refusal::Reason;

use super::{ACCEPTED, MAX_EARLY, new};
use crate::fixture::Step::{self, *};
use crate::fixture::{Event, Fixture, HEAD_TIMEOUT, take_events, within};

const HEAD: &[u8] = b"CONNECT host.test:80 HTTP/1.1\r\nHost: host.test:80\r\n\r\n";

/// A server with one agent that takes these steps.
fn fixture(steps: &[Step]) -> Fixture {
    let fixture = Fixture::new();
    fixture.plan.then(steps);
    fixture
}

/// All that comes until the end of file.
async fn read_all(client: &mut UnixStream) -> String {
    let mut bytes = Vec::new();
    within(client.read_to_end(&mut bytes)).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

async fn read_accepted(client: &mut UnixStream) {
    let mut bytes = [0; 1024];
    let read = within(client.read(&mut bytes)).await.unwrap();
    let (read, expected) = (bytes[..read].escape_ascii(), ACCEPTED.escape_ascii());
    assert_eq!(read.to_string(), expected.to_string(), "and nothing behind");
}

fn access_line() -> Event {
    let mut events = take_events();
    events.retain(Event::is_access);
    assert_eq!(events.len(), 1, "{events:?}");
    events.remove(0)
}

#[tokio::test(start_paused = true)]
async fn a_head_in_pieces_opens_a_tunnel() {
    for piece in [1, 7, HEAD.len()] {
        let fixture = fixture(&[Accept]);
        let _session = fixture.agent(AgentKind::Connect);
        let mut client = fixture.serve(new());
        for bytes in HEAD.chunks(piece) {
            client.write_all(bytes).await.unwrap();
            yield_now().await;
        }
        read_accepted(&mut client).await;
        client.write_all(b"payload").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(read_all(&mut client).await, "payload", "{piece}");
        fixture.clients_gone().await;
        let head = fixture.plan.asked()[0].head.clone().unwrap();
        assert_eq!(head.ask.to_string(), "host.test:80");
        assert_eq!(access_line().field("outcome"), "finished");
        fixture.assert_empty();
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_before_the_answer_are_kept_in_order() {
    let fixture = fixture(&[AcceptAfter(2)]);
    let _session = fixture.agent(AgentKind::Connect);
    let mut client = fixture.serve(new());
    client
        .write_all(&[HEAD, b"with the head, "].concat())
        .await
        .unwrap();
    fixture.plan.wait_asked(1).await;
    client.write_all(b"while the agent dials, ").await.unwrap();
    // The answer comes alone, although the agent sends all of it back at once.
    read_accepted(&mut client).await;
    client.write_all(b"after it").await.unwrap();
    client.shutdown().await.unwrap();
    let all = "with the head, while the agent dials, after it";
    assert_eq!(read_all(&mut client).await, all);
}

#[tokio::test(start_paused = true)]
async fn a_client_may_send_more_than_is_kept_before_the_answer() {
    let fixture = fixture(&[AcceptAfter(2)]);
    let _session = fixture.agent(AgentKind::Connect);
    let client = fixture.serve(new());
    let (mut read, mut write) = client.into_split();
    let sent: Vec<u8> = (0..3 * MAX_EARLY).map(|at| (at % 251) as u8).collect();
    let send = async {
        write.write_all(HEAD).await.unwrap();
        write.write_all(&sent).await.unwrap();
        // An end of file within what is kept would be a hang-up.
        fixture.plan.wait_asked(1).await;
        write.shutdown().await.unwrap();
    };
    let mut received = Vec::new();
    let (read, ()) = within(async { tokio::join!(read.read_to_end(&mut received), send) }).await;
    assert_eq!(read.unwrap(), ACCEPTED.len() + sent.len());
    assert!(received.starts_with(ACCEPTED) && received.ends_with(&sent));
}

#[tokio::test(start_paused = true)]
async fn a_trace_context_reaches_the_agent() {
    let fixture = fixture(&[Accept]);
    let _session = fixture.agent(AgentKind::Connect);
    let mut client = fixture.serve(new());
    let head = "CONNECT host.test:80 HTTP/1.1\r\nTraceparent: 00-1-2-01\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    read_accepted(&mut client).await;
    let head = fixture.plan.asked()[0].head.clone().unwrap();
    assert_eq!(head.traceparent.as_deref(), Some("00-1-2-01"));
    assert_eq!(head.forwarded.as_deref(), Some("for=\"192.0.2.7:4711\""));
}

#[tokio::test(start_paused = true)]
async fn a_head_that_is_not_complete_in_time_is_answered() {
    for sent in ["", "CONNECT host.test:80 HTTP/1.1\r\n"] {
        let fixture = Fixture::new();
        let mut client = fixture.serve(new());
        client.write_all(sent.as_bytes()).await.unwrap();
        let began = Instant::now();
        let answer = read_all(&mut client).await;
        let late = began.elapsed() - HEAD_TIMEOUT;
        assert!(late <= Duration::from_millis(2), "{late:?}");
        let first = "HTTP/1.1 408 request head was not complete in time\r\n";
        assert!(answer.starts_with(first), "{answer}");
        drop(client);
        fixture.clients_gone().await;
        let line = access_line();
        assert_eq!(line.field("message"), "refused");
        assert_eq!(line.field("status"), "408");
        assert_eq!(line.field("outcome"), "head_timeout");
        assert_eq!(line.field("client"), "192.0.2.7:4711");
        let metric = "refusals_total{reason=\"head_timeout\"}";
        assert_eq!(fixture.metric(metric), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_asks_for_no_tunnel_is_answered() {
    let long = format!(
        "CONNECT host.test:80 HTTP/1.1\r\nX: {}\r\n\r\n",
        "x".repeat(MAX_HEAD)
    );
    let table = [
        (
            "GET / HTTP/1.1\r\n\r\n",
            "405 only CONNECT is served here",
            Reason::Method,
        ),
        (
            "\u{16}\u{3}\u{1}",
            "400 head cannot be read: bad request line",
            Reason::BadRequest,
        ),
        (
            "CONNECT upstream:0 HTTP/1.1\r\n\r\n",
            "400 the port of a target cannot be 0",
            Reason::BadRequest,
        ),
        (
            &long,
            "431 head has more than 16384 bytes or 64 header lines",
            Reason::HeadTooLarge,
        ),
    ];
    for (head, status, reason) in table {
        let fixture = Fixture::new();
        let _session = fixture.agent(AgentKind::Connect);
        let mut client = fixture.serve(new());
        client.write_all(head.as_bytes()).await.unwrap();
        let answer = read_all(&mut client).await;
        let first = format!("HTTP/1.1 {status}\r\n");
        assert!(answer.starts_with(&first), "{answer}");
        drop(client);
        fixture.clients_gone().await;
        let line = access_line();
        assert_eq!(line.field("outcome"), reason.label());
        assert!(status.starts_with(line.field("status")));
        assert!(fixture.plan.asked().is_empty(), "no agent is asked");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_before_its_head_is_complete_is_counted() {
    for sent in ["", "CONNECT host.test:80 HTTP/1.1\r\n"] {
        let fixture = Fixture::new();
        let mut client = fixture.serve(new());
        client.write_all(sent.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(read_all(&mut client).await, "");
        fixture.clients_gone().await;
        assert_eq!(fixture.metric("clients_left_early_total"), 1);
        assert!(!take_events().iter().any(Event::is_access));
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_while_an_agent_dials_cancels_the_dial() {
    // Closed at once, and closed behind bytes that were sent early.
    for early in [&b""[..], b"early"] {
        let fixture = fixture(&[Silent]);
        let _session = fixture.agent(AgentKind::Connect);
        let mut client = fixture.serve(new());
        client.write_all(&[HEAD, early].concat()).await.unwrap();
        fixture.plan.wait_asked(1).await;
        client.shutdown().await.unwrap();
        let end = fixture.plan.end_of(0).await;
        assert_eq!(end, "reset by the peer as cancelled");
        fixture.clients_gone().await;
        let line = access_line();
        assert_eq!(line.field("status"), "499");
        assert_eq!(line.field("outcome"), "cancelled");
        fixture.assert_empty();
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_reads_as_kube_apiserver_shows_it() {
    let fixture = fixture(&[Refuse(Reason::Refused)]);
    let _session = fixture.agent(AgentKind::Connect);
    let mut client = fixture.serve(new());
    // Bytes that stay unread would turn the close into a reset.
    client.write_all(&[HEAD, b"early"].concat()).await.unwrap();
    let answer = read_all(&mut client).await;
    let body = "proxy-server: the agent says: refused\n";
    let expected = format!(
        "HTTP/1.1 502 the agent says: refused\r\n\
         Proxy-Status: \"proxy-server\"; error=connection_refused; \
         details=\"the agent says: refused\"\r\n\
         Content-Type: text/plain\r\n\
         Content-Length: {}\r\n\
         Connection: close\r\n\
         \r\n\
         {body}",
        body.len()
    );
    assert_eq!(answer, expected);
    // It may go on sending for a while.
    client.write_all(&[0; 1024]).await.unwrap();
    drop(client);
    fixture.clients_gone().await;
    assert_eq!(access_line().field("status"), "502");
}

#[tokio::test(start_paused = true)]
async fn a_refused_client_that_does_not_close_is_left_after_a_while() {
    let fixture = Fixture::new();
    let mut client = fixture.serve(new());
    client.write_all(HEAD).await.unwrap();
    let began = Instant::now();
    let answer = read_all(&mut client).await;
    assert!(
        answer.starts_with("HTTP/1.1 503 no agent is connected\r\n"),
        "{answer}"
    );
    assert!(answer.contains("\r\nRetry-After: 1\r\n"), "{answer}");
    assert!(began.elapsed() < Duration::from_millis(1));
    fixture.clients_gone().await;
    assert_eq!(began.elapsed().as_secs(), 2);
    client.write_all(b"late").await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_ends_while_an_agent_dials_is_answered_and_logged() {
    let fixture = fixture(&[Silent]);
    let _session = fixture.agent(AgentKind::Connect);
    let mut client = fixture.serve(new());
    client.write_all(HEAD).await.unwrap();
    fixture.plan.wait_asked(1).await;
    fixture.registry.close();
    assert_eq!(fixture.tunnels.abort_all(StreamCode::Draining), 1);
    let answer = read_all(&mut client).await;
    let first = "HTTP/1.1 503 this server is shutting down\r\n";
    assert!(answer.starts_with(first), "{answer}");
    let line = access_line();
    assert_eq!(line.field("status"), "503");
    assert_eq!(line.field("outcome"), "no_agent");
    assert_eq!(line.field("reason"), "this server is shutting down");
    drop(client);
    fixture.clients_gone().await;
    fixture.assert_empty();
}
