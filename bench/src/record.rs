//! What a run has measured, as it is kept: a file that another run can be merged with.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::rows::Row;
use crate::table::{self, Column, Outcome};

/// One run, or several with different rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// One line: when and on which machine; of the first run, when there were several.
    pub machine: String,
    /// What exactly was measured and how, as lines of Markdown, for each run.
    pub description: Vec<String>,
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
    /// When two have a row, or not the same subjects: rounds of different runs are not interleaved,
    /// and no ratio may be taken between them.
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
        let table = table::markdown(&self.rows, &self.columns, &self.outcomes);
        format!("{}\n{table}", self.description.join("\n"))
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
        ensure!(
            self.columns == next.columns,
            "the runs have not the same subjects"
        );
        self.description.extend(next.description);
        self.metrics.extend(next.metrics);
        self.rows.extend(next.rows);
        self.outcomes.extend(next.outcomes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::Kind;

    fn record(row: Row, value: f64) -> Record {
        Record {
            machine: "2026-01-31, a machine".to_owned(),
            description: vec![format!("- {}", row.title())],
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
        assert_eq!(
            Record::merged(&[&two]).unwrap(),
            record(Row::BulkDown1, 0.1)
        );
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
