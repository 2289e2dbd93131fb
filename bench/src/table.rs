//! The comparison as Markdown: pure, from figures to text.

use serde::{Deserialize, Serialize};

use crate::outcome::{NOTHING, Outcome, Series};
use crate::rows::{ROWS, Row};
use crate::subject::peers::TOWLINE;

/// The subject whose ratios have a table of their own.
const SMALL: &str = "towline-1472";

/// A subject's column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// The subject's name.
    pub name: String,
    /// The name of its peer.
    pub peer: String,
    /// What exactly was measured, in one line.
    pub description: String,
}

/// A table of what was measured with one loss.
#[derive(Debug, Clone, Copy)]
pub struct Table<'a> {
    /// The loss; none on loopback.
    pub loss: Option<&'a str>,
    /// The subjects in their order.
    pub columns: &'a [Column],
    /// The cells of all rounds, those with another loss too.
    pub outcomes: &'a [Outcome],
}

// === impl Table ===

impl<'a> Table<'a> {
    /// A line for each figure of each row, a column for each subject with `median [min–max]`, a
    /// ratio of Towline to each other subject, and below it why cells failed.
    pub fn markdown(&self) -> String {
        let row = self
            .loss
            .map_or_else(|| "row".to_owned(), |loss| format!("row, loss {loss}"));
        let mut titles = vec![row, "unit".to_owned()];
        titles.extend(self.measured().map(|column| title_of(&column.name)));
        titles.extend(self.ratio_titles(TOWLINE));
        let mut lines = head(&titles, 2);
        for (row, index) in self.figures() {
            lines.push(self.line(row, index));
        }
        lines.push(String::new());
        lines.extend(self.small_ratios());
        for outcome in self.outcomes() {
            let title = Row::find(&outcome.row).map_or(&*outcome.row, |row| row.title);
            lines.extend(outcome.notes(title));
        }
        lines.join("\n") + "\n"
    }

    /// What one subject measured of a figure.
    pub fn series(&self, row: &Row, index: usize, subject: &str) -> Series<'a> {
        let rounds = self.cells(row.name, subject);
        let rounds = rounds.map(|one| {
            let figures = one.figures.as_ref();
            (
                one.round,
                figures.map(|all| all.get(index).copied().flatten()),
            )
        });
        Series(rounds.collect())
    }

    /// Whether the row was measured.
    pub fn has(&self, row: &Row) -> bool {
        self.outcomes().any(|one| one.row == row.name)
    }

    /// The subjects that were measured.
    pub fn measured(&self) -> impl Iterator<Item = &'a Column> {
        let table = *self;
        let columns = self.columns.iter();
        columns.filter(move |column| table.outcomes().any(|one| one.subject == column.name))
    }

    /// The figures of all rows that were measured.
    fn figures(&self) -> impl Iterator<Item = (&'static Row, usize)> {
        let rows = ROWS.iter().filter(|row| self.has(row));
        rows.flat_map(|row| (0..row.metrics().len()).map(move |index| (row, index)))
    }

    fn line(&self, row: &Row, index: usize) -> String {
        let metric = row.metrics()[index];
        let mut texts = vec![metric.title(row), metric.unit.to_owned()];
        for column in self.measured() {
            let text = self.series(row, index, &column.name).cell();
            texts.push(text + &self.marks(row, &column.name));
        }
        texts.extend(self.ratios(TOWLINE, row, index));
        line(&texts)
    }

    /// The ratios of Towline with small datagrams to what is not Towline.
    fn small_ratios(&self) -> Vec<String> {
        let titles = self.ratio_titles(SMALL);
        if titles.is_empty() {
            return titles;
        }
        let titles: Vec<String> = ["row".to_owned()].into_iter().chain(titles).collect();
        let mut lines = head(&titles, 1);
        for (row, index) in self.figures() {
            let ratios = self.ratios(SMALL, row, index);
            if ratios.iter().any(|text| text != NOTHING) {
                let title = row.metrics()[index].title(row);
                let texts: Vec<String> = [title].into_iter().chain(ratios).collect();
                lines.push(line(&texts));
            }
        }
        lines.push(String::new());
        lines
    }

    /// The subjects that one is compared with, when it was measured.
    fn compared(&self, ours: &str) -> Vec<&'a Column> {
        if !self.measured().any(|column| column.name == ours) {
            return Vec::new();
        }
        let others = self.measured().filter(|column| column.name != ours);
        others
            .filter(|column| ours != SMALL || column.name != TOWLINE)
            .collect()
    }

    fn ratio_titles(&self, ours: &str) -> Vec<String> {
        let others = self.compared(ours).into_iter();
        others
            .map(|other| format!("{ours} ÷ {}", title_of(&other.name)))
            .collect()
    }

    fn ratios(&self, ours: &str, row: &Row, index: usize) -> Vec<String> {
        let own = self.series(row, index, ours);
        let others = self.compared(ours).into_iter();
        others
            .map(|other| own.ratio(&self.series(row, index, &other.name)))
            .collect()
    }

    fn marks(&self, row: &Row, subject: &str) -> String {
        let marks = self.cells(row.name, subject).flat_map(Outcome::marks);
        let mut marks: Vec<_> = marks.filter(|(_, applies)| *applies).collect();
        marks.sort_unstable();
        marks.dedup();
        marks.into_iter().map(|(mark, _)| mark).collect()
    }

    fn cells(&self, row: &str, subject: &str) -> impl Iterator<Item = &'a Outcome> {
        self.outcomes()
            .filter(move |one| one.row == row && one.subject == subject)
    }

    fn outcomes(&self) -> impl Iterator<Item = &'a Outcome> {
        let loss = self.loss;
        self.outcomes
            .iter()
            .filter(move |one| one.loss.as_deref() == loss)
    }
}

/// The title of a subject's column.
pub fn title_of(name: &str) -> String {
    match name {
        "rathole-plain" => format!("{name} (not encrypted)"),
        _ => name.to_owned(),
    }
}

/// The first two lines of a table with so many columns of text.
fn head(titles: &[String], texts: usize) -> Vec<String> {
    let figures = "---:|".repeat(titles.len() - texts);
    vec![line(titles), format!("|{}{figures}", "---|".repeat(texts))]
}

fn line(cells: &[String]) -> String {
    format!("| {} |", cells.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Failure;
    use crate::rows::Figures;

    fn outcome(subject: &str, round: u32, figures: Result<Figures, &str>) -> Outcome {
        Outcome {
            loss: None,
            row: "download".to_owned(),
            subject: subject.to_owned(),
            round,
            others: 0.0,
            late: 0.1,
            figures: figures.map_err(|why| Failure {
                timed_out: why == "too slow",
                why: why.to_owned(),
            }),
        }
    }

    fn lines(subjects: &[&str], loss: Option<&str>, outcomes: &[Outcome]) -> Vec<String> {
        let columns = subjects.iter().map(|name| Column {
            name: (*name).to_owned(),
            peer: (*name).to_owned(),
            description: String::new(),
        });
        let columns: Vec<Column> = columns.collect();
        let columns = &columns;
        let table = Table {
            loss,
            columns,
            outcomes,
        };
        table.markdown().lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_table_has_medians_and_ratios_of_the_rows_of_its_loss() {
        let mut outcomes = [
            outcome("towline", 1, Ok(vec![Some(110.0), Some(150.0)])),
            outcome("rathole-plain", 1, Err("too slow")),
            outcome("towline", 3, Ok(vec![Some(999.0), None])),
            outcome("towline", 2, Ok(vec![Some(130.0), None])),
            outcome("rathole-plain", 2, Ok(vec![Some(65.0), None])),
        ];
        for (index, outcome) in outcomes.iter_mut().enumerate() {
            outcome.loss = Some(if index == 2 { "0%" } else { "1%" }.to_owned());
        }
        let lines = lines(
            &["direct", "towline", "rathole-plain"],
            Some("1%"),
            &outcomes,
        );
        let head = "| row, loss 1% | unit | towline | rathole-plain (not encrypted) | towline ÷ \
                    rathole-plain (not encrypted) |";
        assert_eq!(lines[..2], [head, "|---|---|---:|---:|---:|"]);
        assert_eq!(
            lines[2],
            "| one download of 20 MB: on a fresh session ↑ | Mbit/s | 120 [110–130] | \
             65.0, 1 of 2 timed out, see below | 2.00 × (1 round) |"
        );
        assert!(
            lines[3].ends_with("| 150 | 1 of 2 timed out, see below | – |"),
            "{}",
            lines[3]
        );
        let note = "- timed out: rathole-plain, one download of 20 MB, round 1: too slow";
        assert_eq!(lines[5..], [note]);
    }

    #[test]
    fn small_datagrams_have_ratios_of_their_own() {
        let figure = |value| Ok(vec![Some(value)]);
        let outcomes = [
            outcome("towline", 1, figure(9.0)),
            outcome(SMALL, 1, figure(8.0)),
            outcome("reference", 1, figure(2.0)),
        ];
        let lines = lines(&["towline", SMALL, "reference"], None, &outcomes);
        let end = lines.len() - 4;
        let expected = [
            "| row | towline-1472 ÷ reference |",
            "|---|---:|",
            "| one download of 20 MB: on a fresh session ↑ | 4.00 × |",
        ];
        assert_eq!(lines[end..end + 3], expected, "{lines:?}");
        assert!(
            lines[0].starts_with("| row | unit | towline |"),
            "{lines:?}"
        );
    }

    #[test]
    fn figures_that_cannot_be_trusted_are_marked() {
        let mut late = outcome("towline", 1, Ok(vec![Some(1.0), None]));
        late.late = 2.5;
        let mut both = late.clone();
        (both.round, both.others) = (2, 50.0);
        let lines = lines(&["towline"], None, &[late, both]);
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
