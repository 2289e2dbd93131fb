//! All rows on all subjects, round by round, and the table of it.

use std::io::{self, Write};

use anyhow::{Context, Result};
use tokio::time::{Duration, timeout};

use crate::cell::Cell;
use crate::cli::{Cli, Plan};
use crate::machine::Machine;
use crate::noise::Noise;
use crate::proc_fs;
use crate::rows::{Figures, Row};
use crate::stats::figure;
use crate::subject::{Kind, Subject};
use crate::table::{self, Column, Outcome};
use crate::target::Target;

/// How long a cell may take beyond its own times: a start, and every deadline inside it once.
const CELL_SLACK: Duration = Duration::from_secs(60);

/// The columns of a run: who was asked for, and who is there.
#[derive(Debug)]
pub struct Subjects {
    /// All that were asked for.
    pub columns: Vec<Column>,
    /// Those that are installed.
    pub installed: Vec<Subject>,
}

// === impl Subjects ===

impl Subjects {
    /// Finds the programs of the subjects that the command line names.
    ///
    /// # Errors
    /// When programs are missing from a folder where they should be.
    pub fn find(cli: &Cli) -> Result<Self> {
        let mut found = Self {
            columns: Vec::new(),
            installed: Vec::new(),
        };
        for kind in cli.subjects() {
            let binaries = match kind {
                Kind::Reference => cli.reference_dir.clone(),
                Kind::Direct | Kind::Towline => Some(cli.bin_dir()?),
            };
            found.columns.push(Column {
                kind,
                installed: binaries.is_some(),
            });
            if let Some(binaries) = binaries {
                found.installed.push(Subject::new(kind, &binaries)?);
            }
        }
        Ok(found)
    }

    /// A list of what exactly is measured, and on which machine.
    ///
    /// # Errors
    /// When a program does not say its version.
    pub async fn describe(&self) -> Result<String> {
        let mut text = format!("- {}\n", Machine::read());
        for subject in &self.installed {
            let line = subject.describe().await?;
            text.push_str(&format!("- {}: {line}\n", subject.kind.name()));
        }
        Ok(text)
    }
}

/// Measures and prints the table; says whether a row of ours, or of the direct connection,
/// failed.
///
/// # Errors
/// When nothing can be measured at all.
pub async fn run(cli: &Cli) -> Result<bool> {
    let (plan, rows) = (cli.plan(), cli.rows());
    let subjects = Subjects::find(cli)?;
    let description = subjects.describe().await?;
    let target = Target::start().await?;
    let (mut outcomes, mut noise) = (Vec::new(), Noise::default());
    for round in 1..=plan.rounds {
        for row in &rows {
            for subject in in_turn(&subjects.installed, round) {
                noise.watch().await?;
                let figures = measure(*row, subject, &target, &plan).await;
                let figures = figures.map_err(|error| format!("{error:#}"));
                let place = format!("round {round} of {}, {}", plan.rounds, row.title());
                progress(&place, subject.kind, *row, &figures)?;
                outcomes.push(Outcome {
                    row: *row,
                    kind: subject.kind,
                    round,
                    figures,
                });
            }
        }
    }
    let table = table::markdown(&rows, &subjects.columns, &outcomes);
    let mut stdout = io::stdout().lock();
    let (noise, method) = (noise.describe(), method(cli, &plan)?);
    write!(stdout, "{description}- {noise}\n{method}\n{table}")?;
    let must = outcomes
        .iter()
        .filter(|outcome| outcome.kind != Kind::Reference);
    Ok(must.filter(|outcome| outcome.figures.is_err()).count() > 0)
}

/// The subjects in an order that changes by round, so that none always follows the same other.
fn in_turn(subjects: &[Subject], round: u32) -> impl Iterator<Item = &Subject> {
    let first = usize::try_from(round).unwrap_or(0) % subjects.len().max(1);
    let (before, from) = subjects.split_at(first);
    from.iter().chain(before)
}

/// One cell: a subject that is started for it and stopped behind it.
async fn measure(row: Row, subject: &Subject, target: &Target, plan: &Plan) -> Result<Figures> {
    let cell = async {
        let running = subject.start(target.echo).await.context("start")?;
        let figures = row.measure(&Cell::new(&running, target, plan)).await;
        let stopped = running.stop().await;
        let figures = figures?;
        stopped?;
        Ok(figures)
    };
    let limit = plan.warm_up + plan.window + plan.settle * 3 + CELL_SLACK;
    let done = timeout(limit, cell).await;
    done.with_context(|| format!("not done within {limit:?}"))?
}

fn progress(place: &str, kind: Kind, row: Row, figures: &Result<Figures, String>) -> Result<()> {
    let text = match figures {
        Ok(figures) => {
            let pairs = row.metrics().iter().zip(figures);
            let texts = pairs.filter_map(|(metric, value)| {
                let value = figure((*value)?);
                Some(format!("{} {value} {}", metric.what, metric.unit))
            });
            let texts: Vec<String> = texts.collect();
            match texts.len() {
                0 => "has no processes to ask".to_owned(),
                _ => texts.join(", "),
            }
        }
        Err(error) => format!("failed: {error}"),
    };
    writeln!(io::stderr().lock(), "{place}, {}: {text}", kind.name())?;
    Ok(())
}

fn method(cli: &Cli, plan: &Plan) -> Result<String> {
    let Plan {
        rounds,
        warm_up,
        window,
        idle_tunnels,
        settle,
    } = plan;
    let ticks = proc_fs::ticks_per_second()?;
    let warning = if cli.smoke {
        "- SMOKE: far too short for a measurement; it only shows that everything runs\n"
    } else {
        ""
    };
    Ok(format!(
        "{warning}\
         - median [min–max] of {rounds} interleaved rounds; a cell has fresh processes, {warm_up:?} \
         of warm-up and {window:?} of measurement; ↑ more is better, ↓ less is better; a ratio is \
         one of medians\n\
         - load generator and target are a process of one thread each on the same machine; \
         loopback; uploads are counted where they arrive; GB = 10^9 payload bytes; CPU time from \
         /proc/PID/stat in ticks of 1/{ticks} s\n\
         - connect-request-close: the target closes first, the client once it has the answer; \
         latency from connect to answer\n\
         - idle tunnels: {idle_tunnels}, each after one exchange; memory {settle:?} after the \
         start, after opening and after closing\n"
    ))
}
