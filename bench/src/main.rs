//! Measures Towline beside a direct connection and its peers, in one run on one machine.
//!
//! A *row* is a kind of load, a *subject* is what carries it, a *place* is where: the loopback
//! interface, or an emulated link between two network namespaces. A *cell* is one row measured once
//! on one subject, whose processes are started for it. Cells of a row follow each other directly,
//! and rounds repeat all rows, so that other work of the machine affects all subjects alike.
//!
//! Processes take part as on a real path: the load generator (this one, one thread), the subject's
//! server and agent, and the target (this binary again, one thread each for bulk and for small
//! messages). Downloads beside a small tunnel are one more.

mod cli;
mod comparison;
mod soak;

mod cell;
mod rows;

mod check;
mod link;
mod place;

mod subject;
mod swarm;
mod target;

mod client;
mod downloads;
mod process;

mod method;
mod outcome;
mod record;
mod table;

mod machine;
mod proc_fs;
mod stats;

use std::process::ExitCode;

use anyhow::{Result, bail, ensure};
use clap::Parser;
use towline_service::runtime::{self, RunError};
use towline_service::shutdown::Shutdown;

use self::cli::{Cli, Part};

fn main() -> ExitCode {
    runtime::run("towline-bench", async {
        let cli = Cli::parse();
        let shutdown = Shutdown::new();
        shutdown.on_signals()?;
        let done = Box::pin(run(cli, &shutdown)).await;
        done.map_err(|error| RunError::new(format!("{error:#}")))
    })
}

async fn run(cli: Cli, shutdown: &Shutdown) -> Result<()> {
    if let Some(part) = &cli.part {
        return until(shutdown, Box::pin(serve(part))).await;
    }
    if cli.check_link {
        return check::run(shutdown).await;
    }
    let broken = match cli.soak {
        Some(tunnels) => until(shutdown, Box::pin(soak::run(&cli, tunnels))).await?,
        // It ends by itself when it is interrupted, once everything is removed.
        None => comparison::run(&cli, shutdown).await?,
    };
    ensure!(
        !broken,
        "a row of towline or direct failed: see below the table"
    );
    Ok(())
}

async fn serve(part: &Part) -> Result<()> {
    match part {
        Part::Target(args) => target::serve(args).await,
        Part::Downloads(args) => downloads::serve(*args).await,
        Part::Swarm(args) => swarm::serve(args).await,
    }
}

/// Everything that was started ends when its handle is dropped with the losing future.
async fn until<T>(shutdown: &Shutdown, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        done = work => done,
        () = shutdown.requested() => bail!("interrupted"),
    }
}
