//! Konnectivity, the apiserver-network-proxy of Kubernetes, in its HTTP CONNECT mode.
//!
//! Server and agent speak gRPC over mutual TLS. Clients enter through a Unix socket without TLS,
//! as kube-apiserver is told to: its cheapest entrance, as the other subjects' plain TCP is
//! theirs. Only errors are logged, sizes of channels are the defaults.

use std::path::Path;

use anyhow::Result;

use super::go;
use super::setup::{Launch, Place, Setup, arguments, file, free_tcp};
use crate::client::Route;

pub(super) const PROGRAMS: [&str; 2] = ["server", "agent"];

const MODULE: &str = "sigs.k8s.io/apiserver-network-proxy";

pub(super) async fn describe(binaries: &Path) -> Result<String> {
    let version = go::version(&binaries.join(PROGRAMS[0]), MODULE).await?;
    Ok(format!(
        "{MODULE} {version}, --mode=http-connect: gRPC over mutual TLS between server and agent, \
         clients on a Unix socket, errors logged only"
    ))
}

pub(super) fn set_up(place: Place<'_>) -> Result<Setup> {
    let [
        agents,
        server_health,
        server_admin,
        agent_health,
        agent_admin,
    ] = free_tcp()?;
    // Abstract names live in a space of their own: a port that is ours makes this one unique.
    let route = Route::Unix(agents.port());
    let certs = place.certs;
    let server = arguments([
        ("--mode", "http-connect".to_owned()),
        (
            "--uds-name",
            format!("@{}", Route::unix_name(agents.port())),
        ),
        ("--server-port", "0".to_owned()),
        ("--agent-bind-address", "127.0.0.1".to_owned()),
        ("--agent-port", agents.port().to_string()),
        ("--health-bind-address", "127.0.0.1".to_owned()),
        ("--health-port", server_health.port().to_string()),
        ("--admin-port", server_admin.port().to_string()),
        ("--cluster-cert", file(certs, "server.pem")),
        ("--cluster-key", file(certs, "server-key.pem")),
        ("--cluster-ca-cert", file(certs, "ca.pem")),
        ("--v", "0".to_owned()),
    ]);
    let agent = arguments([
        ("--proxy-server-host", "127.0.0.1".to_owned()),
        ("--proxy-server-port", agents.port().to_string()),
        ("--health-server-host", "127.0.0.1".to_owned()),
        ("--health-server-port", agent_health.port().to_string()),
        ("--admin-server-port", agent_admin.port().to_string()),
        ("--ca-cert", file(certs, "ca.pem")),
        ("--agent-cert", file(certs, "agent.pem")),
        ("--agent-key", file(certs, "agent-key.pem")),
        ("--v", "0".to_owned()),
    ]);
    Ok(Setup {
        server: Launch::new(PROGRAMS[0], server),
        agent: Launch::new(PROGRAMS[1], agent),
        up: agents,
        route,
        at: place.target,
    })
}
