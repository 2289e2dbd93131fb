//! No payload shares a packet with the answer, and what a client sends early arrives exactly once.

use std::io::{Read, Write};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio_rustls::rustls::ClientConnection;
use towline_e2e::bounded;
use towline_e2e::client::{self, Way, Ways};
use towline_e2e::target::Target;

const TRIES: usize = 200;

/// The header of a TLS record: type, version, length (RFC 8446 §5.1).
const RECORD_HEADER: usize = 5;

#[tokio::test]
async fn the_answer_is_a_read_of_its_own() {
    bounded(async {
        let ways = Ways::start(&[]).await;
        let target = Target::sends(b"SSH-2.0-target\r\n".to_vec()).await;
        for way in [Way::Tcp, Way::Unix] {
            for attempt in 0..TRIES {
                let mut stream = ways.enter(way).await;
                let head = client::connect_head(target.address);
                stream.write_all(head.as_bytes()).await.unwrap();
                let mut first = vec![0; 64 * 1024];
                let read = stream.read(&mut first).await.unwrap();
                let first = String::from_utf8_lossy(&first[..read]);
                assert!(first.starts_with("HTTP/1.1 200 "), "{way:?}: {first:?}");
                assert!(
                    first.ends_with("\r\n\r\n"),
                    "{way:?}, try {attempt}: payload came with the answer: {first:?}"
                );
                let mut rest = String::new();
                stream.read_to_string(&mut rest).await.unwrap();
                assert_eq!(rest, "SSH-2.0-target\r\n");
            }
        }
        ways.rest_and_stop().await;
    })
    .await;
}

#[tokio::test]
async fn the_answer_is_a_tls_record_of_its_own() {
    bounded(async {
        let ways = Ways::start(&[]).await;
        let target = Target::sends(b"SSH-2.0-target\r\n".to_vec()).await;
        let connector = ways.certs.connector(true);
        for attempt in 0..TRIES {
            let stream = client::tls(&connector, ways.server.tcp(1)).await.unwrap();
            let (mut tcp, mut tls) = stream.into_inner();
            let head = client::connect_head(target.address);
            tls.writer().write_all(head.as_bytes()).unwrap();
            let mut records = Vec::new();
            tls.write_tls(&mut records).unwrap();
            tcp.write_all(&records).await.unwrap();
            let answer = next_record(&mut tcp, &mut tls).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
            assert!(
                answer.ends_with("\r\n\r\n"),
                "try {attempt}: payload came with the answer: {answer:?}"
            );
            assert_eq!(next_record(&mut tcp, &mut tls).await, "SSH-2.0-target\r\n");
        }
        ways.rest_and_stop().await;
    })
    .await;
}

#[tokio::test]
async fn bytes_sent_with_the_head_reach_the_target_once() {
    bounded(async {
        let ways = Ways::start(&[]).await;
        let (target, mut heard) = listens().await;
        for way in Way::ALL {
            for length in [1, 1_000, 16 * 1024 - 1, 16 * 1024, 16 * 1024 + 1, 500_000] {
                let early = pattern(length);
                let mut stream = ways.enter(way).await;
                let mut said = client::connect_head(target.address).into_bytes();
                said.extend_from_slice(&early);
                stream.write_all(&said).await.unwrap();
                stream.flush().await.unwrap();
                let answer = client::read_answer(&mut *stream).await.unwrap();
                assert_eq!(answer.status, 200, "{way:?}: {}", answer.head);
                stream.write_all(b"and then").await.unwrap();
                stream.shutdown().await.unwrap();
                let got = heard.recv().await.unwrap();
                assert_eq!(got.len(), length + 8, "{way:?}");
                assert!(got[..length] == early, "{way:?}: {length} bytes, changed");
                assert_eq!(&got[length..], b"and then", "{way:?}");
            }
        }
        ways.rest_and_stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_head_may_come_byte_by_byte() {
    bounded(async {
        let ways = Ways::start(&[]).await;
        let (target, mut heard) = listens().await;
        for way in Way::ALL {
            let mut stream = ways.enter(way).await;
            let said = client::connect_head(target.address) + "early";
            for byte in said.as_bytes() {
                stream.write_all(&[*byte]).await.unwrap();
                stream.flush().await.unwrap();
                // The server runs on this thread, and gets to read now.
                yield_now().await;
            }
            let answer = client::read_answer(&mut *stream).await.unwrap();
            assert_eq!(answer.status, 200, "{way:?}: {}", answer.head);
            stream.write_all(b" and late").await.unwrap();
            stream.shutdown().await.unwrap();
            assert_eq!(heard.recv().await.unwrap(), b"early and late", "{way:?}");
        }
        ways.rest_and_stop().await;
    })
    .await;
}

/// A target that reports what it received, for each connection at its end.
async fn listens() -> (Target, mpsc::Receiver<Vec<u8>>) {
    let (tell, heard) = mpsc::channel(1);
    let target = Target::start(move |mut stream| {
        let tell = tell.clone();
        async move {
            let mut bytes = Vec::new();
            stream
                .read_to_end(&mut bytes)
                .await
                .expect("a client that finishes");
            tell.send(bytes).await.expect("a test that listens");
        }
    });
    (target.await, heard)
}

/// The plaintext of the next record alone.
async fn next_record(tcp: &mut TcpStream, tls: &mut ClientConnection) -> String {
    let mut record = vec![0; RECORD_HEADER];
    tcp.read_exact(&mut record).await.expect("a record");
    let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
    record.resize(RECORD_HEADER + length, 0);
    let body = &mut record[RECORD_HEADER..];
    tcp.read_exact(body).await.expect("a whole record");
    tls.read_tls(&mut &*record).expect("room for a record");
    let state = tls.process_new_packets().expect("a good record");
    let mut plain = vec![0; state.plaintext_bytes_to_read()];
    tls.reader().read_exact(&mut plain).expect("the plaintext");
    String::from_utf8_lossy(&plain).into_owned()
}

/// Random bytes, so that a wrong offset shows.
fn pattern(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(7).fill(&mut bytes);
    bytes
}
