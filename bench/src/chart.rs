//! Bars as SVG: pure, from figures to text.
//!
//! One chart has one unit. A bar is as long as the median; the line on it goes from the smallest
//! to the largest value.

use std::fmt::Write as _;

use crate::rows::Row;
use crate::series::{NOTHING, Series};
use crate::stats::{Spread, figure};
use crate::subject::Kind;
use crate::table::{self, Column, Outcome};

/// A file with bars of some rows.
#[derive(Debug, Clone, Copy)]
pub struct Chart {
    /// The file's name.
    pub file: &'static str,
    title: &'static str,
    /// Rows, and which of their metrics.
    bars: &'static [(Row, usize)],
}

/// Bars of all subjects for one figure, below a title.
#[derive(Debug, Clone)]
pub struct Group<'a> {
    /// What the figure is.
    pub title: String,
    /// The bars from top to bottom.
    pub bars: Vec<Bar<'a>>,
}

/// One subject.
#[derive(Debug, Clone)]
pub struct Bar<'a> {
    /// What it is called.
    pub name: &'a str,
    /// Which subject; decides about the colour.
    pub kind: Kind,
    /// What it measured.
    pub series: Series<'a>,
    /// Whether it was there to measure.
    pub installed: bool,
}

/// All that are drawn.
pub const CHARTS: [Chart; 10] = [
    Chart {
        file: "bulk.svg",
        title: "Bulk, Gbit/s (more is better)",
        bars: &[
            (Row::BulkDown1, 0),
            (Row::BulkDown8, 0),
            (Row::BulkDown64, 0),
            (Row::BulkUp1, 0),
            (Row::BulkUp8, 0),
            (Row::BulkUp64, 0),
        ],
    },
    Chart {
        file: "cpu.svg",
        title: "CPU seconds per GB, server and agent (less is better)",
        bars: &[
            (Row::BulkDown1, 1),
            (Row::BulkDown8, 1),
            (Row::BulkDown64, 1),
            (Row::BulkUp1, 1),
            (Row::BulkUp8, 1),
            (Row::BulkUp64, 1),
        ],
    },
    Chart {
        file: "round-trips.svg",
        title: "64-byte round trips per second (more is better)",
        bars: &[
            (Row::RoundTrip1, 0),
            (Row::RoundTrip32, 0),
            (Row::RoundTrip64, 0),
        ],
    },
    Chart {
        file: "latency.svg",
        title: "Round trip on 1 and 64 tunnels, p50 and p99, µs (less is better)",
        bars: &[
            (Row::RoundTrip1, 1),
            (Row::RoundTrip1, 2),
            (Row::RoundTrip64, 1),
            (Row::RoundTrip64, 2),
        ],
    },
    Chart {
        file: "connect.svg",
        title: "Connect, request, close per second (more is better)",
        bars: &[(Row::Connect8, 0), (Row::Connect64, 0)],
    },
    Chart {
        file: "connect-latency.svg",
        title: "Connect to answer, p50 and p99, µs (less is better)",
        bars: &[
            (Row::Connect8, 1),
            (Row::Connect8, 2),
            (Row::Connect64, 1),
            (Row::Connect64, 2),
        ],
    },
    Chart {
        file: "beside.svg",
        title: "p99 of a small tunnel beside others, µs (less is better)",
        bars: &[(Row::Beside, 1), (Row::BesideStalled, 1)],
    },
    Chart {
        file: "memory.svg",
        title: "KiB per idle tunnel, server and agent (less is better)",
        bars: &[(Row::Memory, 0)],
    },
    Chart {
        file: "memory-busy.svg",
        title: "KiB per busy tunnel, server and agent (less is better)",
        bars: &[(Row::MemoryBusy, 0)],
    },
    Chart {
        file: "sessions.svg",
        title: "KiB per idle session, server (less is better)",
        bars: &[(Row::Sessions, 3)],
    },
];

const WIDTH: f64 = 860.0;
/// Where the bars start, and how long the longest is, in pixels as all of these.
const LEFT: f64 = 220.0;
const LONGEST: f64 = 460.0;
const LINE: f64 = 20.0;

// === impl Chart ===

impl Chart {
    /// The chart as a file; nothing when none of its rows were measured.
    pub fn draw(&self, note: &str, columns: &[Column], outcomes: &[Outcome]) -> Option<String> {
        let measured = |row| outcomes.iter().any(|outcome| outcome.row == row);
        let bars: Vec<_> = self.bars.iter().filter(|(row, _)| measured(*row)).collect();
        if bars.is_empty() {
            return None;
        }
        let groups: Vec<Group<'_>> = bars
            .into_iter()
            .map(|(row, index)| Group {
                title: format!("{}: {}", row.title(), row.metrics()[*index].what),
                bars: columns
                    .iter()
                    .map(|column| Bar {
                        name: column.kind.name(),
                        kind: column.kind,
                        series: table::series(*row, *index, column.kind, outcomes),
                        installed: column.installed,
                    })
                    .collect(),
            })
            .collect();
        Some(svg(self.title, note, &groups))
    }
}

// === impl Group ===

impl Group<'_> {
    /// Draws it from `y` on, and says where the next may start.
    fn draw(&self, body: &mut String, mut y: f64) -> f64 {
        y += LINE / 2.0;
        text(body, (10.0, y + 14.0), "row", &self.title);
        y += LINE;
        // Direct is often far longer than all others; it is cut off, and its figure says how long.
        let others = self.bars.iter().filter(|bar| bar.kind != Kind::Direct);
        let values = others.flat_map(|bar| bar.series.values());
        let longest = values.fold(f64::MIN_POSITIVE, f64::max);
        for bar in &self.bars {
            bar.draw(body, y, longest);
            y += LINE;
        }
        y
    }
}

// === impl Bar ===

impl Bar<'_> {
    fn draw(&self, body: &mut String, y: f64, longest: f64) {
        let long = |value: f64| (value / longest * LONGEST).min(LONGEST + 30.0);
        text(body, (20.0, y + 14.0), "name", self.name);
        let failed = self.series.failed();
        let Some(Spread { median, min, max }) = Spread::of(&self.series.values()) else {
            let words = match (self.installed, &failed) {
                (false, _) => "not installed",
                (true, Some(failed)) => failed,
                (true, None) => NOTHING,
            };
            text(body, (LEFT, y + 14.0), "note", words);
            return;
        };
        let class = match self.kind {
            kind if kind.is_ours() => "ours",
            Kind::Direct => "direct",
            Kind::RatholePlain => "plain",
            _ => "peer",
        };
        let (top, middle) = (y + 3.0, y + LINE / 2.0);
        let (from, to) = (LEFT + long(min), LEFT + long(max));
        push(
            body,
            format_args!(
                "<rect class=\"{class}\" x=\"{LEFT}\" y=\"{top}\" width=\"{:.1}\" \
                 height=\"14\"/><path d=\"M{from:.1} {middle}H{to:.1}\" stroke=\"black\"/>\n",
                long(median)
            ),
        );
        let failed = failed.map(|failed| format!(" ({failed})"));
        let words = figure(median) + &failed.unwrap_or_default();
        text(body, (to + 8.0, y + 14.0), "figure", &words);
    }
}

/// A file with these bars.
pub fn svg(title: &str, note: &str, groups: &[Group<'_>]) -> String {
    let mut body = String::new();
    text(&mut body, (10.0, 24.0), "title", title);
    text(&mut body, (10.0, 42.0), "note", note);
    let mut y = 60.0;
    for group in groups {
        y = group.draw(&mut body, y);
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <style>.title{{font-size:16px;font-weight:bold}}.note{{font-size:11px;fill:#666}}\
         .row{{font-weight:bold}}.ours{{fill:#d9480f}}.direct{{fill:#adb5bd}}\
         .peer{{fill:#4c6ef5}}.plain{{fill:#a5b4fc}}</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n",
        height = y + LINE
    )
}

fn text(body: &mut String, (x, y): (f64, f64), class: &str, words: &str) {
    if words.is_empty() {
        return;
    }
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    push(
        body,
        format_args!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{words}</text>\n"),
    );
}

fn push(body: &mut String, arguments: std::fmt::Arguments<'_>) {
    body.write_fmt(arguments)
        .expect("a string takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Failure;

    fn outcome(kind: Kind, round: u32, figures: Result<f64, &str>) -> Outcome {
        Outcome {
            row: Row::Connect8,
            kind,
            round,
            figures: figures.map(|rate| vec![Some(rate)]).map_err(|why| Failure {
                stood_still: true,
                why: why.to_owned(),
            }),
        }
    }

    #[test]
    fn bars_are_as_long_as_medians_and_what_is_missing_is_told() {
        let kinds = [Kind::Direct, Kind::Towline, Kind::Reference, Kind::Chisel];
        let columns = kinds.map(|kind| Column {
            kind,
            installed: kind != Kind::Chisel,
        });
        let outcomes = [
            outcome(Kind::Direct, 1, Ok(90_000.0)),
            outcome(Kind::Towline, 1, Ok(5_000.0)),
            outcome(Kind::Towline, 2, Ok(10_000.0)),
            outcome(Kind::Towline, 3, Err("a < b")),
            outcome(Kind::Reference, 1, Err("a < b")),
        ];
        let chart = CHARTS
            .iter()
            .find(|chart| chart.file == "connect.svg")
            .unwrap();
        let svg = chart.draw("R&D", &columns, &outcomes).unwrap();
        assert!(
            svg.contains("class=\"ours\" x=\"220\" y=\"113\" width=\"345.0\""),
            "{svg}"
        );
        assert!(
            svg.contains("class=\"direct\" x=\"220\" y=\"93\" width=\"490.0\""),
            "{svg}"
        );
        for text in [
            ">stood still<",
            ">not installed<",
            ">90,000<",
            ">7,500 (1 of 3 stood still)<",
            ">R&amp;D<",
        ] {
            assert!(svg.contains(text), "{text} in {svg}");
        }
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    }

    #[test]
    fn there_is_no_chart_of_nothing_and_every_metric_exists() {
        for chart in CHARTS {
            assert_eq!(chart.draw("", &[], &[]), None);
            for (row, index) in chart.bars {
                assert!(*index < row.metrics().len(), "{}", chart.file);
            }
        }
    }
}
