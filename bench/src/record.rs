//! What was measured at one place, as it is kept: a file with which others can be merged.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::outcome::Outcome;
use crate::rows::Row;
use crate::subject::peers::Peer;
use crate::table::{Column, Table};

/// The place of a record that was measured on loopback.
pub const LOOPBACK: &str = "loopback";

/// The file with the rounds so far, in the folder of the results, until there are results.
pub const UNFINISHED: &str = "unfinished.json";

/// One run at a place, or several with different rows or losses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`LOOPBACK`], or what the link is like but for its losses.
    pub place: String,
    /// On which machine, in one line.
    pub machine: String,
    /// The commit that the bench was built from; programs say theirs in `columns`.
    pub commit: String,
    /// How the figures are to be read, in a line for each thing to know.
    pub method: Vec<String>,
    /// Rounds whose cells are interleaved.
    pub runs: Vec<Run>,
    /// What the figures of each row are, in their order; for readers of the file.
    pub metrics: BTreeMap<String, Vec<String>>,
    /// The subjects, in the table's order.
    pub columns: Vec<Column>,
    /// Every cell of every round.
    pub outcomes: Vec<Outcome>,
}

/// Rounds whose cells are interleaved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// What was measured, how much, when, and how quiet the machine was: one line.
    pub about: String,
    /// Why subjects and rows were left out, in a line each.
    pub skipped: Vec<String>,
}

// === impl Record ===

impl Record {
    /// Reads records that were saved and puts those of the same place together.
    pub fn merged(paths: &[impl AsRef<Path>]) -> Result<Vec<Self>> {
        let mut all: Vec<Self> = Vec::new();
        for path in paths.iter().map(AsRef::as_ref) {
            let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
            let next: Self = serde_json::from_slice(&text)
                .with_context(|| format!("{} is no record", path.display()))?;
            match all.iter_mut().find(|one| one.place == next.place) {
                Some(same) => same.merge(next)?,
                None => all.push(next),
            }
        }
        Ok(all)
    }

    /// Writes it to a file, which never holds half of it.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        let new = path.with_extension("new");
        fs::write(&new, text).with_context(|| format!("write {}", new.display()))?;
        fs::rename(&new, path).with_context(|| format!("write {}", path.display()))
    }

    /// Writes the tables and the figures to a folder; those of a link are named after it.
    pub fn publish(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir)?;
        let (table, figures) = match self.stem() {
            Some(stem) => (format!("{stem}.md"), format!("{stem}.json")),
            None => ("table.md".to_owned(), "figures.json".to_owned()),
        };
        fs::write(dir.join(table), self.markdown())?;
        self.save(&dir.join(figures))?;
        match fs::remove_file(dir.join(UNFINISHED)) {
            Err(error) if error.kind() != ErrorKind::NotFound => bail!(error),
            _ => {}
        }
        Ok(())
    }

    /// All of it as Markdown.
    pub fn markdown(&self) -> String {
        let mut lines = match self.place.as_str() {
            LOOPBACK => vec![self.origin()],
            link => vec![
                format!("link: {link}; the loss stands above each table"),
                self.origin(),
            ],
        };
        lines.extend(self.method.iter().cloned());
        for Run { about, skipped } in &self.runs {
            lines.push(about.clone());
            lines.extend(skipped.iter().map(|line| format!("SKIPPED: {line}")));
        }
        let columns = self.columns.iter();
        lines.extend(columns.map(|one| format!("{}: {}", one.name, one.description)));
        let tables = self.tables();
        let tables: Vec<String> = tables.iter().map(Table::markdown).collect();
        format!("- {}\n\n{}", lines.join("\n- "), tables.join("\n"))
    }

    /// Whether a cell of Towline, or of a direct connection, failed.
    pub fn is_broken(&self) -> bool {
        let must_work = |column: &Column| {
            let mut peers = Peer::all().iter().filter(|peer| peer.name == column.peer);
            peers.any(Peer::must_work)
        };
        let mut failed = self.outcomes.iter().filter(|one| one.figures.is_err());
        failed.any(|one| {
            let mut columns = self
                .columns
                .iter()
                .filter(|column| column.name == one.subject);
            columns.any(must_work)
        })
    }

    /// What the figures of rows are, for [`Record::metrics`].
    pub fn legend(rows: &[&Row]) -> BTreeMap<String, Vec<String>> {
        let metrics = rows.iter().map(|row| {
            let metrics = row.metrics().iter();
            let texts = metrics.map(|metric| format!("{}, {}", metric.what, metric.unit));
            (row.title.to_owned(), texts.collect())
        });
        metrics.collect()
    }

    /// Where the figures come from, in one line.
    fn origin(&self) -> String {
        format!("{}; bench at commit {}", self.machine, self.commit)
    }

    /// What the files of a link are called.
    fn stem(&self) -> Option<String> {
        if self.place == LOOPBACK {
            return None;
        }
        let link = self.place.replace(" each way", "").replace("/s", "");
        let words = link.split(|letter: char| !letter.is_ascii_alphanumeric());
        let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
        Some(format!("wan-{}", words.join("-").to_ascii_lowercase()))
    }

    /// A table for each loss.
    fn tables(&self) -> Vec<Table<'_>> {
        let losses = self.outcomes.iter().map(|one| one.loss.as_deref());
        let losses: BTreeSet<Option<&str>> = losses.collect();
        let table = |loss| Table {
            loss,
            columns: &self.columns,
            outcomes: &self.outcomes,
        };
        losses.into_iter().map(table).collect()
    }

    fn merge(&mut self, next: Self) -> Result<()> {
        let place = &self.place;
        for (what, same) in [
            ("machine", self.machine == next.machine),
            ("commit", self.commit == next.commit),
            ("method", self.method == next.method),
        ] {
            ensure!(same, "the runs at {place} have not the same {what}");
        }
        let cells = |record: &Self| -> BTreeSet<(String, Option<String>)> {
            let cells = record.outcomes.iter();
            cells
                .map(|one| (one.row.clone(), one.loss.clone()))
                .collect()
        };
        if let Some((row, loss)) = cells(self).intersection(&cells(&next)).next() {
            let loss = loss.as_deref().unwrap_or("none");
            bail!("two runs at {place} have the row {row}, loss {loss}");
        }
        for column in next.columns {
            match self.columns.iter().find(|one| one.name == column.name) {
                Some(one) => ensure!(*one == column, "{} is not the same in two runs", one.name),
                None => self.columns.push(column),
            }
        }
        self.columns
            .sort_by_key(|column| Peer::position(&column.peer));
        self.runs.extend(next.runs);
        self.metrics.extend(next.metrics);
        self.outcomes.extend(next.outcomes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Failure;

    const LINK: &str = "20ms each way, 200Mbit/s, queue 60ms";
    const OURS: [&str; 2] = ["towline", "towline"];
    const THEIRS: [&str; 2] = ["frp-tls+bbr", "frp-tls"];

    fn record(place: &str, loss: Option<&str>, row: &str, [name, peer]: [&str; 2]) -> Record {
        let row = Row::find(row).unwrap();
        Record {
            place: place.to_owned(),
            machine: "a machine".to_owned(),
            commit: "4f2c1aa".to_owned(),
            method: vec!["a method".to_owned()],
            runs: vec![Run {
                about: format!("{}, then", row.title),
                skipped: vec!["chisel: not installed".to_owned()],
            }],
            metrics: Record::legend(&[row]),
            columns: vec![Column {
                name: name.to_owned(),
                peer: peer.to_owned(),
                description: "about it".to_owned(),
            }],
            outcomes: vec![Outcome {
                loss: loss.map(str::to_owned),
                row: row.name.to_owned(),
                subject: name.to_owned(),
                round: 1,
                others: 0.0,
                late: 0.1,
                figures: Ok(vec![Some(7.5); row.metrics().len()]),
            }],
        }
    }

    fn merge(records: &[&Record]) -> Result<Vec<Record>> {
        let dir = tempfile::tempdir()?;
        let paths = records.iter().enumerate().map(|(index, record)| {
            let path = dir.path().join(index.to_string());
            record.save(&path)?;
            Ok(path)
        });
        Record::merged(&paths.collect::<Result<Vec<_>>>()?)
    }

    #[test]
    fn what_was_saved_is_read_and_put_together_by_place() {
        let bulk = record(LINK, Some("1%"), "bulk-2", THEIRS);
        let loopback = record(LOOPBACK, None, "memory", OURS);
        let download = record(LINK, Some("1%"), "download", OURS);
        let other_loss = record(LINK, Some("0.1%"), "bulk-2", OURS);
        let all = merge(&[&bulk, &loopback, &download, &other_loss]).unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!(all[1], loopback);
        let names: Vec<&str> = all[0].columns.iter().map(|one| &*one.name).collect();
        assert_eq!(names, ["towline", "frp-tls+bbr"]);
        let text = all[0].markdown();
        assert!(text.starts_with(&format!("- link: {LINK}; ")), "{text}");
        assert!(
            text.contains("| 2 downloads: rate ↑ | Mbit/s | – | 7.50 | – |"),
            "{text}"
        );
        let above = "- a machine; bench at commit 4f2c1aa\n- a method\n- idle tunnels, then\n\
                     - SKIPPED: chisel: not installed\n- towline: about it\n\n| row";
        assert!(all[1].markdown().starts_with(above), "{text}");
    }

    #[test]
    fn only_runs_of_the_same_things_are_put_together() {
        let one = record(LINK, Some("1%"), "bulk-2", OURS);
        let refused = merge(&[&one, &one]).unwrap_err().to_string();
        assert!(
            refused.contains("have the row bulk-2, loss 1%"),
            "{refused}"
        );
        let changes: [fn(&mut Record); 4] = [
            |record| record.machine.push('x'),
            |record| record.commit.push('x'),
            |record| record.method[0].push('x'),
            |record| record.columns[0].description.push('x'),
        ];
        for change in changes {
            let mut other = record(LINK, Some("1%"), "download", OURS);
            assert!(merge(&[&one, &other]).is_ok());
            change(&mut other);
            assert!(merge(&[&one, &other]).is_err(), "{other:?}");
        }
    }

    #[test]
    fn a_folder_gets_tables_and_figures() {
        let files = |record: &Record| {
            let dir = tempfile::tempdir().unwrap();
            record.publish(dir.path()).unwrap();
            let entries = fs::read_dir(dir.path()).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.collect::<BTreeSet<String>>()
        };
        let link = record(LINK, Some("1%"), "bulk-2", OURS);
        let stem = "wan-20ms-200mbit-queue-60ms";
        let expected = [".json", ".md"].map(|end| format!("{stem}{end}"));
        assert_eq!(files(&link), expected.into());
        let loopback = record(LOOPBACK, None, "memory", OURS);
        let expected = ["figures.json", "table.md"];
        assert_eq!(files(&loopback), expected.map(str::to_owned).into());
    }

    #[test]
    fn a_peer_may_fail_and_towline_may_not() {
        for (subject, broken) in [(OURS, true), (THEIRS, false)] {
            let mut one = record(LINK, Some("1%"), "bulk-2", subject);
            assert!(!one.is_broken());
            one.outcomes[0].figures = Err(Failure {
                timed_out: true,
                why: "no answer".to_owned(),
            });
            assert_eq!(one.is_broken(), broken);
        }
    }
}
