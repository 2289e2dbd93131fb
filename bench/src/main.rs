//! Parses the command line and measures, or is the target.

use std::process::ExitCode;

use anyhow::bail;
use clap::Parser;
use towline_bench::cli::{Cli, Command};
use towline_bench::{comparison, downloads, soak, swarm, target};
use towline_service::runtime::{self, RunError};
use towline_service::shutdown::Shutdown;

fn main() -> ExitCode {
    runtime::run("towline-bench", async {
        let cli = Cli::parse();
        let shutdown = Shutdown::new();
        shutdown.on_signals()?;
        // Everything that was started ends when its handle is dropped with the losing future.
        tokio::select! {
            done = measure(cli) => Ok(done.map_err(|error| RunError::new(format!("{error:#}")))?),
            () = shutdown.requested() => Err(RunError::new("interrupted")),
        }
    })
}

async fn measure(cli: Cli) -> anyhow::Result<()> {
    let broken = match &cli.command {
        Some(Command::Target(args)) => return target::serve(args).await,
        Some(Command::Downloads(args)) => return downloads::serve(args).await,
        Some(Command::Swarm(args)) => return swarm::serve(args).await,
        None if cli.soak.is_some() => soak::run(&cli).await?,
        None => comparison::run(&cli).await?,
    };
    if broken {
        bail!("a row failed that must not: see the notes below the table");
    }
    Ok(())
}
