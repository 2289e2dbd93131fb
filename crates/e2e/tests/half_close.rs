//! One half of a tunnel ends while the other goes on: over TCP, TLS and a Unix socket.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use towline_e2e::bounded;
use towline_e2e::client::{Way, Ways};
use towline_e2e::target::Target;

/// Enough to fill many packets and buffers when the other half ends.
const LONG: usize = 3 * 1024 * 1024;

#[tokio::test]
async fn a_client_that_has_finished_still_gets_its_answer() {
    bounded(async {
        let ways = Ways::start(&[]).await;
        // Answers only after the end of the request.
        let target = Target::start(|mut stream| async move {
            let mut question = Vec::new();
            stream.read_to_end(&mut question).await.unwrap();
            stream.write_all(&vec![b'a'; LONG]).await.unwrap();
            stream.write_all(&question).await.unwrap();
        })
        .await;
        for way in Way::ALL {
            let mut tunnel = ways.tunnel(way, target.address).await;
            tunnel.write_all(b"question").await.unwrap();
            tunnel.shutdown().await.unwrap();
            let mut answer = Vec::new();
            tunnel.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer.len(), LONG + 8, "{way:?}");
            assert!(answer.ends_with(b"aquestion"), "{way:?}");
        }
        ways.rest_and_stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_client_may_go_on_after_the_target_has_finished() {
    bounded(async {
        let ways = Ways::start(&[]).await;
        let (tell, mut heard) = mpsc::channel(1);
        let target = Target::start(move |mut stream| {
            let tell = tell.clone();
            async move {
                stream.write_all(b"that is all").await.unwrap();
                stream.shutdown().await.unwrap();
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest).await.unwrap();
                tell.send(rest).await.unwrap();
            }
        })
        .await;
        for way in Way::ALL {
            let mut tunnel = ways.tunnel(way, target.address).await;
            let mut said = Vec::new();
            tunnel.read_to_end(&mut said).await.unwrap();
            assert_eq!(said, b"that is all", "{way:?}");
            tunnel.write_all(&vec![b'c'; LONG]).await.unwrap();
            tunnel.write_all(b"!").await.unwrap();
            tunnel.shutdown().await.unwrap();
            let rest = heard.recv().await.unwrap();
            assert_eq!(rest.len(), LONG + 1, "{way:?}");
            assert!(rest.ends_with(b"c!"), "{way:?}");
        }
        ways.rest_and_stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_half_that_ends_without_a_byte_ends_alone() {
    bounded(async {
        let ways = Ways::start(&[]).await;
        let target = Target::start(|mut stream| async move {
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
            stream.write_all(b"late").await.unwrap();
        })
        .await;
        for way in Way::ALL {
            let mut tunnel = ways.tunnel(way, target.address).await;
            tunnel.shutdown().await.unwrap();
            let mut said = Vec::new();
            tunnel.read_to_end(&mut said).await.unwrap();
            assert_eq!(said, b"late", "{way:?}");
        }
        ways.rest_and_stop().await;
    })
    .await;
}
