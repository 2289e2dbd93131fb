//! The command line: the flags of serving, and the subcommands that need none of them.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, FromArgMatches, Subcommand};
use towline_service::build_info;

use crate::config::{ADMIN_DEFAULT, ServeArgs};

const EXAMPLES: &str = "\
Examples:
  proxy-server dev-certs --out certs
  proxy-server --cert-file certs/server.pem --cert-key certs/server-key.pem \\
    --client-ca-file certs/ca.pem
  curl --proxy http://127.0.0.1:8443 https://private.host/

Every flag can be given as an environment variable; the flag wins. Times are written 10s, 500ms or
1m, sizes 2MiB. Exit status: 0 after a shutdown, 2 for a bad flag, file or address, 1 for anything
later, 130 after a second signal.";

const ABOUT: &str = "\
Accepts clients (CONNECT, raw) and agents (QUIC), and carries each client's connection through the
session of an agent to a host that only the agent can reach.";

/// What the command line asks for.
#[derive(Debug)]
pub enum Cli {
    /// To serve.
    Serve(Box<ServeArgs>),
    /// Something else.
    Command(Command),
}

/// What can be done instead of serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a throw-away CA with server, agent and client certificates, for trying things out.
    DevCerts {
        /// Folder to write to; created when missing. Existing files are never overwritten.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Days until the certificates expire.
        #[arg(long, value_name = "N", default_value_t = 30)]
        days: u16,
    },
    /// Ask a running proxy-server whether it is alive; for a container's health check.
    Healthcheck {
        /// Its admin address.
        #[arg(long, env = "TOWLINE_ADMIN_LISTEN", value_name = "IP:PORT")]
        #[arg(default_value = ADMIN_DEFAULT)]
        admin_listen: SocketAddr,
    },
}

// === impl Cli ===

impl Cli {
    /// Reads the process's command line; prints help or a usage error and exits when it has to.
    pub fn parse() -> Self {
        Self::from_matches(&Self::command().get_matches()).unwrap_or_else(|error| error.exit())
    }

    /// The command line as clap knows it.
    ///
    /// By hand, because a subcommand must not need the flags that serving requires, and the fields
    /// of those flags must not be optional for that.
    pub fn command() -> clap::Command {
        let command = clap::Command::new("proxy-server")
            .version(build_info::long_version())
            .subcommand_negates_reqs(true)
            .args_conflicts_with_subcommands(true);
        // Last, because augmenting brings the words of the augmenting types along.
        Command::augment_subcommands(ServeArgs::augment_args(command))
            .subcommand_required(false)
            .about(ABOUT)
            .long_about(None)
            .after_help(EXAMPLES)
    }

    /// Reads what clap found.
    ///
    /// # Errors
    /// When a value is missing or out of its bounds.
    pub fn from_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        if matches.subcommand().is_some() {
            return Command::from_arg_matches(matches).map(Self::Command);
        }
        ServeArgs::from_arg_matches(matches).map(|args| Self::Serve(Box::new(args)))
    }
}

#[cfg(test)]
mod tests {
    use super::{Cli, Command};

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        let matches = Cli::command().try_get_matches_from(line.split_whitespace())?;
        Cli::from_matches(&matches)
    }

    #[test]
    fn the_command_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_flags_of_the_reference_are_accepted_as_they_are() {
        let line = "proxy-server --listen-tcp 0.0.0.0:10443 --listen-quic 0.0.0.0:8888 \
                    --cert-file a --cert-key b --client-ca-file c";
        assert!(matches!(parse(line), Ok(Cli::Serve(_))));
    }

    #[test]
    fn subcommands_need_no_serving_flags() {
        let command = parse("proxy-server dev-certs --out certs");
        assert!(
            matches!(command, Ok(Cli::Command(Command::DevCerts { .. }))),
            "{command:?}"
        );
        let error = parse("proxy-server").unwrap_err().to_string();
        assert!(error.contains("--cert-file <FILE>"), "{error}");
    }
}
