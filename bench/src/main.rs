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
        let done = Box::pin(measure(cli, &shutdown)).await;
        done.map_err(|error| RunError::new(format!("{error:#}")))
    })
}

async fn measure(cli: Cli, shutdown: &Shutdown) -> anyhow::Result<()> {
    let broken = match &cli.command {
        Some(command) => return until(shutdown, Box::pin(part(command))).await,
        None if cli.soak.is_some() => until(shutdown, Box::pin(soak::run(&cli))).await?,
        None => comparison::run(&cli, shutdown).await?,
    };
    if broken {
        bail!("a row failed that must not: see the notes below the table");
    }
    Ok(())
}

async fn part(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Target(args) => target::serve(args).await,
        Command::Downloads(args) => downloads::serve(args).await,
        Command::Swarm(args) => swarm::serve(args).await,
    }
}

/// Everything that was started ends when its handle is dropped with the losing future.
async fn until<T>(
    shutdown: &Shutdown,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    tokio::select! {
        done = work => done,
        () = shutdown.requested() => bail!("interrupted"),
    }
}
