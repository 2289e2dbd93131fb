//! What a run has measured, as it is kept: a file that another run can be merged with.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::cli::Plan;
use crate::rows::Row;
use crate::table::{self, Column, Outcome};

/// One run, or several with different rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// On which machine, in one line.
    pub machine: String,
    /// The commit that the bench was built from; programs say theirs in `subjects`.
    pub commit: String,
    /// How much was measured.
    pub plan: Plan,
    /// What exactly was measured, in a line for each subject.
    pub subjects: Vec<String>,
    /// How, in a line for each thing to know.
    pub method: Vec<String>,
    /// When each run was and how quiet the machine, in a line for each.
    pub runs: Vec<String>,
    /// What the figures of each row are, in their order; for readers of the file.
    pub metrics: BTreeMap<String, Vec<String>>,
    /// The rows, in the table's order.
    pub rows: Vec<Row>,
    /// The subjects, in the table's order.
    pub columns: Vec<Column>,
    /// Every cell of every round.
    pub outcomes: Vec<Outcome>,
}

// === impl Record ===

impl Record {
    /// Reads records that were saved and puts their rows together.
    ///
    /// # Errors
    /// When two have a row, as rounds of different runs are not interleaved and no ratio may be
    /// taken between them; and when anything else but the runs is not the same in both.
    pub fn merged(paths: &[impl AsRef<Path>]) -> Result<Self> {
        let records = paths.iter().map(|path| Self::load(path.as_ref()));
        let mut records = records.collect::<Result<Vec<_>>>()?.into_iter();
        let mut all = records.next().context("no file to merge")?;
        for next in records {
            all.merge(next)?;
        }
        all.rows.sort_by_key(|row| row.place());
        Ok(all)
    }

    /// Writes it to a file.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))
    }

    /// All of it as Markdown.
    pub fn markdown(&self) -> String {
        let Self {
            machine, commit, ..
        } = self;
        let mut lines = vec![format!("{machine}; bench at commit {commit}")];
        for part in [&self.subjects, &self.method, &self.runs] {
            lines.extend_from_slice(part);
        }
        let table = table::markdown(&self.rows, &self.columns, &self.outcomes);
        format!("- {}\n\n{table}", lines.join("\n- "))
    }

    /// Where the figures come from, in one line, for charts.
    pub fn origin(&self) -> String {
        let dates = self.runs.iter().filter_map(|run| run.split(',').next());
        let dates: BTreeSet<&str> = dates.collect();
        let dates: Vec<&str> = dates.into_iter().collect();
        let Self {
            machine, commit, ..
        } = self;
        format!("{}, {machine}, commit {commit}", dates.join(" and "))
    }

    /// What is told about the figures of a row, for [`Record::metrics`].
    pub fn legend(rows: &[Row]) -> BTreeMap<String, Vec<String>> {
        let metrics = |row: &Row| {
            let metrics = row.metrics().iter();
            let texts = metrics.map(|metric| format!("{}, {}", metric.what, metric.unit));
            (row.title().to_owned(), texts.collect())
        };
        rows.iter().map(metrics).collect()
    }

    fn load(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("understand {}", path.display()))
    }

    fn merge(&mut self, next: Self) -> Result<()> {
        let twice = next.rows.iter().find(|row| self.rows.contains(row));
        ensure!(twice.is_none(), "two runs have the row {twice:?}");
        for (what, same) in [
            ("machine", self.machine == next.machine),
            ("commit", self.commit == next.commit),
            ("plan", self.plan == next.plan),
            ("subjects", self.subjects == next.subjects),
            ("columns", self.columns == next.columns),
            ("method", self.method == next.method),
        ] {
            ensure!(same, "the runs have not the same {what}");
        }
        self.runs.extend(next.runs);
        self.metrics.extend(next.metrics);
        self.rows.extend(next.rows);
        self.outcomes.extend(next.outcomes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;
    use crate::subject::Kind;

    fn record(row: Row, value: f64) -> Record {
        Record {
            machine: "a machine".to_owned(),
            commit: "4f2c1aa".to_owned(),
            plan: Cli::try_parse_from(["towline-bench"]).unwrap().plan(),
            subjects: vec!["rathole: a build".to_owned()],
            method: vec!["a method".to_owned()],
            runs: vec![format!("2026-01-31, {}", row.title())],
            metrics: Record::legend(&[row]),
            rows: vec![row],
            columns: vec![Column {
                kind: Kind::RatholePlain,
                installed: true,
            }],
            outcomes: vec![Outcome {
                row,
                kind: Kind::RatholePlain,
                round: 1,
                figures: Ok(vec![Some(value), None]),
            }],
        }
    }

    #[test]
    fn what_was_saved_is_read_and_put_together_in_the_tables_order() {
        let dir = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| dir.path().join(name));
        record(Row::Memory, 1.0).save(&one).unwrap();
        record(Row::BulkDown1, 0.1).save(&two).unwrap();
        let all = Record::merged(&[&one, &two]).unwrap();
        assert_eq!(all.rows, [Row::BulkDown1, Row::Memory]);
        assert_eq!(all.outcomes.len(), 2);
        let text = all.markdown();
        assert!(
            text.contains("| bulk down, 1 stream: rate ↑ | Gbit/s | 0.10 |"),
            "{text}"
        );
        let above = "- a machine; bench at commit 4f2c1aa\n- rathole: a build\n- a method\n\
                     - 2026-01-31, idle tunnels\n- 2026-01-31, bulk down, 1 stream\n\n| row";
        assert!(text.starts_with(above), "{text}");
        assert_eq!(all.origin(), "2026-01-31, a machine, commit 4f2c1aa");
        assert_eq!(
            Record::merged(&[&two]).unwrap(),
            record(Row::BulkDown1, 0.1)
        );
    }

    #[test]
    fn only_runs_of_the_same_things_are_put_together() {
        let dir = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| dir.path().join(name));
        record(Row::Memory, 1.0).save(&one).unwrap();
        let names = ["machine", "commit", "plan", "subjects", "columns", "method"];
        let changes: [fn(&mut Record); 6] = [
            |record| record.machine.push('x'),
            |record| record.commit.push('x'),
            |record| record.plan.agents += 1,
            |record| record.subjects[0].push('x'),
            |record| record.columns[0].installed = false,
            |record| record.method[0].push('x'),
        ];
        for (what, change) in names.into_iter().zip(changes) {
            let mut other = record(Row::BulkDown1, 1.0);
            change(&mut other);
            other.save(&two).unwrap();
            let refused = Record::merged(&[&one, &two]).unwrap_err().to_string();
            assert_eq!(refused, format!("the runs have not the same {what}"));
        }
    }

    #[test]
    fn a_row_is_from_one_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("one");
        record(Row::Memory, 1.0).save(&path).unwrap();
        assert!(Record::merged(&[&path, &path]).is_err());
        assert!(Record::merged(&[dir.path().join("none")]).is_err());
    }
}
