//! One cell: a row measured once on one subject, over a link that is made for it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::timeout;
use towline_bench::rows::Figures;
use towline_service::runtime;
use towline_service::shutdown::Shutdown;

use crate::link::Link;
use crate::rows::{Cell, Plan, Row};
use crate::subject::Subject;
use crate::target::Target;
use crate::wan::{Side, Wan};

/// How long a cell may take beyond its own times: a start, and every deadline inside it once.
const CELL_SLACK: Duration = Duration::from_secs(120);

/// What to measure.
#[derive(Debug, Clone)]
pub struct Job {
    /// Over which link.
    pub link: Link,
    /// What.
    pub row: Row,
    /// On whom.
    pub subject: Arc<Subject>,
    /// How long.
    pub plan: Plan,
}

/// What came of it.
#[derive(Debug)]
pub struct Done {
    /// The figures, or why there are none.
    pub figures: Result<Figures>,
    /// How late the link was, p99 of its worse way.
    pub late: Duration,
}

// === impl Job ===

impl Job {
    /// Makes a link, starts the subject at both ends, measures, and removes it all; sooner when
    /// `shutdown` is requested.
    ///
    /// # Errors
    /// When the link cannot be made, or broke: that explains whatever else went wrong.
    pub fn run(&self, shutdown: &Shutdown) -> Result<Done> {
        let wan = Wan::up(&self.link)?;
        let figures = self.measure_on(&wan, shutdown);
        let [there, back] = wan.counters().map(|counters| counters.late.percentile(99));
        wan.down().context("the link broke")?;
        Ok(Done {
            figures,
            late: there.max(back),
        })
    }

    fn measure_on(&self, wan: &Wan, shutdown: &Shutdown) -> Result<Figures> {
        wan.set_tcp_congestion(self.subject.tcp)?;
        wan.share_loopback()?;
        let target = Target::start(wan, self.row.beside())?;
        let limit = self.plan.warm_up + self.plan.window + self.plan.share_window + CELL_SLACK;
        wan.namespace(Side::Near).run(|| {
            runtime::shard()?.block_on(async {
                tokio::select! {
                    done = timeout(limit, self.measure(wan, &target)) => {
                        done.with_context(|| format!("not done within {limit:?}"))?
                    }
                    () = shutdown.requested() => bail!("interrupted"),
                }
            })
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
        let figures = self.row.measure(&cell).await;
        let stopped = running.stop().await;
        let figures = figures?;
        stopped?;
        Ok(figures)
    }
}
