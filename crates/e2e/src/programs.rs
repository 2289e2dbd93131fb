//! The three programs, in process: started on free ports, and stopped with a check of their exit.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use prometheus_client::registry::Registry as Metered;
use proxy_server::cli::Cli as ServerCli;
use proxy_server::listener::Address;
use proxy_server::registry::Registry;
use tokio::task::JoinSet;
use tokio::time::timeout;
use towline_agent::connector::Connector;
use towline_agent::program::Bound as BoundAgent;
use towline_service::readiness::Readiness;
use towline_service::shutdown::Shutdown;
use towline_service::tasks::Tasks;
use towline_session::tunnel_table::TunnelTable;

use crate::certs::Certs;
use crate::eventually;

/// How long a program may take to stop once nothing is left to drain.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// A proxy-server in this process.
#[derive(Debug)]
pub struct Server {
    /// The addresses for clients, in the order of the flags.
    pub clients: Vec<Address>,
    /// The address for agents.
    pub agents: SocketAddr,
    /// `/livez`, `/readyz`, `/metrics`.
    pub admin: SocketAddr,
    /// Its sessions.
    pub registry: Registry,
    /// Its live tunnels.
    pub tunnels: TunnelTable,
    /// The tasks of its clients.
    pub client_tasks: Tasks,
    /// Requests its stop.
    pub shutdown: Shutdown,
    run: JoinSet<()>,
}

/// A proxy-agent or an agent-tcp in this process.
#[derive(Debug)]
pub struct Agent {
    /// `/livez`, `/readyz`, `/metrics`.
    pub admin: SocketAddr,
    /// Whether it has a session.
    pub readiness: Readiness,
    /// Its live tunnels.
    pub tunnels: TunnelTable,
    /// Requests its stop.
    pub shutdown: Shutdown,
    run: JoinSet<()>,
}

// === impl Server ===

impl Server {
    /// Starts a server with CONNECT on a free TCP port, and `flags` behind the usual ones.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(certs: &Certs, flags: &[&str]) -> Self {
        Self::try_start(certs, &[&["--listen-tcp", "127.0.0.1:0"], flags].concat())
            .expect("the server starts")
    }

    /// Starts a server with the given listeners and flags only.
    ///
    /// # Errors
    /// Why it does not start, in one line.
    ///
    /// # Panics
    /// If clap refuses the flags.
    pub fn try_start(certs: &Certs, flags: &[&str]) -> Result<Self, String> {
        let line = server_line(certs, flags);
        let matches = ServerCli::command()
            .try_get_matches_from(line)
            .expect("good flags");
        let Ok(ServerCli::Serve(args)) = ServerCli::from_matches(&matches) else {
            panic!("these flags are not for serving");
        };
        let config = proxy_server::config::load(&args).map_err(|error| chain(&error))?;
        let bound = proxy_server::server::bind(&config, None).map_err(|error| chain(&error))?;
        let shutdown = Shutdown::new();
        let mut run = JoinSet::new();
        let server = (
            bound.shard().client_addresses(),
            bound.shard().agents_addr(),
            bound.admin_addr(),
            bound.shard().registry().clone(),
            bound.shard().tunnels().clone(),
            bound.shard().client_tasks().clone(),
        );
        run.spawn(bound.run(shutdown.clone()));
        let (clients, agents, admin, registry, tunnels, client_tasks) = server;
        Ok(Self {
            clients,
            agents,
            admin,
            registry,
            tunnels,
            client_tasks,
            shutdown,
            run,
        })
    }

    /// The TCP address of the n-th listener.
    ///
    /// # Panics
    /// When that one is a Unix socket.
    pub fn tcp(&self, index: usize) -> SocketAddr {
        match &self.clients[index] {
            Address::Tcp(address) | Address::Tls(address) => *address,
            Address::Unix(path) => panic!("{} is no TCP listener", path.display()),
        }
    }

    /// The path of the n-th listener.
    ///
    /// # Panics
    /// When that one is no Unix socket.
    pub fn unix(&self, index: usize) -> PathBuf {
        match &self.clients[index] {
            Address::Unix(path) => path.clone(),
            other => panic!("{other} is no Unix socket"),
        }
    }

    /// Waits until this many agents have a session.
    pub async fn has_sessions(&self, count: usize) {
        eventually("sessions at the server", count, || {
            self.registry.snapshot().len()
        })
        .await;
    }

    /// Waits until no tunnel, no stream and no client's task is left.
    pub async fn is_at_rest(&self) {
        let streams = || -> usize {
            self.registry
                .snapshot()
                .iter()
                .map(|member| member.session.open_streams())
                .sum()
        };
        eventually(
            "tunnels, streams and client tasks at the server",
            (0, 0, 0),
            || {
                (
                    self.tunnels.stats().live,
                    streams(),
                    self.client_tasks.len(),
                )
            },
        )
        .await;
    }

    /// Stops it and waits for its end.
    ///
    /// # Panics
    /// When it does not end in time, or panicked.
    pub async fn stop(mut self) {
        self.shutdown.trigger();
        ended(&mut self.run).await;
    }
}

// === impl Agent ===

impl Agent {
    /// Starts a proxy-agent for `server`.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(certs: &Certs, server: SocketAddr, flags: &[&str]) -> Self {
        let line = agent_line("proxy-agent", certs, server, flags);
        let cli = proxy_agent::cli::Cli::try_parse_from(line).expect("good flags");
        Self::run(proxy_agent::bind(&cli, Metered::default()).expect("the agent starts"))
    }

    /// Starts an agent-tcp for `server` with a fixed upstream.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_tcp(
        certs: &Certs,
        server: SocketAddr,
        upstream: SocketAddr,
        flags: &[&str],
    ) -> Self {
        let upstream = upstream.to_string();
        let flags = [&["--upstream", &upstream], flags].concat();
        let line = agent_line("agent-tcp", certs, server, &flags);
        let cli = agent_tcp::cli::Cli::try_parse_from(line).expect("good flags");
        Self::run(agent_tcp::bind(&cli, Metered::default()).expect("the agent starts"))
    }

    fn run<C: Connector>(bound: BoundAgent<C>) -> Self {
        let (admin, readiness, tunnels) = (bound.admin_addr(), bound.readiness(), bound.tunnels());
        let shutdown = Shutdown::new();
        let mut run = JoinSet::new();
        let own = shutdown.clone();
        run.spawn(async move { bound.run(&own).await.expect("the agent runs") });
        Self {
            admin,
            readiness,
            tunnels,
            shutdown,
            run,
        }
    }

    /// Waits until it has a session.
    pub async fn is_ready(&self) {
        eventually("agent ready", Ok(()), || self.readiness.state()).await;
    }

    /// Waits until no tunnel is left.
    pub async fn is_at_rest(&self) {
        eventually("tunnels at the agent", 0, || self.tunnels.stats().live).await;
    }

    /// Stops it and waits for its end.
    ///
    /// # Panics
    /// When it does not end in time, or panicked.
    pub async fn stop(mut self) {
        self.shutdown.trigger();
        ended(&mut self.run).await;
    }

    /// Ends it as a power failure would: it closes no connection.
    pub fn vanish(mut self) {
        self.run.abort_all();
    }
}

/// A server and one proxy-agent that has its session.
///
/// # Panics
/// When they do not start.
pub async fn pair(certs: &Certs, server_flags: &[&str]) -> (Server, Agent) {
    let server = Server::start(certs, server_flags);
    let agent = Agent::start(certs, server.agents, &[]);
    agent.is_ready().await;
    server.has_sessions(1).await;
    (server, agent)
}

/// The command line of a proxy-server with these listeners and flags, and the usual ones.
pub(crate) fn server_line(certs: &Certs, flags: &[&str]) -> Vec<String> {
    let mut line = vec!["proxy-server".to_owned()];
    let files = [
        ("--cert-file", "server.pem"),
        ("--cert-key", "server-key.pem"),
        ("--client-ca-file", "ca.pem"),
    ];
    for (flag, file) in files {
        line.extend([flag.to_owned(), certs.flag(file)]);
    }
    for (flag, value) in [
        ("--listen-quic", "127.0.0.1:0"),
        ("--admin-listen", "127.0.0.1:0"),
    ] {
        if !flags.contains(&flag) {
            line.extend([flag.to_owned(), value.to_owned()]);
        }
    }
    line.extend(flags.iter().map(ToString::to_string));
    line
}

/// The command line of an agent for `server` with these flags, and the usual ones.
pub(crate) fn agent_line(
    name: &str,
    certs: &Certs,
    server: SocketAddr,
    flags: &[&str],
) -> Vec<String> {
    let mut line = vec![name.to_owned()];
    let usual = [
        ("--ca-file", certs.flag("ca.pem")),
        ("--cert-file", certs.flag("agent.pem")),
        ("--cert-key", certs.flag("agent-key.pem")),
        ("--server", server.to_string()),
        ("--admin-listen", "127.0.0.1:0".to_owned()),
    ];
    for (flag, value) in usual {
        if !flags.contains(&flag) {
            line.extend([flag.to_owned(), value]);
        }
    }
    line.extend(flags.iter().map(ToString::to_string));
    line
}

async fn ended(run: &mut JoinSet<()>) {
    let ended = timeout(STOP_LIMIT, run.join_next())
        .await
        .expect("it stops in time");
    ended.expect("it ran").expect("it ends without a panic");
}

fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(Some(error), |error| error.source());
    sources
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
