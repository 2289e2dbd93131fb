//! All rows on all subjects with all losses, round by round, and the record of it.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use fastrand::Rng;
use tokio::task::spawn_blocking;
use towline_bench::client::StoodStill;
use towline_bench::machine::Machine;
use towline_bench::noise::Noise;
use towline_bench::rows::Figures;
use towline_bench::series;
use towline_bench::table::Failure;
use towline_service::build_info;
use towline_service::shutdown::Shutdown;

use crate::cli::CompareArgs;
use crate::job::{Done, Job};
use crate::kernel;
use crate::link::Loss;
use crate::record::{Record, Run};
use crate::rows::{Plan, Row};
use crate::subject::Subject;
use crate::table::{Column, Outcome};
use crate::wan::Wan;

/// What is compared, and what cannot be.
struct Field {
    subjects: Vec<Arc<Subject>>,
    rows: Vec<Row>,
    /// Why subjects and rows are left out, in a line each.
    skipped: Vec<String>,
    /// When and where.
    machine: Machine,
}

/// Measures, or puts together what was measured, and prints the tables; says whether a cell of
/// ours, or without a proxy, failed.
///
/// # Errors
/// When nothing can be measured at all, or `shutdown` is requested: what there is by then is
/// printed and saved, but no results are replaced by it.
pub async fn run(args: &CompareArgs, shutdown: &Shutdown) -> Result<bool> {
    let records = match args.merge.as_slice() {
        [] => vec![record(args, shutdown).await?],
        files => Record::merged(files)?,
    };
    let mut stdout = io::stdout().lock();
    for record in &records {
        writeln!(stdout, "{}", record.markdown())?;
    }
    ensure!(!shutdown.token().is_cancelled(), "interrupted");
    args.publish(&records)?;
    Ok(records.iter().any(Record::is_broken))
}

async fn record(args: &CompareArgs, shutdown: &Shutdown) -> Result<Record> {
    let field = Field::look(args).await?;
    let mut record = field.empty_record(args);
    let mut noise = Noise::default();
    // Whoever is not root, or has no ip, hears of it once.
    Wan::up(&args.links(1)[0])?.down()?;
    for round in 1..=args.rounds {
        for job in field.jobs(args, round) {
            noise.watch().await?;
            let outcome = measure(job, round, noise.last(), shutdown).await;
            if shutdown.token().is_cancelled() {
                // What was interrupted is no failure of its own.
                break;
            }
            progress(&outcome)?;
            record.outcomes.push(outcome);
        }
        record.runs = vec![field.describe(args, round, &noise)];
        // An accident in a later round does not take this one's figures.
        args.save(&record)?;
        if shutdown.token().is_cancelled() {
            break;
        }
    }
    Ok(record)
}

// === impl Field ===

impl Field {
    async fn look(args: &CompareArgs) -> Result<Self> {
        let mut found = args.subjects().await?;
        ensure!(
            !found.subjects.is_empty(),
            "nobody can be measured: {}",
            found.skipped.join("; ")
        );
        let mut rows = args.rows();
        rows.retain(|row| {
            let missing = row.beside().filter(|tcp| !kernel::has_congestion(tcp));
            let line = |tcp| format!("{}: the kernel has no {tcp}", row.title());
            found.skipped.extend(missing.map(line));
            missing.is_none()
        });
        Ok(Self {
            subjects: found.subjects.into_iter().map(Arc::new).collect(),
            rows,
            skipped: found.skipped,
            machine: Machine::read(),
        })
    }

    fn empty_record(&self, args: &CompareArgs) -> Record {
        let subjects = self.subjects.iter();
        let columns = subjects.map(|subject| Column {
            name: subject.name.clone(),
            kind: subject.kind(),
            description: subject.description.clone(),
        });
        Record {
            link: args.link().to_string(),
            machine: self.machine.name(),
            commit: build_info::COMMIT.to_owned(),
            runs: Vec::new(),
            metrics: Record::legend(&self.rows),
            losses: args.losses().iter().map(Loss::to_string).collect(),
            rows: self.rows.clone(),
            columns: columns.collect(),
            outcomes: Vec::new(),
        }
    }

    /// The cells of a round. The order of the subjects is thrown anew for each row, so that none
    /// always follows the same other; it is the same whenever the same is measured.
    fn jobs(&self, args: &CompareArgs, round: u32) -> Vec<Job> {
        let mut dice = Rng::with_seed(u64::from(round));
        let mut jobs = Vec::new();
        for link in args.links(round) {
            for row in &self.rows {
                let mut subjects = self.subjects.clone();
                dice.shuffle(&mut subjects);
                jobs.extend(subjects.into_iter().map(|subject| Job {
                    link: link.clone(),
                    row: *row,
                    subject,
                    plan: args.plan(),
                }));
            }
        }
        jobs
    }

    /// What was measured, how and when.
    fn describe(&self, args: &CompareArgs, rounds: u32, noise: &Noise) -> Run {
        let Plan {
            warm_up,
            window,
            share_window,
        } = args.plan();
        let rows: Vec<&str> = self.rows.iter().map(|row| row.title()).collect();
        let rows = rows.join(", ");
        let about = format!(
            "{rows}: {rounds} interleaved rounds with {warm_up:?} of warm-up, {window:?} of rates \
             and latencies, {share_window:?} of shares; {}; {}",
            self.machine.moment(),
            noise.describe()
        );
        Run {
            about,
            skipped: self.skipped.clone(),
        }
    }
}

async fn measure(job: Job, round: u32, others: f64, shutdown: &Shutdown) -> Outcome {
    let mut outcome = Outcome {
        loss: job.link.back.loss.to_string(),
        row: job.row,
        subject: job.subject.name.clone(),
        round,
        others,
        late: 0.0,
        figures: Ok(Figures::new()),
    };
    let shutdown = shutdown.clone();
    let done = spawn_blocking(move || job.run(&shutdown)).await;
    // A panic is a failure of this cell alone.
    let figures = match done.map_err(anyhow::Error::from).flatten() {
        Ok(Done { figures, late }) => {
            outcome.late = milliseconds(late);
            figures
        }
        Err(error) => Err(error),
    };
    outcome.figures = figures.map_err(|error| Failure {
        stood_still: error.downcast_ref::<StoodStill>().is_some(),
        why: format!("{error:#}"),
    });
    outcome
}

fn progress(outcome: &Outcome) -> Result<()> {
    let Outcome {
        loss,
        row,
        subject,
        round,
        figures,
        ..
    } = outcome;
    let text = series::told(row.metrics(), figures);
    let place = format!("round {round}, loss {loss}, {}, {subject}", row.title());
    writeln!(io::stderr().lock(), "{place}: {text}")?;
    Ok(())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
