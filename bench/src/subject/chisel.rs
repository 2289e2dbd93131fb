//! chisel: SSH inside a WebSocket, with a reverse remote for each service of the target.
//!
//! SSH encrypts already, so there is no TLS around it: the cheapest encrypted setting. All else is
//! left at its default, which logs no connections.

use std::path::Path;

use anyhow::Result;

use super::go;
use super::setup::{Launch, Place, Setup, free_tcp};
use crate::client::Route;
use crate::target::Addresses;

pub(super) const PROGRAMS: [&str; 1] = ["chisel"];

const MODULE: &str = "github.com/jpillora/chisel";

pub(super) async fn describe(binaries: &Path) -> Result<String> {
    let version = go::version(&binaries.join(PROGRAMS[0]), MODULE).await?;
    Ok(format!(
        "chisel {version}: SSH in a WebSocket, reverse remotes, no access log"
    ))
}

pub(super) fn set_up(place: Place<'_>) -> Result<Setup> {
    let [server, ports @ ..] = free_tcp::<5>()?;
    let port = server.port().to_string();
    let arguments = |list: &[&str]| list.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
    let auth = "bench:bench";
    let mut agent = arguments(&["client", "--auth", auth]);
    agent.push(format!("http://{server}"));
    let forwarded = place.target.named().into_iter().zip(ports);
    agent.extend(forwarded.map(|((_, target), entry)| format!("R:{entry}:{target}")));
    Ok(Setup {
        server: Launch {
            name: "chisel-server",
            program: PROGRAMS[0],
            arguments: arguments(&[
                "server",
                "--host",
                "127.0.0.1",
                "--port",
                &port,
                "--reverse",
                "--auth",
                auth,
            ]),
        },
        agent: Launch {
            name: "chisel-client",
            program: PROGRAMS[0],
            arguments: agent,
        },
        up: server,
        route: Route::Direct,
        at: Addresses::from(ports),
    })
}
