//! The comparison as Markdown: pure, from figures to text.

use serde::{Deserialize, Serialize};
use towline_bench::rows::Figures;
use towline_bench::series::{Series, line, title};
use towline_bench::stats::figure;
use towline_bench::subject::Kind;
use towline_bench::table::Failure;

use crate::rows::Row;

/// A link that hands packets over later than this, in ms, was short of CPU time: what is measured
/// over it is not the link.
const PUNCTUAL: f64 = 2.0;

/// Others that used more than this share of the cores just before a cell, in percent, may have
/// gone on in it. One look is short: less is a moment's housekeeping.
const DISTURBING: f64 = 20.0;

/// What stands behind the figures of cells that are not to be trusted.
const LATE: &str = " †";
const DISTURBED: &str = " ‡";

/// A subject's column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// The subject's name.
    pub name: String,
    /// Which subject it is, whatever carries it.
    pub kind: Kind,
    /// What exactly was measured, in one line.
    pub description: String,
}

/// What came of one row on one subject in one round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// How much the link lost.
    pub loss: String,
    /// Which row.
    pub row: Row,
    /// The subject's name.
    pub subject: String,
    /// Which round, from 1.
    pub round: u32,
    /// The share of the cores that others used just before, in percent.
    pub others: f64,
    /// How late the link handed packets over, p99 of its worse way in ms.
    pub late: f64,
    /// The figures, or why there are none.
    pub figures: Result<Figures, Failure>,
}

/// A table of what was measured with one loss.
#[derive(Debug, Clone, Copy)]
pub struct Table<'a> {
    /// The loss.
    pub loss: &'a str,
    /// The rows in their order.
    pub rows: &'a [Row],
    /// The subjects in their order.
    pub columns: &'a [Column],
    /// Every cell of every round, those of other losses too.
    pub outcomes: &'a [Outcome],
}

// === impl Outcome ===

impl Outcome {
    fn marks(&self) -> [(&'static str, bool); 2] {
        [
            (LATE, self.late > PUNCTUAL),
            (DISTURBED, self.others > DISTURBING),
        ]
    }
}

// === impl Table ===

impl<'a> Table<'a> {
    /// A line for each figure of each row, a column for each subject with `median [min–max]`, a
    /// ratio for each other subject, and below it why what failed did.
    pub fn markdown(&self) -> String {
        let mut titles = vec![format!("row, loss {}", self.loss), "unit".to_owned()];
        titles.extend(self.measured().map(|column| column.name.clone()));
        let others = self.compared();
        titles.extend(others.map(|other| format!("towline ÷ {}", other.name)));
        let rule = format!("|---|---{}|", "|---:".repeat(titles.len() - 2));
        let mut lines = vec![line(&titles), rule];
        for row in self.rows.iter().filter(|row| self.has(**row)) {
            for index in 0..row.metrics().len() {
                lines.push(self.line(*row, index));
            }
        }
        lines.push(String::new());
        lines.extend(self.notes());
        lines.join("\n") + "\n"
    }

    /// What one subject measured of a figure.
    pub fn series(&self, row: Row, index: usize, subject: &str) -> Series<'a> {
        let rounds = self.cell(row, subject);
        Series::of(rounds.map(|one| (one.round, &one.figures)), index)
    }

    /// Whether the row was measured with this loss.
    pub fn has(&self, row: Row) -> bool {
        self.outcomes().any(|one| one.row == row)
    }

    fn line(&self, row: Row, index: usize) -> String {
        let metric = row.metrics()[index];
        let mut texts = vec![title(row.title(), &metric), metric.unit.to_owned()];
        for column in self.measured() {
            let text = self.series(row, index, &column.name).cell();
            texts.push(text + &self.marks(row, &column.name));
        }
        let ours = self.series(row, index, Kind::Towline.name());
        for other in self.compared() {
            texts.push(ours.ratio(&self.series(row, index, &other.name)));
        }
        line(&texts)
    }

    /// The subjects that were measured with this loss.
    fn measured(&self) -> impl Iterator<Item = &'a Column> {
        let table = *self;
        let columns = self.columns.iter();
        columns.filter(move |column| table.outcomes().any(|one| one.subject == column.name))
    }

    /// All others, when ours is in the table with the flags that it ships with.
    fn compared(&self) -> impl Iterator<Item = &'a Column> {
        let ours = |column: &&Column| column.name == Kind::Towline.name();
        let there = self.measured().any(|column| ours(&column));
        let others = self.measured().filter(move |column| !ours(column));
        others.filter(move |_| there)
    }

    fn marks(&self, row: Row, subject: &str) -> String {
        let rounds = self.cell(row, subject);
        let mut marks: Vec<_> = rounds.flat_map(Outcome::marks).collect();
        marks.retain(|(_, applies)| *applies);
        marks.sort_unstable();
        marks.dedup();
        marks.into_iter().map(|(mark, _)| mark).collect()
    }

    /// Why cells have no figures, or such as are not to be trusted.
    fn notes(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for Outcome {
            row,
            subject,
            round,
            others,
            late,
            figures,
            ..
        } in self.outcomes()
        {
            let cell = format!("{subject}, {}, round {round}", row.title());
            if let Err(failure) = figures {
                lines.push(format!("- {}: {cell}: {}", failure.word(), failure.why));
            }
            if *late > PUNCTUAL {
                let late = figure(*late);
                lines.push(format!(
                    "-{LATE} {cell}: the link was late by {late} ms (p99)"
                ));
            }
            if *others > DISTURBING {
                let others = figure(*others);
                lines.push(format!(
                    "-{DISTURBED} {cell}: others used {others} % of the cores"
                ));
            }
        }
        lines
    }

    fn cell(&self, row: Row, subject: &str) -> impl Iterator<Item = &'a Outcome> {
        self.outcomes()
            .filter(move |one| one.row == row && one.subject == subject)
    }

    fn outcomes(&self) -> impl Iterator<Item = &'a Outcome> {
        let loss = self.loss;
        self.outcomes.iter().filter(move |one| one.loss == loss)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(loss: &str, subject: &str, round: u32, figures: Result<Figures, &str>) -> Outcome {
        Outcome {
            loss: loss.to_owned(),
            row: Row::Download,
            subject: subject.to_owned(),
            round,
            others: 0.0,
            late: 0.1,
            figures: figures.map_err(|why| Failure {
                stood_still: false,
                why: why.to_owned(),
            }),
        }
    }

    fn column(name: &str, kind: Kind) -> Column {
        Column {
            name: name.to_owned(),
            kind,
            description: String::new(),
        }
    }

    fn lines(outcomes: &[Outcome]) -> Vec<String> {
        let table = Table {
            loss: "1%",
            rows: &[Row::Download, Row::Bulk2],
            columns: &[
                column("towline", Kind::Towline),
                column("frp-tls+bbr", Kind::FrpTls),
            ],
            outcomes,
        };
        table.markdown().lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_table_has_medians_and_ratios_of_the_rows_of_its_loss() {
        let outcomes = [
            outcome("1%", "towline", 1, Ok(vec![Some(110.0), Some(150.0)])),
            outcome("1%", "frp-tls+bbr", 1, Err("too slow")),
            outcome("0%", "towline", 1, Ok(vec![Some(999.0), None])),
            outcome("1%", "towline", 2, Ok(vec![Some(130.0), None])),
            outcome("1%", "frp-tls+bbr", 2, Ok(vec![Some(65.0), None])),
        ];
        let lines = lines(&outcomes);
        assert_eq!(
            lines[0],
            "| row, loss 1% | unit | towline | frp-tls+bbr | towline ÷ frp-tls+bbr |"
        );
        assert_eq!(lines[1], "|---|---|---:|---:|---:|");
        assert_eq!(
            lines[2],
            "| one download of 20 MB: on a fresh session ↑ | Mbit/s | 120 [110–130] | \
             65.0, 1 of 2 failed, see below | 2.00 × (1 round) |"
        );
        assert!(
            lines[3].ends_with("| 150 | 1 of 2 failed, see below | – |"),
            "{}",
            lines[3]
        );
        let note = "- failed: frp-tls+bbr, one download of 20 MB, round 1: too slow";
        assert_eq!(lines[5..], [note]);
    }

    #[test]
    fn figures_that_are_not_to_be_trusted_are_marked() {
        let mut late = outcome("1%", "towline", 1, Ok(vec![Some(1.0), None]));
        late.late = 2.5;
        let mut both = late.clone();
        (both.round, both.others) = (2, 50.0);
        let lines = lines(&[late, both]);
        assert!(
            lines[2].ends_with("| 1.00 [1.00–1.00] † ‡ |"),
            "{}",
            lines[2]
        );
        let note = "- ‡ towline, one download of 20 MB, round 2: others used 50.0 % of the cores";
        assert_eq!(lines[lines.len() - 1], note);
        assert_eq!(
            lines.iter().filter(|line| line.starts_with("- †")).count(),
            2
        );
    }
}
