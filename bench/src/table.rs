//! The comparison as Markdown: pure, from figures to text.

use serde::{Deserialize, Serialize};

use crate::rows::{Figures, Row};
use crate::series::{self, NOTHING, Series, title};
use crate::subject::Kind;

/// A subject's column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Which subject.
    pub kind: Kind,
    /// Whether it was measured; otherwise every cell says `not installed`.
    pub installed: bool,
}

/// What came of one row on one subject in one round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Which row.
    pub row: Row,
    /// Which subject.
    pub kind: Kind,
    /// Which round, from 1.
    pub round: u32,
    /// The figures, or why there are none.
    pub figures: Result<Figures, Failure>,
}

/// Why there are no figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Nothing was refused and nothing broke: what was waited for just never came.
    pub stood_still: bool,
    /// The reason, in one line.
    pub why: String,
}

// === impl Failure ===

impl Failure {
    /// What to write in a cell; the reason stands below the table.
    pub fn word(&self) -> &'static str {
        if self.stood_still {
            "stood still"
        } else {
            "failed"
        }
    }
}

/// The whole table with its notes. A figure is the median and, of several, `[min–max]`.
pub fn markdown(rows: &[Row], columns: &[Column], outcomes: &[Outcome]) -> String {
    let mut lines = head(columns);
    for row in rows {
        for index in 0..row.metrics().len() {
            lines.push(line(*row, index, columns, outcomes));
        }
    }
    lines.push(String::new());
    lines.extend(small_ratios(rows, columns, outcomes));
    lines.extend(failures(outcomes));
    lines.join("\n") + "\n"
}

/// A table of the ratios of ours with small datagrams; nothing without it, or without others.
fn small_ratios(rows: &[Row], columns: &[Column], outcomes: &[Outcome]) -> Vec<String> {
    let small = Kind::TowlineSmall;
    let others = compared(small, columns).into_iter();
    let others: Vec<_> = others.filter(|other| !other.kind.is_ours()).collect();
    if others.is_empty() {
        return Vec::new();
    }
    let titles = others
        .iter()
        .map(|other| format!("{} ÷ {}", small.name(), other.kind.name()));
    let titles: Vec<String> = ["row".to_owned()].into_iter().chain(titles).collect();
    let rule = format!("|---{}|", "|---:".repeat(others.len()));
    let mut lines = vec![series::line(&titles), rule];
    for row in rows {
        for (index, metric) in row.metrics().iter().enumerate() {
            let ratios = others
                .iter()
                .map(|other| compare((*row, index), [small, other.kind], outcomes));
            let mut texts = vec![title(row.title(), metric)];
            texts.extend(ratios);
            if texts[1..].iter().any(|text| text != NOTHING) {
                lines.push(series::line(&texts));
            }
        }
    }
    lines.push(String::new());
    lines
}

fn head(columns: &[Column]) -> Vec<String> {
    let mut titles = vec!["row".to_owned(), "unit".to_owned()];
    titles.extend(columns.iter().map(|column| column.kind.name().to_owned()));
    for other in compared(Kind::Towline, columns) {
        titles.push(format!("towline ÷ {}", other.kind.name()));
    }
    let rule = format!("|---|---{}|", "|---:".repeat(titles.len() - 2));
    vec![series::line(&titles), rule]
}

fn line(row: Row, index: usize, columns: &[Column], outcomes: &[Outcome]) -> String {
    let metric = row.metrics()[index];
    let mut texts = vec![title(row.title(), &metric), metric.unit.to_owned()];
    for column in columns {
        texts.push(cell(row, index, column, outcomes));
    }
    for other in compared(Kind::Towline, columns) {
        texts.push(compare((row, index), [Kind::Towline, other.kind], outcomes));
    }
    series::line(&texts)
}

/// The subjects that one of ours is compared with: all others, when it is in the table.
fn compared(ours: Kind, columns: &[Column]) -> Vec<&Column> {
    let there = columns.iter().any(|column| column.kind == ours);
    let others = columns.iter().filter(|column| column.kind != ours);
    others.filter(|_| there).collect()
}

/// Ours as a multiple of another, or nothing.
fn compare((row, index): (Row, usize), kinds: [Kind; 2], outcomes: &[Outcome]) -> String {
    let [ours, other] = kinds.map(|kind| series(row, index, kind, outcomes));
    ours.ratio(&other)
}

fn cell(row: Row, index: usize, column: &Column, outcomes: &[Outcome]) -> String {
    if !column.installed {
        return "not installed".to_owned();
    }
    series(row, index, column.kind, outcomes).cell()
}

/// What a subject measured of a figure.
pub fn series(row: Row, index: usize, kind: Kind, outcomes: &[Outcome]) -> Series<'_> {
    let of_cell = |one: &&Outcome| one.row == row && one.kind == kind;
    let cell = outcomes.iter().filter(of_cell);
    Series::of(cell.map(|one| (one.round, &one.figures)), index)
}

fn failures(outcomes: &[Outcome]) -> Vec<String> {
    let failed = outcomes.iter().filter_map(|outcome| {
        let failure = outcome.figures.as_ref().err()?;
        let (title, kind) = (outcome.row.title(), outcome.kind.name());
        let (word, round, why) = (failure.word(), outcome.round, &failure.why);
        Some(format!("- {word}: {kind}, {title}, round {round}: {why}"))
    });
    failed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(kind: Kind, round: u32, figures: Result<Figures, &str>) -> Outcome {
        Outcome {
            row: Row::Connect8,
            kind,
            round,
            figures: figures.map_err(|why| Failure {
                stood_still: why == "stands still",
                why: why.to_owned(),
            }),
        }
    }

    fn column(kind: Kind, installed: bool) -> Column {
        Column { kind, installed }
    }

    fn lines(columns: &[Column], outcomes: &[Outcome]) -> Vec<String> {
        let text = markdown(&[Row::Connect8], columns, outcomes);
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn medians_stand_with_their_ends_and_ratios() {
        let columns = [column(Kind::Direct, true), column(Kind::Towline, true)];
        let figures = |rate, p50| Ok(vec![Some(rate), Some(p50), None, None, None, None, None]);
        let outcomes = [
            outcome(Kind::Direct, 1, figures(20_000.0, 10.0)),
            outcome(Kind::Towline, 1, figures(9_000.0, 40.0)),
            outcome(Kind::Direct, 2, figures(20_000.0, 10.0)),
            outcome(Kind::Towline, 2, figures(11_000.0, 60.0)),
        ];
        let lines = lines(&columns, &outcomes);
        assert_eq!(
            lines[0],
            "| row | unit | direct | towline | towline ÷ direct |"
        );
        assert_eq!(lines[1], "|---|---|---:|---:|---:|");
        assert_eq!(
            lines[2],
            "| connect-request-close, 8 workers: rate ↑ | /s | 20,000 [20,000–20,000] | \
             10,000 [9,000–11,000] | 0.50 × |"
        );
        assert!(lines[3].ends_with("| 10.0 [10.0–10.0] | 50.0 [40.0–60.0] | 5.00 × |"));
        assert!(lines[4].ends_with("| – | – | – |"), "{}", lines[4]);
        assert_eq!(lines.len(), 10);
    }

    #[test]
    fn a_ratio_is_of_rounds_that_both_have() {
        let columns = [column(Kind::Towline, true), column(Kind::Reference, true)];
        let rate = |rate| Ok(vec![Some(rate)]);
        let mut outcomes = vec![
            outcome(Kind::Towline, 1, rate(10.0)),
            outcome(Kind::Reference, 1, rate(5.0)),
            outcome(Kind::Towline, 2, rate(90.0)),
            outcome(Kind::Reference, 2, Err("stands still")),
        ];
        let text = &lines(&columns, &outcomes)[2];
        assert!(
            text.ends_with("| 5.00, 1 of 2 stood still, see below | 2.00 × (1 round) |"),
            "{text}"
        );
        outcomes.push(outcome(Kind::Towline, 3, rate(10.0)));
        outcomes.push(outcome(Kind::Reference, 3, rate(1.0)));
        let text = &lines(&columns, &outcomes)[2];
        assert!(text.ends_with("| 3.33 × (2 rounds) |"), "{text}");
    }

    #[test]
    fn small_datagrams_have_ratios_of_their_own() {
        let kinds = [Kind::Towline, Kind::TowlineSmall, Kind::Reference];
        let columns = kinds.map(|kind| column(kind, true));
        let outcomes = [
            outcome(Kind::Towline, 1, Ok(vec![Some(9.0)])),
            outcome(Kind::TowlineSmall, 1, Ok(vec![Some(8.0)])),
            outcome(Kind::Reference, 1, Ok(vec![Some(2.0)])),
        ];
        let text = lines(&columns, &outcomes);
        let end = text.len() - 4;
        let expected = [
            "| row | towline-1472 ÷ reference |",
            "|---|---:|",
            "| connect-request-close, 8 workers: rate ↑ | 4.00 × |",
        ];
        assert_eq!(text[end..end + 3], expected, "{text:?}");
    }

    #[test]
    fn what_failed_or_is_missing_says_so() {
        let columns = [column(Kind::Towline, true), column(Kind::Reference, true)];
        let figures = || Ok(vec![Some(1.0); 7]);
        let outcomes = [
            outcome(Kind::Towline, 1, figures()),
            outcome(Kind::Reference, 1, Err("stands still")),
            outcome(Kind::Towline, 2, Err("refused")),
            outcome(Kind::Reference, 2, Err("stands still")),
        ];
        let text = lines(&columns, &outcomes);
        assert!(
            text[2].ends_with("| 1.00, 1 of 2 failed, see below | stood still, see below | – |"),
            "{}",
            text[2]
        );
        let note =
            "- stood still: reference, connect-request-close, 8 workers, round 1: stands still";
        assert_eq!(text[10], note);
        assert_eq!(text.len(), 13);

        let missing = lines(&[column(Kind::Reference, false)], &[]);
        assert_eq!(missing[0], "| row | unit | reference |");
        assert!(missing[2].ends_with("| not installed |"));
    }
}
