//! Medians, percentiles and how figures are written: pure.

use std::time::Duration;

/// The middle and the ends of a few measurements.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The middle value; of an even number of values, the mean of the two middle ones.
    pub median: f64,
    /// The smallest value.
    pub min: f64,
    /// The largest value.
    pub max: f64,
}

// === impl Spread ===

impl Spread {
    /// Summarizes measurements in any order; none of none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let upper = sorted.len() / 2;
        let lower = (sorted.len() - 1) / 2;
        Some(Self {
            median: f64::midpoint(sorted[lower], sorted[upper]),
            min,
            max,
        })
    }
}

/// The smallest value that at least `percent` of the values do not exceed (nearest rank); `sorted`
/// must be.
pub fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// A figure with three significant digits, thousands separated.
pub fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 999.5 => thousands(&format!("{value:.0}")),
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// `ours` as a multiple of `theirs`; a dash for zero.
pub fn ratio(ours: f64, theirs: f64) -> String {
    if theirs <= 0.0 {
        return "–".to_owned();
    }
    format!("{} ×", figure(ours / theirs))
}

/// Puts a comma in front of every third digit from the end.
fn thousands(number: &str) -> String {
    let (sign, digits) = match number.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", number),
    };
    let mut text = sign.to_owned();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_the_middle_and_the_ends() {
        let spread = |median, min, max| Some(Spread { median, min, max });
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[7.0]), spread(7.0, 7.0, 7.0));
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), spread(2.0, 1.0, 3.0));
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 3.0]), spread(2.5, 1.0, 4.0));
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let sorted: Vec<Duration> = (1..=200).map(Duration::from_micros).collect();
        let at = |percent| percentile(&sorted, percent).map(|value| value.as_micros());
        assert_eq!(at(50), Some(100));
        assert_eq!(at(99), Some(198));
        assert_eq!(at(100), Some(200));
        assert_eq!(at(0), Some(1));
        assert_eq!(percentile(&[], 50), None);
        let one = [Duration::from_secs(1)];
        assert_eq!(percentile(&one, 99), Some(one[0]));
    }

    #[test]
    fn figures_have_three_digits_and_thousands() {
        for (value, text) in [
            (0.0, "0.00"),
            (1.846, "1.85"),
            (9.994, "9.99"),
            (9.996, "10.0"),
            (99.94, "99.9"),
            (99.96, "100"),
            (999.4, "999"),
            (999.6, "1,000"),
            (80_391.7, "80,392"),
            (1_234_567.0, "1,234,567"),
            (-3.25, "-3.25"),
            (-12_000.0, "-12,000"),
        ] {
            assert_eq!(figure(value), text);
        }
    }

    #[test]
    fn a_ratio_of_nothing_is_none() {
        assert_eq!(ratio(6.0, 1.5), "4.00 ×");
        assert_eq!(ratio(1.0, 3.0), "0.33 ×");
        assert_eq!(ratio(1.0, 0.0), "–");
    }
}
