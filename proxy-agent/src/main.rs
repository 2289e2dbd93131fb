//! The program: flags in, exit status out.

use std::process::ExitCode;

use clap::Parser;
use proxy_agent::cli::{Cli, Command};
use towline_agent::healthcheck;
use towline_service::runtime;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Healthcheck) => healthcheck::run(proxy_agent::NAME, cli.agent.admin_listen),
        None => runtime::run(proxy_agent::NAME, proxy_agent::run(&cli)),
    }
}
