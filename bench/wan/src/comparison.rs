//! All rows on all subjects with all losses, round by round, and the tables of it.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use towline_bench::machine::Machine;
use towline_bench::noise::Noise;
use towline_bench::rows::Figures;
use towline_bench::stats::figure;
use towline_service::runtime;

use crate::cli::CompareArgs;
use crate::link::Link;
use crate::rows::{Cell, LISTENERS, Plan, Row};
use crate::subject::Subject;
use crate::table::{self, Outcome};
use crate::target::Target;
use crate::wan::{Side, Wan};

/// How long a cell may take beyond its own times: a start, and every deadline inside it once.
const CELL_SLACK: Duration = Duration::from_secs(120);

/// A link that hands packets over later than this was short of CPU time: what is measured over it
/// is not the link.
const PUNCTUAL: Duration = Duration::from_millis(2);

/// One cell.
#[derive(Debug, Clone)]
struct Job {
    link: Link,
    row: Row,
    subject: Arc<Subject>,
    plan: Plan,
}

/// What came of a cell, and how late the link was.
#[derive(Debug)]
struct Done {
    figures: Figures,
    late: Duration,
}

/// Measures and prints the tables; says whether a cell of ours, or without a proxy, failed.
///
/// # Errors
/// When nothing can be measured at all.
pub async fn run(args: &CompareArgs) -> Result<bool> {
    let (plan, rows, subjects) = (args.plan(), args.rows(), args.subjects().await?);
    ensure!(
        !subjects.is_empty(),
        "no subject has one of the names in --subjects"
    );
    // Whoever is not root, or has no ip, hears of it once.
    Wan::up(&args.links(1)[0])?.down()?;
    let (mut outcomes, mut noise, mut late) = (Vec::new(), Noise::default(), Duration::ZERO);
    let before = Machine::read();
    for round in 1..=args.rounds() {
        for link in args.links(round) {
            for row in &rows {
                for subject in in_turn(&subjects, round) {
                    noise.watch().await?;
                    let job = Job {
                        link: link.clone(),
                        row: *row,
                        subject: Arc::clone(subject),
                        plan,
                    };
                    let done = spawn_blocking(move || job.run()).await?;
                    late = late.max(done.as_ref().map_or(Duration::ZERO, |done| done.late));
                    let figures = done.map(|done| done.figures);
                    outcomes.push(Outcome {
                        loss: link.back.loss.share.to_string(),
                        row: *row,
                        subject: subject.name.clone(),
                        round,
                        figures: figures.map_err(|error| format!("{error:#}")),
                    });
                    outcomes.last().map_or(Ok(()), progress)?;
                }
            }
        }
    }
    let notes = format!("- {before}\n- {}\n{}", noise.describe(), punctuality(late));
    let mut stdout = io::stdout().lock();
    write!(stdout, "{notes}{}", method(args, &subjects))?;
    let names: Vec<&str> = subjects.iter().map(|subject| &*subject.name).collect();
    for loss in args.losses() {
        write!(
            stdout,
            "\n{}",
            table::markdown(&loss.to_string(), &rows, &names, &outcomes)
        )?;
    }
    let must = outcomes
        .iter()
        .filter(|outcome| outcome.subject != "reference");
    Ok(must.filter(|outcome| outcome.figures.is_err()).count() > 0)
}

// === impl Job ===

impl Job {
    /// Makes a link, starts the subject at both ends, measures, and removes it all.
    fn run(&self) -> Result<Done> {
        let wan = Wan::up(&self.link)?;
        wan.set_tcp_congestion(self.subject.tcp)?;
        if self.subject.shares_loopback() {
            wan.share_loopback()?;
        }
        let target = Target::start(&wan, &LISTENERS)?;
        let limit = self.plan.warm_up + self.plan.window + self.plan.share_window + CELL_SLACK;
        let figures = wan.namespace(Side::Near).run(|| {
            let shard = runtime::shard()?;
            let figures =
                shard.block_on(async { timeout(limit, self.measure(&wan, &target)).await });
            figures.with_context(|| format!("not done within {limit:?}"))?
        })?;
        let late = wan.counters().map(|counters| counters.late.percentile(99));
        drop(target);
        wan.down()?;
        Ok(Done {
            figures,
            late: late[0].max(late[1]),
        })
    }

    async fn measure(&self, wan: &Wan, target: &Target) -> Result<Figures> {
        let running = self.subject.start(wan, target).await.context("start")?;
        let cell = Cell {
            wan,
            target,
            subject: &self.subject,
            running: &running,
            plan: &self.plan,
        };
        self.row.measure(&cell).await
    }
}

/// The subjects in an order that changes by round, so that none always follows the same other.
fn in_turn(subjects: &[Arc<Subject>], round: u32) -> impl Iterator<Item = &Arc<Subject>> {
    let first = usize::try_from(round).unwrap_or(0) % subjects.len().max(1);
    let (before, from) = subjects.split_at(first);
    from.iter().chain(before)
}

fn progress(outcome: &Outcome) -> Result<()> {
    let text = match &outcome.figures {
        Ok(figures) => {
            let pairs = outcome.row.metrics().iter().zip(figures);
            let texts = pairs.filter_map(|(metric, value)| {
                let value = figure((*value)?);
                Some(format!("{} {value} {}", metric.what, metric.unit))
            });
            texts.collect::<Vec<_>>().join(", ")
        }
        Err(error) => format!("failed: {error}"),
    };
    let Outcome {
        loss,
        row,
        subject,
        round,
        ..
    } = outcome;
    let place = format!("round {round}, loss {loss}, {}, {subject}", row.title());
    writeln!(io::stderr().lock(), "{place}: {text}")?;
    Ok(())
}

fn punctuality(late: Duration) -> String {
    let verdict = if late > PUNCTUAL {
        " — THE LINK WAS SHORT OF CPU TIME: its delays are not those below"
    } else {
        ""
    };
    format!("- in the worst cell the link was late by {late:?} (p99){verdict}\n")
}

fn method(args: &CompareArgs, subjects: &[Arc<Subject>]) -> String {
    let mut link = args.links(1).remove(0);
    link.there.loss.share = crate::units::Share::NONE;
    link.back = link.there;
    let mut text = format!(
        "- median [min–max] of {} interleaved rounds; ↑ more is better, ↓ less is better; a cell \
         has fresh processes and a link of its own\n\
         - link: {link}, and the loss that stands above each table, of IP packets with their \
         headers; in a round all subjects have the same dice\n\
         - client and server are on the near side, agent and target on the far one; downloads go \
         from far to near; Mbit/s of payload\n",
        args.rounds(),
    );
    for subject in subjects {
        text.push_str(&format!("- {}: {}\n", subject.name, subject.description));
    }
    text
}
