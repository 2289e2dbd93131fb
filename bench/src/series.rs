//! What a subject measured round by round, and how tables and progress write it: pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::rows::{Better, Figures, Metric};
use crate::stats::{Spread, figure, ratio};
use crate::table::Failure;

/// Written where there is nothing to write.
pub const NOTHING: &str = "–";

/// What one subject measured of one figure.
#[derive(Debug, Clone)]
pub struct Series<'a>(BTreeMap<u32, Result<Option<f64>, &'a Failure>>);

// === impl Series ===

impl<'a> Series<'a> {
    /// The figure with this index of every round that the subject had.
    pub fn of(
        rounds: impl IntoIterator<Item = (u32, &'a Result<Figures, Failure>)>,
        index: usize,
    ) -> Self {
        let rounds = rounds.into_iter().map(|(round, figures)| {
            let value = figures.as_ref();
            (round, value.map(|all| all.get(index).copied().flatten()))
        });
        Self(rounds.collect())
    }

    /// What was measured in the rounds that did not fail, in their order.
    pub fn values(&self) -> Vec<f64> {
        self.0.keys().filter_map(|round| self.at(*round)).collect()
    }

    /// How many rounds failed and how, `1 of 3 stood still`; nothing when none did.
    pub fn failed(&self) -> Option<String> {
        let rounds = self.0.values();
        let failures: Vec<&Failure> = rounds.filter_map(|one| one.err()).collect();
        let (word, all) = (failures.first()?.word(), self.0.len());
        Some(match failures.len() {
            some if some < all => format!("{some} of {all} {word}"),
            _ => word.to_owned(),
        })
    }

    /// The text of its cell: the median, of several values with `[min–max]`, and what failed.
    pub fn cell(&self) -> String {
        let values = self.values();
        let text = Spread::of(&values).map(|Spread { median, min, max }| match values.len() {
            1 => figure(median),
            _ => format!("{} [{}–{}]", figure(median), figure(min), figure(max)),
        });
        match (text, self.failed()) {
            (Some(text), Some(failed)) => format!("{text}, {failed}, see below"),
            (Some(text), None) => text,
            (None, Some(failed)) => format!("{failed}, see below"),
            (None, None) => NOTHING.to_owned(),
        }
    }

    /// The medians of the rounds in which both were measured, as a ratio; says how many these were
    /// if it was not all of them. A round in which one failed is left out for both.
    pub fn ratio(&self, other: &Self) -> String {
        let rounds: BTreeSet<u32> = self.0.keys().chain(other.0.keys()).copied().collect();
        let pairs = rounds
            .iter()
            .filter_map(|round| self.at(*round).zip(other.at(*round)));
        let (ours, theirs): (Vec<f64>, Vec<f64>) = pairs.unzip();
        let (Some(a), Some(b)) = (Spread::of(&ours), Spread::of(&theirs)) else {
            return NOTHING.to_owned();
        };
        let text = ratio(a.median, b.median);
        match ours.len() {
            all if all == rounds.len() => text,
            1 => format!("{text} (1 round)"),
            some => format!("{text} ({some} rounds)"),
        }
    }

    fn at(&self, round: u32) -> Option<f64> {
        self.0.get(&round).copied()?.ok()?
    }
}

/// What a figure is called in a table, and which way is better.
pub fn title(row: &str, metric: &Metric) -> String {
    let arrow = match metric.better {
        Better::Higher => "↑",
        Better::Lower => "↓",
    };
    format!("{row}: {} {arrow}", metric.what)
}

/// A line of a Markdown table.
pub fn line(cells: &[String]) -> String {
    format!("| {} |", cells.join(" | "))
}

/// What came of a cell, in one line.
pub fn told(metrics: &[Metric], figures: &Result<Figures, Failure>) -> String {
    let figures = match figures {
        Ok(figures) => figures,
        Err(failure) => return format!("{}: {}", failure.word(), failure.why),
    };
    let texts = metrics.iter().zip(figures).filter_map(|(metric, value)| {
        let value = figure((*value)?);
        Some(format!("{} {value} {}", metric.what, metric.unit))
    });
    let texts: Vec<String> = texts.collect();
    match texts.len() {
        0 => "has no processes to ask".to_owned(),
        _ => texts.join(", "),
    }
}
