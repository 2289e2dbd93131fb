//! The command line: every flag lives beside what it configures.

use clap::{Parser, Subcommand};
use towline_agent::args::AgentArgs;
use towline_service::build_info;

/// The program's name: in its messages, its metrics, and its Proxy-Status answers (RFC 9209).
pub const NAME: &str = "proxy-agent";

/// Serves CONNECT for a proxy-server: connects to the server, then dials the targets it asks for.
#[derive(Debug, Parser)]
#[command(name = NAME, version = build_info::long_version(), subcommand_negates_reqs = true)]
pub struct Cli {
    #[command(subcommand)]
    /// What to do instead of serving tunnels.
    pub command: Option<Command>,

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
        let cli = [
            "proxy-agent",
            "healthcheck",
            "--admin-listen",
            "127.0.0.1:1",
        ];
        let cli = Cli::try_parse_from(cli).unwrap();
        assert!(matches!(cli.command, Some(Command::Healthcheck)));
        assert_eq!(cli.agent.admin_listen, "127.0.0.1:1".parse().unwrap());
    }
}
