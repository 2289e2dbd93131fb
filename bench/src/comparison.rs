//! All rows on all subjects at a place, round by round, and the record of it.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use towline_service::build_info;
use towline_service::runtime;
use towline_service::shutdown::Shutdown;

use crate::cell::{Cell, Plan};
use crate::cli::Cli;
use crate::client::TimedOut;
use crate::link::Link;
use crate::link::network::{Network, Side, has_congestion};
use crate::machine::{self, Noise};
use crate::method;
use crate::outcome::{Failure, Outcome};
use crate::place::{Place, Stage};
use crate::record::{LOOPBACK, Record, Run, UNFINISHED};
use crate::rows::{Figures, ROWS, Row};
use crate::subject::Subject;
use crate::table::Column;
use crate::target::Target;

/// How long a cell may take beyond its own times: its starts, and every deadline inside it.
const CELL_SLACK: Duration = Duration::from_secs(120);

/// One cell: a row, measured once on one subject at a place that is made for it.
#[derive(Debug, Clone)]
struct Job {
    place: Place,
    /// The link's loss, as text; none on loopback.
    loss: Option<String>,
    row: &'static Row,
    subject: Arc<Subject>,
    plan: Plan,
}

/// What is measured, and what cannot be.
struct Field {
    subjects: Vec<Arc<Subject>>,
    rows: Vec<&'static Row>,
    /// Why subjects and rows are left out, in a line each.
    skipped: Vec<String>,
    /// When it began.
    moment: String,
}

/// Measures, or merges what was measured, and prints the tables; returns whether a cell of
/// Towline, or of a direct connection, failed.
pub async fn run(cli: &Cli, shutdown: &Shutdown) -> Result<bool> {
    let records = match cli.merge.as_slice() {
        [] => vec![record(cli, shutdown).await?],
        files => Record::merged(files)?,
    };
    for record in &records {
        writeln!(io::stdout().lock(), "{}", record.markdown())?;
    }
    match (&cli.save, records.as_slice()) {
        (Some(path), [one]) => one.save(path)?,
        (Some(_), _) => bail!("--save takes the record of one place, --results those of several"),
        (None, _) => {}
    }
    ensure!(!shutdown.token().is_cancelled(), "interrupted");
    if let Some(dir) = &cli.results {
        records.iter().try_for_each(|record| record.publish(dir))?;
    }
    Ok(records.iter().any(Record::is_broken))
}

/// Measures all rounds, or as many cells as there are until the shutdown.
pub async fn record(cli: &Cli, shutdown: &Shutdown) -> Result<Record> {
    let field = Field::look(cli).await?;
    let (place, plan) = (cli.place(), cli.plan());
    let columns = field.subjects.iter().map(|subject| Column {
        name: subject.name.clone(),
        peer: subject.peer.name.clone(),
        description: subject.description.clone(),
    });
    let mut record = Record {
        place: match &place {
            Place::Loopback => LOOPBACK.to_owned(),
            Place::Link(link) => link.to_string(),
        },
        machine: machine::name(),
        commit: build_info::COMMIT.to_owned(),
        method: method::describe(cli.smoke, &place, &plan),
        runs: Vec::new(),
        metrics: Record::legend(&field.rows),
        columns: columns.collect(),
        outcomes: Vec::new(),
    };
    let mut noise = Noise::default();
    for round in 1..=plan.rounds {
        for job in field.jobs(cli, round) {
            let others = noise.watch().await?;
            let outcome = job.outcome(round, others, shutdown).await;
            if shutdown.token().is_cancelled() {
                // The interrupted cell is no failure.
                break;
            }
            let cell = format!("round {round} of {}, {}", plan.rounds, job.title());
            let result = outcome.summary(job.row.metrics());
            writeln!(io::stderr().lock(), "{cell}: {result}")?;
            record.outcomes.push(outcome);
        }
        let mut run = field.describe(round, &plan, &noise);
        let interrupted = shutdown.token().is_cancelled();
        if interrupted {
            run.about += "; INTERRUPTED";
        }
        record.runs = vec![run];
        keep(cli, &record)?;
        if interrupted {
            break;
        }
    }
    Ok(record)
}

/// Saves what there is so far: hours of measuring are not lost with the machine.
fn keep(cli: &Cli, record: &Record) -> Result<()> {
    match (&cli.save, &cli.results) {
        (Some(path), _) => record.save(path),
        (None, Some(dir)) => {
            std::fs::create_dir_all(dir)?;
            record.save(&dir.join(UNFINISHED))
        }
        (None, None) => Ok(()),
    }
}

// === impl Field ===

impl Field {
    async fn look(cli: &Cli) -> Result<Self> {
        let mut found = cli.subjects().await?;
        let skipped = found.skipped.join("; ");
        ensure!(
            !found.subjects.is_empty(),
            "no subject can be measured: {skipped}"
        );
        let mut rows = cli.rows();
        rows.retain(|row| {
            let missing = row.beside_tcp().filter(|tcp| !has_congestion(tcp));
            let line = |tcp| format!("{}: the kernel has no {tcp}", row.title);
            found.skipped.extend(missing.map(line));
            missing.is_none()
        });
        if let Place::Link(link) = cli.place() {
            // A missing right or program is reported once, not in each cell.
            Network::up(&link)?.down()?;
        }
        Ok(Self {
            subjects: found.subjects.into_iter().map(Arc::new).collect(),
            rows,
            skipped: found.skipped,
            moment: machine::moment(),
        })
    }

    /// The cells of a round. The order of the subjects is drawn anew for each row, so that none
    /// always follows the same other; it is the same in every run.
    fn jobs(&self, cli: &Cli, round: u32) -> Vec<Job> {
        let mut jobs = Vec::new();
        for (place, loss) in cli.places(round) {
            for row in &self.rows {
                let subjects = in_turn(&self.subjects, round, row);
                jobs.extend(subjects.into_iter().map(|subject| Job {
                    place: place.clone(),
                    loss: loss.clone(),
                    row,
                    subject: Arc::clone(subject),
                    plan: cli.plan(),
                }));
            }
        }
        jobs
    }

    /// What was measured, how much and when.
    fn describe(&self, rounds: u32, plan: &Plan, noise: &Noise) -> Run {
        let Plan {
            warm_up,
            window,
            share_window,
            ..
        } = plan;
        let rows: Vec<&str> = self.rows.iter().map(|row| row.name).collect();
        let about = format!(
            "{}: {rounds} interleaved rounds with {warm_up:?} of warm-up, {window:?} of rates and \
             latencies, {share_window:?} of shares; {}; {}",
            rows.join(", "),
            self.moment,
            noise.describe()
        );
        Run {
            about,
            skipped: self.skipped.clone(),
        }
    }
}

/// A random order that depends on the round and the row alone.
fn in_turn<'a, T>(subjects: &'a [T], round: u32, row: &Row) -> Vec<&'a T> {
    let place = ROWS.iter().position(|one| one == row).unwrap_or_default();
    let seed = u64::from(round) << 32 | u64::try_from(place).unwrap_or_default();
    let mut order: Vec<&T> = subjects.iter().collect();
    fastrand::Rng::with_seed(seed).shuffle(&mut order);
    order
}

// === impl Job ===

impl Job {
    fn title(&self) -> String {
        let loss = self.loss.as_ref().map(|loss| format!("loss {loss}, "));
        let (row, subject) = (self.row.title, &self.subject.name);
        format!("{}{row}, {subject}", loss.unwrap_or_default())
    }

    async fn outcome(&self, round: u32, others: f64, shutdown: &Shutdown) -> Outcome {
        let (figures, late) = match &self.place {
            Place::Loopback => tokio::select! {
                figures = self.measure_within(&Stage::Loopback) => (figures, Duration::ZERO),
                () = shutdown.requested() => (Err(anyhow::anyhow!("interrupted")), Duration::ZERO),
            },
            Place::Link(link) => self
                .over_link(link, shutdown)
                .await
                .unwrap_or_else(|error| (Err(error), Duration::ZERO)),
        };
        Outcome {
            loss: self.loss.clone(),
            row: self.row.name.to_owned(),
            subject: self.subject.name.clone(),
            round,
            others,
            late: late.as_secs_f64() * 1e3,
            figures: figures.map_err(|error| Failure {
                timed_out: error.is::<TimedOut>(),
                why: format!("{error:#}"),
            }),
        }
    }

    /// Makes a link, measures on a thread in its near namespace, and removes it: the result, and
    /// how late the link was, p99 of its worse direction.
    async fn over_link(
        &self,
        link: &Link,
        shutdown: &Shutdown,
    ) -> Result<(Result<Figures>, Duration)> {
        let (job, link, shutdown) = (self.clone(), link.clone(), shutdown.clone());
        let measured = spawn_blocking(move || {
            let network = Network::up(&link)?;
            network.set_tcp_congestion(job.subject.tcp)?;
            network.share_loopback()?;
            let figures = network.namespace(Side::Near).run(|| {
                let stage = Stage::Link(&network);
                runtime::shard()?.block_on(async {
                    tokio::select! {
                        figures = job.measure_within(&stage) => figures,
                        () = shutdown.requested() => bail!("interrupted"),
                    }
                })
            });
            let [there, back] = network.counters().map(|counters| counters.late());
            network.down().context("the link broke")?;
            Ok((figures, there.max(back)))
        });
        // A panic is a failure of this cell alone.
        measured.await?
    }

    async fn measure_within(&self, stage: &Stage<'_>) -> Result<Figures> {
        let limit = self.plan.limit() + CELL_SLACK;
        let done = timeout(limit, self.measure(stage)).await;
        done.with_context(|| TimedOut(format!("not done within {limit:?}")))?
    }

    /// Starts target and subject, measures, and stops them.
    async fn measure(&self, stage: &Stage<'_>) -> Result<Figures> {
        let target = Target::start(stage, self.row.beside_tcp()).await?;
        let running = self
            .subject
            .start(stage, target.at)
            .await
            .context("start")?;
        let cell = Cell {
            stage,
            target: &target,
            subject: &self.subject,
            running: &running,
            plan: &self.plan,
        };
        let figures = self.row.measure(&cell).await;
        let stopped = running.stop().await;
        let figures = figures?;
        stopped?;
        Ok(figures)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_order_of_subjects_changes_from_round_to_round() {
        let subjects: Vec<u32> = (0..10).collect();
        let orders = (1..=3).map(|round| in_turn(&subjects, round, &ROWS[0]));
        let orders: Vec<Vec<&u32>> = orders.collect();
        assert_eq!(orders[0], in_turn(&subjects, 1, &ROWS[0]));
        let pairs = |order: &Vec<&u32>| {
            let pairs = order.windows(2).map(|pair| (*pair[0], *pair[1]));
            pairs.collect::<Vec<(u32, u32)>>()
        };
        let different: HashSet<_> = orders.iter().flat_map(pairs).collect();
        assert!(different.len() > 20, "{orders:?}");
    }
}
