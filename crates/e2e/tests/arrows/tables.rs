//! The drawing of `docs/ARCHITECTURE.md` as tables.

use crate::libraries::Exception;
use crate::modules::KnownCycle;

/// Folders of workspaces, from the root of the repository.
pub(crate) const WORKSPACES: &[&str] = &["", "fuzz"];

/// Folders whose sources are tools: `CRATES` and `OWNERS` are for them, `MODULES` is not.
pub(crate) const TOOLS: &[&str] = &["bench", "bench/wan", "fuzz"];

/// The folder of each crate, and the crates that it is built from.
pub(crate) const CRATES: &str = "
    proxy-server -> crates/protocol crates/service crates/tls crates/tunnel
    proxy-agent -> crates/agent crates/protocol crates/service crates/tunnel
    agent-tcp -> crates/agent crates/protocol crates/service crates/tunnel
    crates/agent -> crates/protocol crates/service crates/tls crates/tunnel
    crates/tunnel -> crates/congestion crates/protocol crates/tls
    crates/tls ->
    crates/congestion ->
    crates/protocol ->
    crates/service ->
    crates/e2e -> agent-tcp crates/agent crates/protocol crates/service crates/tls crates/tunnel
        proxy-agent proxy-server
    bench -> crates/agent crates/protocol crates/service crates/tls crates/tunnel
    bench/wan -> bench crates/service crates/tls
    fuzz -> crates/protocol
";

/// The modules of each crate: `main` is the program, `lib` a library's root that holds code.
pub(crate) const MODULES: &str = "
  proxy-server:
    main -> cli server
    cli -> agents clients forward frontend listener server
    server -> agents cli clients forward listener metrics registry
    agents -> metrics registry
    clients -> forward frontend listener metrics request
    frontend -> forward listener request
    forward -> metrics registry request router
    listener -> request
    metrics -> registry
    router -> registry request
    registry ->
    request ->

  proxy-agent:
    main -> cli lib
    cli -> lib
    lib -> cli connect
    connect ->

  agent-tcp:
    main -> cli lib
    cli -> lib passthrough
    lib -> cli passthrough
    passthrough ->

  crates/agent:
    program -> args metrics outlet session_loop sessions
    outlet -> args dialer metrics
    args -> session_loop
    dialer -> happy_eyeballs
    happy_eyeballs ->
    sessions -> metrics session_loop
    metrics ->
    session_loop -> backoff
    backoff ->

  crates/tunnel:
    control_stream -> session stream
    endpoint -> knobs session udp
    knobs -> congestion_adapter farewell
    congestion_adapter ->
    session -> farewell figure stream
    farewell ->
    splice -> busy_poll stream tunnels
    stream ->
    tunnels -> busy_poll figure
    busy_poll ->
    figure ->
    udp ->

  crates/tls:
    devcerts -> load
    identity ->
    lib -> load
    load ->

  crates/congestion:
    lib -> cubic path phase round usage
    phase -> cubic path round
    cubic ->
    path -> round
    round -> lib
    usage ->

  crates/protocol:
    code ->
    control -> refusal
    head -> refusal target
    refusal ->
    target ->

  crates/service:
    admin -> background_runtime readiness
    allocator ->
    build_info ->
    probe ->
    readiness ->
    live -> error_chain tasks
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
pub(crate) const CYCLES: &[KnownCycle] = &[
    (
        "proxy-server: cli -> server -> cli",
        "`server::Bound` takes the parsed `ServeArgs`",
    ),
    (
        "proxy-agent: cli -> lib -> cli",
        "the name of the program is in the root",
    ),
    (
        "agent-tcp: cli -> lib -> cli",
        "the name of the program is in the root",
    ),
    (
        "crates/congestion: lib -> round -> lib",
        "`Ack` is in the root",
    ),
    (
        "crates/congestion: path -> round -> lib -> path",
        "`Ack` is in the root",
    ),
    (
        "crates/congestion: phase -> round -> lib -> phase",
        "`Ack` is in the root",
    ),
];

/// A foreign library, and the crates or modules that may name it.
pub(crate) const OWNERS: &str = "
    quinn -> crates/tunnel
    quinn_proto -> crates/tunnel

    rustls -> crates/tls crates/tunnel::endpoint crates/tunnel::session proxy-server::agents
        crates/e2e
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

    clap -> proxy-server::cli proxy-server::agents proxy-server::clients::listen
        proxy-server::forward proxy-server::frontend proxy-server::listener::tls
        proxy-server::server proxy-agent::cli proxy-agent::main agent-tcp::cli agent-tcp::main
        agent-tcp::passthrough crates/agent::args crates/tunnel::endpoint crates/tunnel::knobs
        crates/service::telemetry crates/e2e::programs bench bench/wan
    std::env -> crates/e2e

    serde -> crates/protocol::control bench bench/wan
    serde_json -> crates/protocol::control crates/e2e bench bench/wan

    socket2 -> proxy-server::listener crates/tunnel::endpoint crates/tunnel::splice crates/e2e
        bench/wan
    tikv_jemallocator -> crates/service::allocator
";

/// Libraries whose types must not show in public signatures of the crates that name them.
pub(crate) const HIDDEN: &str = "
    quinn -> crates/tunnel
    quinn_proto -> crates/tunnel
    rustls -> crates/tls crates/tunnel
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
    // The configurations that `tls` makes are taken here.
    (
        "crates/tunnel::endpoint::DialConfig",
        "rustls",
        "takes a configuration of `tls`",
    ),
    (
        "crates/tunnel::endpoint::Listener::bind",
        "rustls",
        "takes a configuration of `tls`",
    ),
    (
        "crates/tunnel::endpoint::BindError",
        "quinn",
        "keeps the cause of the error",
    ),
];
