//! All rows on all subjects, round by round, and the table of it.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use tokio::time::{Duration, timeout};

use crate::cell::Cell;
use crate::chart::CHARTS;
use crate::cli::{Cli, Plan};
use crate::client::{LIMIT, StoodStill};
use crate::machine::Machine;
use crate::noise::Noise;
use crate::proc_fs;
use crate::record::Record;
use crate::rows::{Figures, Row};
use crate::stats::figure;
use crate::subject::{Kind, Subject};
use crate::table::{Column, Failure, Outcome};
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
    /// Why the others are not, in a line each.
    skipped: Vec<String>,
}

// === impl Subjects ===

impl Subjects {
    /// Finds the programs of the subjects that the command line names.
    ///
    /// # Errors
    /// When ours are missing.
    pub fn find(cli: &Cli) -> Result<Self> {
        let mut found = Self {
            columns: Vec::new(),
            installed: Vec::new(),
            skipped: Vec::new(),
        };
        for kind in cli.subjects() {
            let there = found.look_for(kind, cli)?;
            found.columns.push(Column {
                kind,
                installed: there,
            });
        }
        Ok(found)
    }

    /// A list of what exactly is measured, and of who is missing.
    ///
    /// # Errors
    /// When a program does not say its version.
    pub async fn describe(&self) -> Result<String> {
        let mut text = String::new();
        for subject in &self.installed {
            let line = subject.describe().await?;
            text.push_str(&format!("- {}: {line}\n", subject.kind.name()));
        }
        for line in &self.skipped {
            text.push_str(&format!("- SKIPPED: {line}\n"));
        }
        Ok(text)
    }

    fn look_for(&mut self, kind: Kind, cli: &Cli) -> Result<bool> {
        let Some(binaries) = cli.binaries(kind)? else {
            let line = format!("{}: no folder was named", kind.name());
            self.skipped.push(line);
            return Ok(false);
        };
        let mut subject = Subject::new(kind, &binaries)?;
        subject.flags = cli.flags(kind);
        match subject.missing() {
            None => self.installed.push(subject),
            Some(path) if kind.must_work() => {
                bail!("{} is not there: build it first", path.display())
            }
            Some(path) => {
                let file = path.file_name().unwrap_or_default().display();
                let line = format!("{}: {file} is not installed", kind.name());
                self.skipped.push(line);
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Measures, or merges what was measured, and prints the table; says whether a row of ours, or of
/// the direct connection, failed.
///
/// # Errors
/// When nothing can be measured at all.
pub async fn run(cli: &Cli) -> Result<bool> {
    let record = match cli.merge.as_slice() {
        [] => record(cli).await?,
        files => Record::merged(files)?,
    };
    write!(io::stdout().lock(), "{}", record.markdown())?;
    if let Some(path) = &cli.save {
        record.save(path)?;
    }
    if let Some(dir) = &cli.results {
        publish(&record, dir)?;
    }
    let must = record.outcomes.iter();
    let mut must = must.filter(|outcome| outcome.kind.must_work());
    Ok(must.any(|outcome| outcome.figures.is_err()))
}

async fn record(cli: &Cli) -> Result<Record> {
    let (plan, rows) = (cli.plan(), cli.rows());
    let subjects = Subjects::find(cli)?;
    let (machine, description) = (Machine::read().to_string(), subjects.describe().await?);
    let target = Target::start().await?;
    let (mut outcomes, mut noise) = (Vec::new(), Noise::default());
    for round in 1..=plan.rounds {
        for row in &rows {
            for subject in in_turn(&subjects.installed, round) {
                noise.watch().await?;
                let figures = measure(*row, subject, &target, &plan).await;
                let figures = figures.map_err(|error| Failure {
                    stood_still: error.downcast_ref::<StoodStill>().is_some(),
                    why: format!("{error:#}"),
                });
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
    let (noise, method) = (noise.describe(), method(cli, &plan)?);
    Ok(Record {
        description: vec![format!("- {machine}\n{description}- {noise}\n{method}")],
        machine,
        metrics: Record::legend(&rows),
        rows,
        columns: subjects.columns,
        outcomes,
    })
}

/// Writes the table, the figures and the charts to a folder.
fn publish(record: &Record, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    fs::write(dir.join("table.md"), record.markdown())?;
    record.save(&dir.join("figures.json"))?;
    for chart in CHARTS {
        let svg = chart.draw(&record.machine, &record.columns, &record.outcomes);
        if let Some(svg) = svg {
            fs::write(dir.join(chart.file), svg)?;
        }
    }
    Ok(())
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
        let running = subject.start(target.at).await.context("start")?;
        let figures = row.measure(&Cell::new(&running, target, plan)).await;
        let stopped = running.stop().await;
        let figures = figures?;
        stopped?;
        Ok(figures)
    };
    let limit = (plan.warm_up + plan.window) * 2 + plan.settle * 4 + plan.idle + CELL_SLACK;
    let done = timeout(limit, cell).await;
    done.with_context(|| StoodStill(format!("not done within {limit:?}")))?
}

fn progress(place: &str, kind: Kind, row: Row, figures: &Result<Figures, Failure>) -> Result<()> {
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
        Err(failure) => format!("{}: {}", failure.word(), failure.why),
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
        busy_tunnels,
        idle,
        settle,
        agents: _,
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
         one of medians, of the rounds that both have\n\
         - load generator and target are a process of one thread each on the same machine; \
         loopback; uploads are counted where they arrive; GB = 10^9 payload bytes; CPU time from \
         /proc/PID/stat in ticks of 1/{ticks} s\n\
         - connect-request-close: the target closes first, the client once it has the answer; \
         latency from connect to answer\n\
         - idle tunnels: {idle_tunnels}, each after one exchange; memory {settle:?} after the \
         start, after opening and after closing; busy tunnels: {busy_tunnels} downloads\n\
         - idle sessions: all agents in one process, idle CPU over {idle:?}; a wake-up is a \
         voluntary context switch, of all threads; a small tunnel beside others: the same session\n\
         - stood still: what was waited for did not come within {LIMIT:?}\n"
    ))
}
