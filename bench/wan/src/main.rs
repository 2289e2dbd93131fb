//! Parses the command line and makes a link for a command, until interrupted, or to check it.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;
use tokio::process::Command;
use tokio::task::spawn_blocking;
use towline_service::runtime::{self, RunError, StartError};
use towline_service::shutdown::Shutdown;
use towline_wan::cli::{Action, Cli};
use towline_wan::wan::{Side, Wan};
use towline_wan::{check, comparison};

fn main() -> ExitCode {
    runtime::run("towline-wan", async {
        let cli = Cli::parse();
        let shutdown = Shutdown::new();
        shutdown.on_signals()?;
        if let Some(Action::Compare(args)) = &cli.action {
            // It ends by itself when it is interrupted, once everything is removed.
            let broken = Box::pin(comparison::run(args, &shutdown)).await;
            return match broken.map_err(failed)? {
                true => Err(RunError::new("a row failed that must not: see the notes")),
                false => Ok(()),
            };
        }
        if cli.check {
            return tokio::select! {
                done = spawn_blocking(check::run) => Ok(done?.map_err(failed)?),
                () = shutdown.requested() => Err(RunError::new("interrupted")),
            };
        }
        let link = cli.link.link();
        let wan = Wan::up(&link).map_err(|error| StartError::new(format!("{error:#}")))?;
        introduce(&wan, &link.to_string())?;
        let done = tokio::select! {
            done = stay(&cli, &wan) => done.map_err(failed),
            () = shutdown.requested() => Ok(()),
        };
        for (way, counters) in ["near to far", "far to near"].iter().zip(wan.counters()) {
            writeln!(io::stderr().lock(), "{way}: {counters}")?;
        }
        wan.down()?;
        done
    })
}

fn introduce(wan: &Wan, link: &str) -> io::Result<()> {
    let mut stderr = io::stderr().lock();
    writeln!(stderr, "{link}")?;
    for (name, side) in [("near", Side::Near), ("far", Side::Far)] {
        let (space, address) = (wan.namespace(side).name(), side.address());
        writeln!(stderr, "{name}: {address}, ip netns exec {space} PROGRAM")?;
    }
    Ok(())
}

/// Runs the command, or waits for ever without one.
async fn stay(cli: &Cli, wan: &Wan) -> Result<()> {
    let Some((program, arguments)) = cli.command.split_first() else {
        return std::future::pending().await;
    };
    let mut command = Command::from(wan.command(cli.side, program));
    let names = [
        ("TOWLINE_WAN_NEAR", Side::Near),
        ("TOWLINE_WAN_FAR", Side::Far),
    ];
    for (variable, side) in names {
        command.env(variable, wan.namespace(side).name());
        command.env(format!("{variable}_IP"), side.address().to_string());
    }
    let mut child = command
        .args(arguments)
        .kill_on_drop(true)
        .spawn()
        .context("start ip")?;
    let status = child.wait().await?;
    if !status.success() {
        bail!("{program} ended with {status}");
    }
    Ok(())
}

fn failed(error: anyhow::Error) -> RunError {
    RunError::new(format!("{error:#}"))
}
