//! The program: flags in, exit status out.

use std::process::ExitCode;

use clap::Parser;
use proxy_agent::cli::{Cli, Command};
use towline_service::allocator::Allocator;
use towline_service::{probe, runtime};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Healthcheck) => runtime::run(proxy_agent::NAME, async {
            Ok(probe::livez(cli.agent.admin_listen)?)
        }),
        None => runtime::run(proxy_agent::NAME, proxy_agent::run(&cli)),
    }
}
