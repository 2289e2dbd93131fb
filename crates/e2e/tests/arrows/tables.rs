//! The drawing of `docs/ARCHITECTURE.md` as tables.

use crate::libraries::Exception;
use crate::modules::KnownCycle;

/// Folders of workspaces, from the root of the repository.
pub(crate) const WORKSPACES: &[&str] = &["", "bench", "fuzz"];

/// Folders whose sources are tools: `CRATES` and `OWNERS` are for them, `MODULES` is not.
pub(crate) const TOOLS: &[&str] = &["bench", "fuzz"];

/// The folder of each crate, and the crates that it is built from.
pub(crate) const CRATES: &str = "
    agent-tcp -> crates/agent crates/protocol crates/service
    crates/agent -> crates/metrics crates/protocol crates/quic crates/service crates/session
        crates/tls
    crates/metrics -> crates/quic crates/service crates/session
    crates/quic -> crates/congestion crates/protocol crates/tls
    crates/congestion ->
    crates/protocol ->
    crates/tls ->
    crates/service ->
    crates/session -> crates/protocol crates/quic crates/tls
    bench -> crates/agent crates/protocol crates/service crates/session crates/tls
    proxy-server -> crates/metrics crates/protocol crates/quic crates/service crates/session
        crates/tls
    crates/e2e -> agent-tcp crates/agent crates/protocol crates/quic crates/service
        crates/session crates/tls proxy-agent proxy-server
    proxy-agent -> crates/agent crates/protocol crates/service
    fuzz -> crates/protocol
";

/// The modules of each crate: `main` is the program, `lib` a library's root that holds code.
pub(crate) const MODULES: &str = "
  proxy-server:
    main -> cli config server
    cli -> config
    server -> config limits metrics shard
    shard -> accept admit config forward frontend limits listen listener metrics registry
    limits ->
    config -> admit forward frontend listen listener
    admit -> accept metrics registry
    accept -> frontend listen listener metrics request
    listen -> frontend listener
    frontend -> forward listener request
    forward -> access_log metrics open registry request
    access_log -> metrics registry request
    listener -> request
    open -> metrics registry request route
    metrics -> registry
    request ->
    route -> registry
    registry ->

  proxy-agent:
    main -> cli lib
    lib -> cli connect
    cli ->
    connect ->

  agent-tcp:
    main -> cli lib
    lib -> cli passthrough
    cli -> passthrough
    passthrough ->

  crates/agent:
    dialer -> happy_eyeballs
    happy_eyeballs ->
    program -> args config connector metrics serve server_connector session_loop sessions
    serve -> config connector metrics session_loop
    config -> args server_connector
    args ->
    connector ->
    sessions -> metrics server_connector session_loop
    metrics ->
    session_loop -> backoff server_connector
    backoff ->
    server_connector ->

  crates/session:
    control_stream -> session stream
    memory -> dialect session transport
    session -> dialect incoming outgoing stream transport
    incoming -> dialect stream
    dialect ->
    outgoing -> stream
    splice -> busy_poller local_stream stream tunnel_table
    local_stream ->
    stream -> transport
    transport ->
    tunnel_table -> args busy_poller
    args ->
    busy_poller ->

  crates/quic:
    dialer -> args connection endpoint transport_config
    listener -> args connection endpoint transport_config
    connection -> close_workaround endpoint stats stream
    endpoint -> args udp
    stats ->
    stream ->
    transport_config -> args close_workaround congestion_adapter
    args ->
    close_workaround ->
    congestion_adapter ->
    udp ->

  crates/tls:
    devcerts -> load
    identity ->
    lib -> load
    load ->

  crates/congestion:
    lib -> ack cubic path phase round usage
    phase -> cubic path round
    cubic ->
    path -> round
    round -> ack
    ack ->
    usage ->

  crates/protocol:
    failure -> code
    code ->
    head -> ask refusal target
    ask -> control target
    control -> ids refusal
    ids ->
    refusal ->
    target ->

  crates/metrics:
    lib ->

  crates/service:
    admin -> background_runtime readiness
    allocator ->
    build_info ->
    live -> error_chain tasks
    probe ->
    readiness ->
    runtime -> error_chain
    error_chain ->
    scrape ->
    shutdown -> background_runtime telemetry
    background_runtime ->
    tasks ->
    telemetry ->

  crates/e2e:
    endings -> target
    footprint ->
    interop -> admin certs client lib programs target
    admin -> openmetrics
    client -> certs programs
    openmetrics ->
    process -> certs programs
    programs -> certs lib
    certs ->
    lib ->
    relay ->
    target ->
";

/// Cycles of modules that are left for now, each with the reason.
pub(crate) const CYCLES: &[KnownCycle] = &[];

/// A foreign library, and the crates or modules that may name it.
pub(crate) const OWNERS: &str = "
    quinn -> crates/quic
    quinn_proto -> crates/quic

    rustls -> crates/tls crates/quic::connection crates/e2e
    webpki -> crates/tls
    tokio_rustls -> proxy-server::listener crates/e2e
    rcgen -> crates/tls::devcerts
    x509_parser -> crates/tls

    hyper -> crates/service::admin
    hyper_util -> crates/service::admin
    http_body_util -> crates/service::admin
    httparse -> crates/protocol::head

    prometheus_client -> proxy-server::metrics proxy-server::server proxy-agent::lib
        agent-tcp::lib crates/agent crates/service crates/e2e::programs
    tracing_subscriber -> crates/service::telemetry

    clap -> proxy-server::cli proxy-server::config proxy-server::admit proxy-server::forward
        proxy-server::frontend proxy-server::listen proxy-server::listener::tls proxy-agent::cli
        proxy-agent::main agent-tcp::cli agent-tcp::main agent-tcp::passthrough
        crates/agent::args crates/session::args
        crates/quic::args crates/service::telemetry crates/e2e::programs bench
    std::env -> crates/e2e

    serde -> crates/protocol::control crates/protocol::ids bench
    serde_json -> crates/protocol::control crates/e2e bench

    socket2 -> proxy-server::listener crates/quic::endpoint crates/session::local_stream
        crates/e2e bench
    tikv_jemallocator -> crates/service::allocator
";

/// Libraries whose types must not show in public signatures of the crates that name them.
pub(crate) const HIDDEN: &str = "
    quinn -> crates/quic
    quinn_proto -> crates/quic
    rustls -> crates/tls crates/quic
    webpki -> crates/tls
    rcgen -> crates/tls
    x509_parser -> crates/tls
    hyper -> crates/service
    hyper_util -> crates/service
    http_body_util -> crates/service
    httparse -> crates/protocol
";

/// Public signatures that name a hidden library all the same, each with the reason.
pub(crate) const EXCEPTIONS: &[Exception] = &[
    // What `tls` is for: it makes the configurations that QUIC and TCP listeners take.
    (
        "crates/tls::lib::quic_server",
        "rustls",
        "makes a configuration",
    ),
    (
        "crates/tls::lib::quic_client",
        "rustls",
        "makes a configuration",
    ),
    (
        "crates/tls::lib::tcp_server",
        "rustls",
        "makes a configuration",
    ),
    (
        "crates/tls::lib::tcp_client",
        "rustls",
        "makes a configuration",
    ),
    (
        "crates/tls::identity::Identity::of",
        "rustls",
        "reads the certificate of a handshake",
    ),
    (
        "crates/tls::load::Credentials::chain",
        "rustls",
        "gives certificates as bytes",
    ),
    (
        "crates/tls::devcerts::Issued::certificate",
        "rustls",
        "gives a certificate as bytes",
    ),
    (
        "crates/tls::lib::ConfigError",
        "rustls",
        "keeps the cause of the error",
    ),
    (
        "crates/tls::devcerts::DevCertsError",
        "rustls",
        "keeps the cause of the error",
    ),
    (
        "crates/tls::devcerts::DevCertsError",
        "rcgen",
        "keeps the cause of the error",
    ),
    (
        "crates/tls::lib::ServerTls",
        "rustls",
        "names a configuration",
    ),
    (
        "crates/tls::lib::ClientTls",
        "rustls",
        "names a configuration",
    ),
];
