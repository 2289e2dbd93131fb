//! What a client's connection costs while it is idle is, besides its sockets, the future of its
//! frontend. The crate's own tests bound it together with the future of the connection's task.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry as MetricsRegistry;
use proxy_server::forward::{Forward, ForwardConfig};
use proxy_server::frontend::{Connection, FRONTENDS, ServeContext};
use proxy_server::listener::ClientStream;
use proxy_server::metrics::ServerMetrics;
use proxy_server::registry::Registry;
use proxy_server::request::{ClientAddress, ClientInfo};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use towline_service::shutdown::DrainWatch;
use towline_service::tasks::Tasks;
use towline_session::args::TableConfig;
use towline_session::tunnel_table::TunnelTable;

/// Bytes; 2,000 idle tunnels then hold 4 MiB of futures at most.
const BOUND: usize = 2_048;

#[tokio::test]
async fn a_connection_is_small() {
    let metrics = ServerMetrics::register(&mut MetricsRegistry::default());
    let forward = Forward::new(
        &ForwardConfig::default(),
        Registry::default(),
        TunnelTable::new(&TableConfig::default()),
        Arc::new(Semaphore::new(1)),
        metrics,
    );
    let context = ServeContext {
        forward,
        tasks: Tasks::new(),
        drain: DrainWatch::never(),
        head_timeout: Duration::from_secs(10),
    };
    for desc in FRONTENDS {
        let frontend = (desc.build)(&[]).expect("no frontend needs a setting");
        let (_client, stream) = UnixStream::pair().unwrap();
        let client = ClientInfo {
            listener: Arc::from("connect=tcp://127.0.0.1:1"),
            address: ClientAddress::Unix,
            identity: None,
        };
        let connection = Connection {
            stream: ClientStream::Unix(stream),
            client,
            tls: None,
        };
        // The size of what is in the box, not of the box.
        let size = size_of_val(&*frontend.serve(connection, &context));
        let name = desc.name;
        assert!(size <= BOUND, "{name}: the future has {size} bytes");
    }
}
