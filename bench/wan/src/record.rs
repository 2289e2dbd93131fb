//! What was measured over one link, as it is kept: a file that other runs can be merged with.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use towline_bench::chart::{self, Bar, Group};

use crate::rows::Row;
use crate::table::{Column, Outcome, Table};

/// How the figures are to be read.
const METHOD: [&str; 5] = [
    "median [min–max]; ↑ more is better, ↓ less is better; a ratio is one of medians, of rounds \
     that both have",
    "a cell has fresh processes and a link of its own; in a round all subjects have the same dice, \
     and their order is thrown anew for each row",
    "client and server are on the near side, agent and target on the far one; downloads go from \
     far to near; Mbit/s of payload, while losses are of IP packets, each way",
    "+cubic and +bbr: the congestion control of the kernel's TCP on both sides, whose connections \
     may hold 64 MiB; towline+NAME: Towline with the flags that its line names",
    "beside a Cubic or BBR flow: a download of the subject has the link for itself for 2 s, then \
     one of the kernel's TCP begins beside it; direct is the kernel's own beside that, a yardstick",
];

/// A file with bars.
struct Chart {
    /// What follows the link in its name.
    name: &'static str,
    title: &'static str,
    /// Rows, and which of their metrics.
    bars: &'static [(Row, usize)],
}

/// All that are drawn.
const CHARTS: [Chart; 2] = [
    Chart {
        name: "rates",
        title: "Downloads, Mbit/s (more is better)",
        bars: &[(Row::Download, 0), (Row::Bulk2, 0), (Row::Bulk8, 0)],
    },
    Chart {
        name: "latency",
        title: "Small messages beside downloads, and requests: ms (less is better)",
        bars: &[(Row::Bulk2, 1), (Row::Bulk2, 2), (Row::Requests16, 1)],
    },
];

/// One run over a link, or several with different rows or losses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What the link is like but for its losses.
    pub link: String,
    /// On which machine, in one line.
    pub machine: String,
    /// The commit that the bench was built from; programs say theirs themselves.
    pub commit: String,
    /// What was measured together.
    pub runs: Vec<Run>,
    /// What the figures of each row are, in their order; for readers of the file.
    pub metrics: BTreeMap<String, Vec<String>>,
    /// The losses; each has a table.
    pub losses: Vec<String>,
    /// The rows, in the table's order.
    pub rows: Vec<Row>,
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
    /// Reads records that were saved and puts those over the same link together.
    ///
    /// # Errors
    /// When two have measured a row with the same loss: rounds of different runs are not
    /// interleaved, and no ratio may be taken between them. Or when a subject is not the same.
    pub fn merged(paths: &[impl AsRef<Path>]) -> Result<Vec<Self>> {
        let mut all: Vec<Self> = Vec::new();
        for path in paths {
            let next = Self::load(path.as_ref())?;
            match all.iter_mut().find(|one| one.link == next.link) {
                Some(same) => same.merge(next)?,
                None => all.push(next),
            }
        }
        Ok(all)
    }

    /// Writes it to a file.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        // Never half a file: the one of the round before is worth more.
        let new = path.with_extension("new");
        fs::write(&new, text).with_context(|| format!("write {}", new.display()))?;
        fs::rename(&new, path).with_context(|| format!("write {}", path.display()))
    }

    /// Writes the tables, the figures and the charts to a folder, named after the link.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn publish(&self, dir: &Path) -> Result<()> {
        let stem = self.stem();
        fs::create_dir_all(dir)?;
        fs::write(dir.join(format!("{stem}.md")), self.markdown())?;
        self.save(&dir.join(format!("{stem}.json")))?;
        for Chart { name, title, bars } in CHARTS {
            let groups: Vec<Group<'_>> = self.groups(bars).collect();
            if !groups.is_empty() {
                let note = format!("{}; {}", self.link, self.origin());
                let svg = chart::svg(title, &note, &groups);
                fs::write(dir.join(format!("{stem}-{name}.svg")), svg)?;
            }
        }
        Ok(())
    }

    /// All of it as Markdown.
    pub fn markdown(&self) -> String {
        let mut lines = vec![
            format!("link: {}; the loss stands above each table", self.link),
            self.origin(),
        ];
        lines.extend(METHOD.map(str::to_owned));
        for Run { about, skipped } in &self.runs {
            lines.push(about.clone());
            lines.extend(skipped.iter().map(|line| format!("SKIPPED: {line}")));
        }
        let columns = self.columns.iter();
        lines.extend(columns.map(|one| format!("{}: {}", one.name, one.description)));
        let tables = self.losses.iter().map(|loss| self.table(loss).markdown());
        let tables: Vec<String> = tables.collect();
        format!("- {}\n\n{}", lines.join("\n- "), tables.join("\n"))
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

    /// Where the figures come from, in one line.
    fn origin(&self) -> String {
        format!("{}; bench at commit {}", self.machine, self.commit)
    }

    /// Whether a cell of ours, or without a proxy, failed.
    pub fn is_broken(&self) -> bool {
        let must = |name: &str| {
            let mut columns = self.columns.iter();
            columns.any(|column| column.name == name && column.kind.must_work())
        };
        let mut outcomes = self.outcomes.iter();
        outcomes.any(|outcome| outcome.figures.is_err() && must(&outcome.subject))
    }

    /// What the files of this link are called.
    fn stem(&self) -> String {
        let link = self.link.replace(" each way", "").replace("/s", "");
        let words = link.split(|letter: char| !letter.is_ascii_alphanumeric());
        let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
        format!("wan-{}", words.join("-").to_ascii_lowercase())
    }

    fn table<'a>(&'a self, loss: &'a str) -> Table<'a> {
        Table {
            loss,
            rows: &self.rows,
            columns: &self.columns,
            outcomes: &self.outcomes,
        }
    }

    /// Bars for each of these figures with each loss.
    fn groups<'a>(&'a self, bars: &'a [(Row, usize)]) -> impl Iterator<Item = Group<'a>> {
        bars.iter().flat_map(move |(row, index)| {
            let tables = self.losses.iter().map(|loss| self.table(loss));
            let tables = tables.filter(|table| table.has(*row));
            tables.map(move |table| Group {
                title: format!(
                    "{}, loss {}: {}",
                    row.title(),
                    table.loss,
                    row.metrics()[*index].what
                ),
                bars: table
                    .columns
                    .iter()
                    .map(|column| Bar {
                        name: &column.name,
                        kind: column.kind,
                        series: table.series(*row, *index, &column.name),
                        installed: true,
                    })
                    .collect(),
            })
        })
    }

    fn load(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("understand {}", path.display()))
    }

    fn merge(&mut self, next: Self) -> Result<()> {
        ensure!(
            (&self.machine, &self.commit) == (&next.machine, &next.commit),
            "runs over {} are of different machines or commits",
            self.link
        );
        for loss in &next.losses {
            let rows = next.rows.iter();
            let twice = rows
                .filter(|row| self.table(loss).has(**row) && next.table(loss).has(**row))
                .map(|row| row.title());
            let twice: Vec<&str> = twice.collect();
            ensure!(
                twice.is_empty(),
                "two runs over {} have with a loss of {loss}: {}",
                self.link,
                twice.join(", ")
            );
        }
        for column in next.columns {
            match self.columns.iter().find(|one| one.name == column.name) {
                Some(one) => ensure!(*one == column, "{} is not the same in two runs", one.name),
                None => self.columns.push(column),
            }
        }
        self.columns.sort_by_key(|column| place(column.kind));
        self.rows.extend(next.rows);
        self.rows.sort_by_key(|row| place(*row));
        self.rows.dedup();
        self.losses.extend(next.losses);
        self.losses.sort();
        self.losses.dedup();
        self.runs.extend(next.runs);
        self.metrics.extend(next.metrics);
        self.outcomes.extend(next.outcomes);
        Ok(())
    }
}

/// Where a value stands among all of its kind.
fn place<T: ValueEnum + PartialEq>(value: T) -> Option<usize> {
    T::value_variants().iter().position(|one| *one == value)
}

#[cfg(test)]
mod tests {
    use towline_bench::subject::Kind;
    use towline_bench::table::Failure;

    use super::*;

    fn record(link: &str, loss: &str, row: Row, subject: (&str, Kind)) -> Record {
        let (name, kind) = subject;
        Record {
            link: link.to_owned(),
            machine: "a machine".to_owned(),
            commit: "4f2c1aa".to_owned(),
            runs: vec![Run {
                about: format!("{}, then", row.title()),
                skipped: Vec::new(),
            }],
            metrics: Record::legend(&[row]),
            losses: vec![loss.to_owned()],
            rows: vec![row],
            columns: vec![Column {
                name: name.to_owned(),
                kind,
                description: "about it".to_owned(),
            }],
            outcomes: vec![Outcome {
                loss: loss.to_owned(),
                row,
                subject: name.to_owned(),
                round: 1,
                others: 0.0,
                late: 0.1,
                figures: Ok(vec![Some(7.5); row.metrics().len()]),
            }],
        }
    }

    const LINK: &str = "20ms each way, 200Mbit/s, queue 60ms";
    const OURS: (&str, Kind) = ("towline", Kind::Towline);
    const THEIRS: (&str, Kind) = ("frp-tls+bbr", Kind::FrpTls);

    #[test]
    fn what_was_saved_is_read_and_put_together_by_link() {
        let dir = tempfile::tempdir().unwrap();
        let records = [
            record(LINK, "1%", Row::Bulk2, THEIRS),
            record("5ms each way, 50Mbit/s, queue 60ms", "1%", Row::Bulk2, OURS),
            record(LINK, "1%", Row::Download, OURS),
            record(LINK, "0.1%", Row::Bulk2, OURS),
        ];
        let paths = [0, 1, 2, 3].map(|index| {
            let path = dir.path().join(index.to_string());
            records[index].save(&path).unwrap();
            path
        });
        let all = Record::merged(&paths).unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!(all[1], records[1]);
        assert_eq!(all[0].losses, ["0.1%", "1%"]);
        assert_eq!(all[0].rows, [Row::Download, Row::Bulk2]);
        let names: Vec<&str> = all[0].columns.iter().map(|one| &*one.name).collect();
        assert_eq!(names, ["towline", "frp-tls+bbr"]);
        let text = all[0].markdown();
        assert!(
            text.starts_with("- link: 20ms each way, 200Mbit/s, queue 60ms; "),
            "{text}"
        );
        assert!(
            text.contains("| 2 downloads: rate ↑ | Mbit/s | – | 7.50 | – |"),
            "{text}"
        );

        assert!(
            Record::merged(&[&paths[0], &paths[0]]).is_err(),
            "a row is from one run"
        );
        let mut other = records[2].clone();
        other.columns[0].description = "other flags".to_owned();
        other.rows = vec![Row::Bulk8];
        other.outcomes.clear();
        let path = dir.path().join("other");
        other.save(&path).unwrap();
        assert!(
            Record::merged(&[&paths[2], &path]).is_err(),
            "a subject is one thing"
        );
    }

    #[test]
    fn a_folder_gets_tables_figures_and_charts_named_after_the_link() {
        let dir = tempfile::tempdir().unwrap();
        let one = record(LINK, "1%", Row::Bulk2, OURS);
        one.publish(dir.path()).unwrap();
        let mut names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let stem = "wan-20ms-200mbit-queue-60ms";
        let files = ["-latency.svg", "-rates.svg", ".json", ".md"];
        assert_eq!(names, files.map(|end| format!("{stem}{end}")));
        let svg = fs::read_to_string(dir.path().join(&names[1])).unwrap();
        assert!(svg.contains(">2 downloads, loss 1%: rate<"), "{svg}");
        let json = dir.path().join(&names[2]);
        assert_eq!(Record::merged(&[json]).unwrap(), [one]);
    }

    #[test]
    fn a_peer_may_fail_and_ours_may_not() {
        for (subject, broken) in [(OURS, true), (THEIRS, false)] {
            let mut one = record(LINK, "1%", Row::Bulk2, subject);
            assert!(!one.is_broken());
            one.outcomes[0].figures = Err(Failure {
                stood_still: true,
                why: "no answer".to_owned(),
            });
            assert_eq!(one.is_broken(), broken);
        }
    }
}
