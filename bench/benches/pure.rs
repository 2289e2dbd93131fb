//! What needs no runtime: heads, control messages, the choice of a session. Allocations of each
//! are counted.

#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that breaks has nothing to tell"
)]

use divan::{AllocProfiler, Bencher, black_box};
use proxy_server::route::least_streams;
use towline_protocol::ask::Ask;
use towline_protocol::control::{self, AgentKind, Decoder, Hello, Message};
use towline_protocol::head::{self, Answer, RequestHead};
use towline_protocol::ids::Epoch;
use towline_protocol::refusal::{Reason, Refusal};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

fn request() -> RequestHead {
    RequestHead {
        ask: Ask::parse("service.example.internal:8443").unwrap(),
        deadline: Some(std::time::Duration::from_millis(9_800)),
        forwarded: Some(head::forwarded_for(([192, 0, 2, 1], 4711).into())),
        traceparent: None,
    }
}

fn hello() -> Message {
    Message::Hello(Hello {
        agent_id: "agent-7f9c".parse().unwrap(),
        epoch: Epoch(1_790_000_000_000),
        version: "0.1.0".to_owned(),
        kind: AgentKind::Connect,
        max_streams: 10_000,
    })
}

#[divan::bench]
fn target_of_a_name(bencher: Bencher<'_, '_>) {
    bencher.bench(|| {
        black_box("service.example.internal:8443").parse::<towline_protocol::target::Target>()
    });
}

#[divan::bench]
fn head_encode(bencher: Bencher<'_, '_>) {
    let request = request();
    bencher.bench(|| black_box(&request).encode());
}

/// The head that curl sends.
#[divan::bench]
fn head_parse_client(bencher: Bencher<'_, '_>) {
    let head = b"CONNECT service.example.internal:8443 HTTP/1.1\r\n\
                 Host: service.example.internal:8443\r\nUser-Agent: curl/8.21.0\r\n\
                 Proxy-Connection: Keep-Alive\r\n\r\n";
    bencher.bench(|| head::parse_request(black_box(head)));
}

/// The head that a server sends an agent.
#[divan::bench]
fn head_parse_server(bencher: Bencher<'_, '_>) {
    let head = request().encode();
    bencher.bench(|| head::parse_request(black_box(&head)));
}

/// A head that is looked at after each of its bytes: the worst that a client can do.
#[divan::bench]
fn head_parse_byte_by_byte(bencher: Bencher<'_, '_>) {
    let head = request().encode();
    bencher.bench(|| {
        for end in 0..head.len() {
            black_box(head::parse_request(black_box(&head[..end]))).ok();
        }
    });
}

#[divan::bench]
fn answer_parse_accepted(bencher: Bencher<'_, '_>) {
    bencher.bench(|| head::parse_answer(black_box(Answer::ACCEPTED)));
}

#[divan::bench]
fn refusal_to_response(bencher: Bencher<'_, '_>) {
    let refusal = Refusal::new(Reason::Refused, "service.example.internal:8443: refused");
    bencher.bench(|| Answer::refused(black_box(&refusal), "proxy-agent"));
}

#[divan::bench]
fn control_encode_hello(bencher: Bencher<'_, '_>) {
    let hello = hello();
    bencher.bench(|| control::encode(black_box(&hello)));
}

#[divan::bench]
fn control_decode_hello(bencher: Bencher<'_, '_>) {
    let line = control::encode(&hello());
    bencher.with_inputs(Decoder::default).bench_refs(|decoder| {
        decoder.push(black_box(&line));
        decoder.next()
    });
}

/// One session of so many, all of which serve and have some streams open.
#[divan::bench(args = [10, 10_000])]
fn choose_a_session(bencher: Bencher<'_, '_>, sessions: usize) {
    let loads: Vec<usize> = (0..sessions).map(|index| index * 7 % 100).collect();
    bencher.bench(|| {
        least_streams::pick(
            sessions,
            |_| true,
            |index| loads[index],
            |count| fastrand::usize(..count),
        )
    });
}

/// The same when only the last session serves, so that all have to be looked at.
#[divan::bench(args = [10, 10_000])]
fn choose_the_only_session(bencher: Bencher<'_, '_>, sessions: usize) {
    bencher.bench(|| {
        least_streams::pick(
            black_box(sessions),
            |index| index + 1 == sessions,
            |_| 0,
            |count| fastrand::usize(..count),
        )
    });
}
