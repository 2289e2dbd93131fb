//! The results of cells, and how they are written: pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::rows::{Figures, Metric};
use crate::stats::{Spread, figure, ratio};

/// Written where there is no figure.
pub const NOTHING: &str = "–";

/// A link that hands packets over later than this, in ms, was short of CPU time: the figures are
/// not those of the link.
const PUNCTUAL: f64 = 2.0;

/// Others that used more than this share of the cores just before a cell, in percent, may have
/// gone on in it. The look is short: less is usual.
const DISTURBING: f64 = 20.0;

/// What stands behind figures that cannot be trusted.
const LATE: &str = " †";
const DISTURBED: &str = " ‡";

/// The result of one row on one subject in one round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// How much the link lost; none on loopback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<String>,
    /// The row's name.
    pub row: String,
    /// The subject's name.
    pub subject: String,
    /// Which round, from 1.
    pub round: u32,
    /// The share of the cores that others used just before, in percent.
    #[serde(default)]
    pub others: f64,
    /// How late the link handed packets over, p99 of its worse direction in ms.
    #[serde(default)]
    pub late: f64,
    /// The figures, or why there are none.
    pub figures: Result<Figures, Failure>,
}

/// Why there are no figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Nothing was refused and nothing broke, but nothing came within the limit.
    pub timed_out: bool,
    /// The reason, in one line.
    pub why: String,
}

/// What one subject measured of one figure, by round.
#[derive(Debug, Clone)]
pub struct Series<'a>(pub BTreeMap<u32, Result<Option<f64>, &'a Failure>>);

// === impl Outcome ===

impl Outcome {
    /// The marks of figures that cannot be trusted, and whether they apply.
    pub fn marks(&self) -> [(&'static str, bool); 2] {
        [
            (LATE, self.late > PUNCTUAL),
            (DISTURBED, self.others > DISTURBING),
        ]
    }

    /// What stands below the table.
    pub fn notes(&self, title: &str) -> Vec<String> {
        let cell = format!("{}, {title}, round {}", self.subject, self.round);
        let mut notes = Vec::new();
        if let Err(failure) = &self.figures {
            let why = &failure.why;
            notes.push(format!("- {}: {cell}: {why}", failure.word()));
        }
        if self.late > PUNCTUAL {
            let late = figure(self.late);
            notes.push(format!(
                "-{LATE} {cell}: the link was late by {late} ms (p99)"
            ));
        }
        if self.others > DISTURBING {
            let others = figure(self.others);
            notes.push(format!(
                "-{DISTURBED} {cell}: others used {others} % of the cores"
            ));
        }
        notes
    }

    /// The result in one line.
    pub fn summary(&self, metrics: &[Metric]) -> String {
        let figures = match &self.figures {
            Ok(figures) => figures,
            Err(failure) => return format!("{}: {}", failure.word(), failure.why),
        };
        let texts = metrics.iter().zip(figures).filter_map(|(metric, value)| {
            let value = figure((*value)?);
            Some(format!("{} {value} {}", metric.what, metric.unit))
        });
        let texts: Vec<String> = texts.collect();
        match texts.len() {
            0 => "nothing to measure".to_owned(),
            _ => texts.join(", "),
        }
    }
}

// === impl Failure ===

impl Failure {
    /// What stands in a cell; the reason is below the table.
    pub fn word(&self) -> &'static str {
        if self.timed_out {
            "timed out"
        } else {
            "failed"
        }
    }
}

// === impl Series ===

impl Series<'_> {
    fn values(&self) -> Vec<f64> {
        self.0.keys().filter_map(|round| self.at(*round)).collect()
    }

    /// How many rounds failed and how, `1 of 3 timed out`; none when none did.
    fn failed(&self) -> Option<String> {
        let failures: Vec<_> = self.0.values().filter_map(|one| one.err()).collect();
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

    /// The ratio of the medians of the rounds in which both were measured; it says how many these
    /// are if not all.
    pub fn ratio(&self, other: &Self) -> String {
        let mut rounds: Vec<u32> = self.0.keys().chain(other.0.keys()).copied().collect();
        rounds.sort_unstable();
        rounds.dedup();
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
