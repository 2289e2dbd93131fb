//! The command line: every flag lives beside what it configures.

use clap::{Parser, Subcommand};
use towline_agent::args::AgentArgs;
use towline_service::build_info;

use crate::passthrough::UpstreamArgs;

/// The program's name: in its messages, its metrics, and its Proxy-Status answers (RFC 9209).
pub const NAME: &str = "agent-tcp";

/// Serves one fixed TCP upstream for a proxy-server: connects to the server, then connects every
/// tunnel that it asks for to the upstream.
#[derive(Debug, Parser)]
#[command(name = NAME, version = build_info::long_version(), subcommand_negates_reqs = true)]
pub struct Cli {
    #[command(subcommand)]
    /// What to do instead of serving tunnels.
    pub command: Option<Command>,

    #[command(flatten)]
    /// The target of all tunnels.
    pub upstream: UpstreamArgs,

    #[command(flatten)]
    /// The flags of every agent.
    pub agent: AgentArgs,
}

/// What to do instead of serving tunnels.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum Command {
    /// Ask the agent that runs at --admin-listen whether it is alive: exits 0 or 1
    Healthcheck,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_flags_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_health_check_needs_no_other_flag() {
        let cli = Cli::try_parse_from(["agent-tcp", "healthcheck"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Healthcheck)));
    }

    #[test]
    fn the_upstream_is_required_and_must_have_a_port() {
        let files = [
            "agent-tcp",
            "--ca-file=a",
            "--cert-file=b",
            "--cert-key=c",
            "--server=d:1",
        ];
        let error = Cli::try_parse_from(files).unwrap_err().to_string();
        assert!(error.contains("--upstream"), "{error}");
        for upstream in ["db", "db:0", "db:x", "u@db:1"] {
            let line = files.iter().copied().chain(["--upstream", upstream]);
            let error = Cli::try_parse_from(line).unwrap_err().to_string();
            assert!(
                error.contains("--upstream") && error.contains(upstream),
                "{error}"
            );
        }
    }
}
