//! What a client's connection costs while it is idle is, besides its sockets, its task's future.

use std::sync::Arc;

use clap::Parser;
use prometheus_client::registry::Registry as Metered;
use proxy_server::forward::{Forward, ForwardArgs};
use proxy_server::frontend::{Frontend, FrontendArgs};
use proxy_server::listener::ClientStream;
use proxy_server::metrics::Metrics;
use proxy_server::registry::Registry;
use proxy_server::request::{ClientAddress, ClientInfo};
use tokio::net::{TcpListener, TcpStream};
use towline_tunnel::tunnels::Tunnels;

/// Bytes; 2,000 idle tunnels then hold 4 MiB of futures at most.
const BOUND: usize = 2_048;

#[derive(Debug, Parser)]
struct Flags {
    #[command(flatten)]
    forward: ForwardArgs,
    #[command(flatten)]
    frontend: FrontendArgs,
}

#[tokio::test]
async fn a_connection_is_small() {
    let flags = Flags::parse_from(["test"]);
    let metrics = Metrics::register(&mut Metered::default());
    let forward = Forward::new(
        flags.forward,
        Registry::default(),
        Tunnels::new(1, 1),
        metrics,
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let client = ClientInfo {
        listener: Arc::from("connect=tcp://127.0.0.1:1"),
        address: ClientAddress::Unix,
        identity: None,
    };
    let serve =
        Frontend::Connect.serve(ClientStream::Tcp(stream), client, &flags.frontend, &forward);
    let size = size_of_val(&serve);
    assert!(size <= BOUND, "the future of a connection has {size} bytes");
}
