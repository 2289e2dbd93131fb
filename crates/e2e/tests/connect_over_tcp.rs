//! CONNECT over plain TCP: the agent dials the target, and bytes pass in both directions.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use towline_e2e::certs::Certs;
use towline_e2e::programs::pair;
use towline_e2e::target::Target;
use towline_e2e::{bounded, client};

#[tokio::test]
async fn bytes_go_both_ways() {
    bounded(async {
        let certs = Certs::new();
        let echo = Target::echo().await;
        let (server, agent) = pair(&certs, &[]).await;
        let mut tunnel = client::tunnel(server.tcp(0), echo.address).await;
        tunnel.write_all(b"ping").await.unwrap();
        let mut answer = [0; 4];
        tunnel.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"ping");
        drop(tunnel);
        server.is_at_rest().await;
        agent.is_at_rest().await;
        agent.stop().await;
        server.stop().await;
    })
    .await;
}
