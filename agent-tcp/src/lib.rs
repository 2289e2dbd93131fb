//! agent-tcp: keeps sessions to its servers, and connects every tunnel to one fixed upstream.
//!
//! What a tunnel is connected to is in [`passthrough`]; the journey of a tunnel is
//! [`towline_agent::serve`]. [`towline_agent::session_loop`] keeps the sessions, and
//! [`towline_agent::program`] is the program from its flags to its ordered end.

pub mod cli;
pub mod passthrough;

use prometheus_client::registry::Registry;
use towline_agent::config::AgentConfig;
use towline_agent::connector::Connector;
use towline_agent::program::{self, Bound};
use towline_service::runtime::{RunError, StartError};

use crate::cli::{Cli, NAME};
use crate::passthrough::UpstreamConnector;

/// Runs the program from its flags to its end.
///
/// # Errors
/// Why it could not start; the text names the flag.
pub async fn run(cli: &Cli) -> Result<(), RunError> {
    let upstream = cli.upstream.target().map_err(StartError::new)?;
    program::run(NAME, &cli.agent, UpstreamConnector::new(upstream)).await
}

/// An agent that is bound and not yet running, for programs that embed it; its metrics go into
/// `registry`.
///
/// # Errors
/// What is wrong with the flags or the files they name, or that the admin address is taken.
pub fn bind(cli: &Cli, registry: Registry) -> Result<Bound<UpstreamConnector>, StartError> {
    let upstream = cli.upstream.target().map_err(StartError::new)?;
    let config = AgentConfig::load(&cli.agent, UpstreamConnector::KIND).map_err(StartError::new)?;
    let connector = UpstreamConnector::new(upstream);
    Bound::bind(NAME, config, registry, connector).map_err(StartError::new)
}
