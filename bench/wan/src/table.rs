//! The comparison as Markdown: pure, from figures to text.

use towline_bench::rows::{Better, Figures};
use towline_bench::stats::{Spread, figure};

use crate::rows::Row;

/// Written where there is nothing to write.
const NOTHING: &str = "–";

/// What came of one row on one subject in one round.
#[derive(Debug)]
pub struct Outcome {
    /// How much the link lost.
    pub loss: String,
    /// Which row.
    pub row: Row,
    /// The subject's name.
    pub subject: String,
    /// Which round, from 1.
    pub round: u32,
    /// The figures, or why there are none, in one line.
    pub figures: Result<Figures, String>,
}

/// A table of what was measured with this loss: a line for each figure of each row, a column for
/// each subject, `median [min–max]` in each cell, and why what failed did.
pub fn markdown(loss: &str, rows: &[Row], subjects: &[&str], outcomes: &[Outcome]) -> String {
    let outcomes: Vec<&Outcome> = outcomes.iter().filter(|one| one.loss == loss).collect();
    let rule = format!("|---|---|{}", "---:|".repeat(subjects.len()));
    let title = format!("row, loss {loss}");
    let head = [&[title.as_str(), "unit"], subjects].concat();
    let mut lines = vec![cells(&head), rule];
    for row in rows {
        for (index, metric) in row.metrics().iter().enumerate() {
            let arrow = match metric.better {
                Better::Higher => "↑",
                Better::Lower => "↓",
            };
            let title = format!("{}: {} {arrow}", row.title(), metric.what);
            let texts = subjects
                .iter()
                .map(|subject| cell(*row, index, subject, &outcomes));
            let texts: Vec<String> = [title, metric.unit.to_owned()]
                .into_iter()
                .chain(texts)
                .collect();
            lines.push(cells(&texts));
        }
    }
    lines.push(String::new());
    lines.extend(outcomes.iter().filter_map(|outcome| failure(outcome)));
    lines.join("\n") + "\n"
}

fn cell(row: Row, index: usize, subject: &str, outcomes: &[&Outcome]) -> String {
    let here = outcomes
        .iter()
        .filter(|one| one.row == row && one.subject == subject);
    let (mut values, mut failed, mut rounds) = (Vec::new(), 0, 0);
    for outcome in here {
        rounds += 1;
        match &outcome.figures {
            Ok(figures) => values.extend(figures.get(index).copied().flatten()),
            Err(_) => failed += 1,
        }
    }
    let text = match Spread::of(&values) {
        None if failed > 0 => return "failed, see below".to_owned(),
        None => return NOTHING.to_owned(),
        Some(Spread { median, .. }) if values.len() == 1 => figure(median),
        Some(Spread { median, min, max }) => {
            format!("{} [{}–{}]", figure(median), figure(min), figure(max))
        }
    };
    match failed {
        0 => text,
        some => format!("{text}, {some} of {rounds} failed, see below"),
    }
}

fn failure(outcome: &Outcome) -> Option<String> {
    let Outcome {
        row,
        subject,
        round,
        figures,
        ..
    } = outcome;
    let why = figures.as_ref().err()?;
    Some(format!(
        "- failed: {subject}, {}, round {round}: {why}",
        row.title()
    ))
}

fn cells(texts: &[impl AsRef<str>]) -> String {
    let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
    format!("| {} |", texts.join(" | "))
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
            figures: figures.map_err(str::to_owned),
        }
    }

    #[test]
    fn a_table_has_medians_and_says_what_failed() {
        let outcomes = [
            outcome("1%", "ours", 1, Ok(vec![Some(110.0), Some(150.0)])),
            outcome("1%", "theirs", 1, Err("too slow")),
            outcome("0%", "ours", 1, Ok(vec![Some(999.0), None])),
            outcome("1%", "ours", 2, Ok(vec![Some(130.0), None])),
        ];
        let text = markdown(
            "1%",
            &[Row::Download],
            &["ours", "theirs", "absent"],
            &outcomes,
        );
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "| row, loss 1% | unit | ours | theirs | absent |");
        assert_eq!(lines[1], "|---|---|---:|---:|---:|");
        assert_eq!(
            lines[2],
            "| one download of 20 MB: on a fresh session ↑ | Mbit/s | 120 [110–130] | \
             failed, see below | – |"
        );
        assert!(
            lines[3].ends_with("| 150 | failed, see below | – |"),
            "{}",
            lines[3]
        );
        let note = "- failed: theirs, one download of 20 MB, round 1: too slow";
        assert_eq!(lines[5..], [note]);
    }
}
