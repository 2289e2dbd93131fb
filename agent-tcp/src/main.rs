//! The program: flags in, exit status out.

use std::process::ExitCode;

use agent_tcp::cli::{Cli, Command, NAME};
use clap::Parser;
use towline_service::allocator::Allocator;
use towline_service::{probe, runtime};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Healthcheck) => {
            runtime::run(NAME, async { Ok(probe::livez(cli.agent.admin_listen)?) })
        }
        None => runtime::run(NAME, agent_tcp::run(&cli)),
    }
}
