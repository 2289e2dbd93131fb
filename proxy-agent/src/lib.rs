//! proxy-agent: keeps sessions to its servers, and dials the targets that they ask for.
//!
//! The journey of one tunnel is [`connect`]; its steps are those of [`towline_agent::outlet`].
//! The sessions are kept by [`towline_agent::session_loop`], and the program around them, from its flags
//! to its ordered end, is [`towline_agent::program`].

pub mod cli;
pub mod connect;

use prometheus_client::registry::Registry;
use towline_agent::args::AgentConfig;
use towline_agent::program::{self, Bound};
use towline_protocol::control::AgentKind;
use towline_service::runtime::{RunError, StartError};

use crate::cli::Cli;
use crate::connect::Connect;

/// The program's name: in its messages, its metrics, and its Proxy-Status answers (RFC 9209).
pub const NAME: &str = "proxy-agent";

/// Runs the program from its flags to its end.
///
/// # Errors
/// What kept it from starting, in words that name the flag.
pub async fn run(cli: &Cli) -> Result<(), RunError> {
    program::run(NAME, AgentKind::Connect, &cli.agent, Connect::new).await
}

/// An agent that is bound and not yet running, for whoever runs it inside another process; its
/// metrics go into `registry`.
///
/// # Errors
/// What is wrong with the flags or the files they name, or that the admin address is taken.
pub fn bind(cli: &Cli, registry: Registry) -> Result<Bound<Connect>, StartError> {
    let config = AgentConfig::load(&cli.agent, AgentKind::Connect).map_err(StartError::new)?;
    Bound::bind(NAME, config, registry, Connect::new).map_err(StartError::new)
}
