//! The program: flags in, exit status out.

use std::process::ExitCode;

use agent_tcp::cli::{Cli, Command};
use clap::Parser;
use towline_agent::healthcheck;
use towline_service::runtime;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Healthcheck) => healthcheck::run(agent_tcp::NAME, cli.agent.admin_listen),
        None => runtime::run(agent_tcp::NAME, agent_tcp::run(&cli)),
    }
}
