//! A drain ends a session with its last tunnel, and no byte of that tunnel is lost, not even if the
//! network delays the last packets.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use towline_e2e::certs::Certs;
use towline_e2e::programs::{Agent, Server};
use towline_e2e::relay::{Impairment, Relay};
use towline_e2e::target::Target;
use towline_e2e::{bounded, client};

/// Half of a stream window: all of it can be in flight when the client has sent it.
const UPLOAD: usize = 1024 * 1024;

/// Every datagram is delayed, and some are lost.
const SLOW: Impairment = Impairment {
    seed: 4,
    lost: 20,
    doubled: 0,
    delayed: 1_000,
    delay: Duration::from_millis(30),
};

/// A target that ends its own half at once, and reports how many bytes it received before the end
/// of file, or that there was no end of file.
async fn listener(report: mpsc::UnboundedSender<Option<usize>>) -> Target {
    Target::start(move |mut stream: TcpStream| {
        let report = report.clone();
        async move {
            let mut bytes = Vec::new();
            let whole = match stream.shutdown().await {
                Ok(()) => stream.read_to_end(&mut bytes).await.ok(),
                Err(_) => None,
            };
            report.send(whole).ok();
        }
    })
    .await
}

/// Uploads, and stops one of the programs once the client has sent its last byte.
async fn upload_and_stop(stop: impl Fn(&Server, &Agent)) {
    let certs = Certs::new();
    let (report, mut reports) = mpsc::unbounded_channel();
    let target = listener(report).await;
    let server = Server::start(&certs, &[]);
    let relay = Relay::start(server.agents, SLOW);
    let agent = Agent::start(&certs, relay.address, &[]);
    agent.is_ready().await;
    let mut tunnel = client::tunnel(server.tcp(0), target.address).await;
    assert_eq!(tunnel.read(&mut [0; 1]).await.expect("an end"), 0);
    tunnel.write_all(&vec![7; UPLOAD]).await.expect("a tunnel");
    tunnel.shutdown().await.expect("a tunnel");
    stop(&server, &agent);
    assert_eq!(reports.recv().await, Some(Some(UPLOAD)));
    drop(tunnel);
    agent.stop().await;
    server.stop().await;
}

#[tokio::test]
async fn when_the_server_stops() {
    bounded(upload_and_stop(|server, _| server.shutdown.trigger())).await;
}

#[tokio::test]
async fn when_the_agent_stops() {
    bounded(upload_and_stop(|_, agent| agent.shutdown.trigger())).await;
}
