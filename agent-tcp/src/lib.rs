//! agent-tcp: keeps sessions to its servers, and connects every stream to one fixed upstream.
//!
//! The journey of one tunnel is [`passthrough`]; its steps are those of
//! [`towline_agent::outlet`]. The sessions are kept by [`towline_agent::session_loop`], and the program
//! around them, from its flags to its ordered end, is [`towline_agent::program`].

pub mod cli;
pub mod passthrough;

use prometheus_client::registry::Registry;
use towline_agent::args::AgentConfig;
use towline_agent::program::{self, Bound};
use towline_protocol::control::AgentKind;
use towline_service::runtime::{RunError, StartError};

use crate::cli::Cli;
use crate::passthrough::Passthrough;

/// The program's name: in its messages, its metrics, and its Proxy-Status answers (RFC 9209).
pub const NAME: &str = "agent-tcp";

/// Runs the program from its flags to its end.
///
/// # Errors
/// What kept it from starting, in words that name the flag.
pub async fn run(cli: &Cli) -> Result<(), RunError> {
    let upstream = cli.upstream.target().map_err(StartError::new)?;
    let serve = |outlet| Passthrough::new(upstream, outlet);
    program::run(NAME, AgentKind::Passthrough, &cli.agent, serve).await
}

/// An agent that is bound and not yet running, for whoever runs it inside another process; its
/// metrics go into `registry`.
///
/// # Errors
/// What is wrong with the flags or the files they name, or that the admin address is taken.
pub fn bind(cli: &Cli, registry: Registry) -> Result<Bound<Passthrough>, StartError> {
    let upstream = cli.upstream.target().map_err(StartError::new)?;
    let config = AgentConfig::load(&cli.agent, AgentKind::Passthrough).map_err(StartError::new)?;
    let serve = |outlet| Passthrough::new(upstream, outlet);
    Bound::bind(NAME, config, registry, serve).map_err(StartError::new)
}
