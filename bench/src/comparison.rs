//! All rows on all subjects, round by round, and the table of it.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use tokio::time::{Duration, timeout};
use towline_service::build_info;
use towline_service::shutdown::Shutdown;

use crate::cell::{Cell, LOOKS};
use crate::chart::CHARTS;
use crate::cli::{Cli, Plan};
use crate::client::StoodStill;
use crate::machine::Machine;
use crate::method;
use crate::noise::Noise;
use crate::record::Record;
use crate::rows::{Figures, Row};
use crate::stats::figure;
use crate::subject::{Kind, Subject};
use crate::table::{Column, Failure, Outcome};
use crate::target::Target;

/// How long a cell may take beyond its own times: a start, and every deadline inside it once.
const CELL_SLACK: Duration = Duration::from_secs(60);

/// The file with the rounds so far, in the folder of the results, until there are results.
const UNFINISHED: &str = "unfinished.json";

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

    /// What exactly is measured, and who is missing, in a line each.
    ///
    /// # Errors
    /// When a program does not say its version.
    pub async fn describe(&self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for subject in &self.installed {
            let line = subject.describe().await?;
            lines.push(format!("{}: {line}", subject.kind.name()));
        }
        let skipped = self.skipped.iter();
        lines.extend(skipped.map(|line| format!("SKIPPED: {line}")));
        Ok(lines)
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
/// When nothing can be measured at all, or when the run was interrupted: then what there was until
/// then is printed and saved, but no results are replaced by it.
pub async fn run(cli: &Cli, shutdown: &Shutdown) -> Result<bool> {
    let record = match cli.merge.as_slice() {
        [] => record(cli, shutdown).await?,
        files => Record::merged(files)?,
    };
    write!(io::stdout().lock(), "{}", record.markdown())?;
    if let Some(path) = &cli.save {
        record.save(path)?;
    }
    ensure!(!shutdown.token().is_cancelled(), "interrupted");
    if let Some(dir) = &cli.results {
        publish(&record, dir)?;
    }
    let must = record.outcomes.iter();
    let mut must = must.filter(|outcome| outcome.kind.must_work());
    Ok(must.any(|outcome| outcome.figures.is_err()))
}

/// Measures all rounds, or as many cells as there are until the shutdown.
async fn record(cli: &Cli, shutdown: &Shutdown) -> Result<Record> {
    let subjects = Subjects::find(cli)?;
    let machine = Machine::read();
    let rows = cli.rows();
    let mut record = Record {
        machine: machine.name(),
        commit: build_info::COMMIT.to_owned(),
        plan: cli.plan(),
        subjects: subjects.describe().await?,
        method: method::describe(cli.smoke, &cli.plan())?,
        runs: Vec::new(),
        metrics: Record::legend(&rows),
        rows,
        columns: subjects.columns.clone(),
        outcomes: Vec::new(),
    };
    let target = Target::start().await?;
    let mut noise = Noise::default();
    let rounds = async {
        for round in 1..=record.plan.rounds {
            measure_round(
                round,
                &subjects.installed,
                &target,
                (&mut record, &mut noise),
            )
            .await?;
            record.runs = vec![format!("{}; {}", machine.moment(), noise.describe())];
            keep(cli, &record)?;
        }
        anyhow::Ok(())
    };
    let interrupted = tokio::select! {
        done = rounds => done.map(|()| "")?,
        () = shutdown.requested() => "; INTERRUPTED",
    };
    let (moment, noise) = (machine.moment(), noise.describe());
    record.runs = vec![format!("{moment}; {noise}{interrupted}")];
    Ok(record)
}

/// All rows once, each on all subjects.
async fn measure_round(
    round: u32,
    subjects: &[Subject],
    target: &Target,
    (record, noise): (&mut Record, &mut Noise),
) -> Result<()> {
    let plan = record.plan;
    for row in record.rows.clone() {
        for subject in in_turn(subjects, round, row) {
            noise.watch().await?;
            let figures = measure(row, subject, target, &plan).await;
            let figures = figures.map_err(|error| Failure {
                stood_still: error.downcast_ref::<StoodStill>().is_some(),
                why: format!("{error:#}"),
            });
            let place = format!("round {round} of {}, {}", plan.rounds, row.title());
            progress(&place, subject.kind, row, &figures)?;
            record.outcomes.push(Outcome {
                row,
                kind: subject.kind,
                round,
                figures,
            });
        }
    }
    Ok(())
}

/// Saves what there is so far: hours of measuring are not lost with the machine.
fn keep(cli: &Cli, record: &Record) -> Result<()> {
    match (&cli.save, &cli.results) {
        (Some(path), _) => record.save(path),
        (None, Some(dir)) => {
            fs::create_dir_all(dir)?;
            record.save(&dir.join(UNFINISHED))
        }
        (None, None) => Ok(()),
    }
}

/// Writes the table, the figures and the charts to a folder.
fn publish(record: &Record, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    fs::write(dir.join("table.md"), record.markdown())?;
    record.save(&dir.join("figures.json"))?;
    match fs::remove_file(dir.join(UNFINISHED)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    for chart in CHARTS {
        let svg = chart.draw(&record.origin(), &record.columns, &record.outcomes);
        if let Some(svg) = svg {
            fs::write(dir.join(chart.file), svg)?;
        }
    }
    Ok(())
}

/// The subjects in an order of chance that is the same in every run, so that none always follows
/// the same other.
fn in_turn<T>(subjects: &[T], round: u32, row: Row) -> Vec<&T> {
    let place = u32::try_from(row.place().unwrap_or_default()).unwrap_or_default();
    let seed = u64::from(round) << 32 | u64::from(place);
    let mut order: Vec<&T> = subjects.iter().collect();
    fastrand::Rng::with_seed(seed).shuffle(&mut order);
    order
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
    let limit = (plan.warm_up + plan.window) * 2 + plan.settle * LOOKS * 4 + plan.idle + CELL_SLACK;
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn whom_a_subject_follows_changes_from_round_to_round() {
        let subjects: Vec<u32> = (0..10).collect();
        let orders = (1..=3).map(|round| in_turn(&subjects, round, Row::Connect8));
        let orders: Vec<Vec<&u32>> = orders.collect();
        assert_eq!(orders[0], in_turn(&subjects, 1, Row::Connect8));
        let neighbours = |order: &Vec<&u32>| -> Vec<(u32, u32)> {
            order.windows(2).map(|pair| (*pair[0], *pair[1])).collect()
        };
        let different: HashSet<_> = orders.iter().flat_map(neighbours).collect();
        assert!(different.len() > 20, "{orders:?}");
        for order in orders {
            let all: HashSet<_> = order.into_iter().collect();
            assert_eq!(all.len(), subjects.len());
        }
    }
}
