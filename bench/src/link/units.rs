//! Rates and shares as people write them: `200Mbit`, `0.1%`.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result};

/// The units of a rate in bits per second, the largest first.
const RATE_UNITS: [(&str, u32); 3] = [
    ("Gbit", 1_000_000_000),
    ("Mbit", 1_000_000),
    ("kbit", 1_000),
];

/// From one packet of 1,500 bytes in a second to more than one thread can carry.
const MIN_RATE: f64 = 12e3;
const MAX_RATE: f64 = 10e9;

/// Bits per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(u64);

/// A share from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Share(f64);

// === impl Rate ===

impl Rate {
    /// Bits per second.
    pub const fn bits(self) -> u64 {
        self.0
    }
}

impl FromStr for Rate {
    type Err = anyhow::Error;

    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to fit"
    )]
    fn from_str(text: &str) -> Result<Self> {
        let lower = text.trim_end_matches("/s").to_ascii_lowercase();
        let bits = RATE_UNITS.iter().find_map(|(unit, factor)| {
            let number = lower.strip_suffix(&unit.to_ascii_lowercase())?;
            Some(number.trim().parse::<f64>().ok()? * f64::from(*factor))
        });
        let bits = bits.filter(|bits| (MIN_RATE..=MAX_RATE).contains(bits));
        let bits = bits.context("not a rate between 12kbit and 10Gbit, such as 200Mbit")?;
        Ok(Self(bits.round() as u64))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, factor): &&(&str, u32)| self.0.is_multiple_of(u64::from(*factor));
        let (unit, factor) = RATE_UNITS.iter().find(fits).unwrap_or(&("bit", 1));
        write!(formatter, "{}{unit}", self.0 / u64::from(*factor))
    }
}

// === impl Share ===

impl Share {
    /// From 0 to 1.
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl FromStr for Share {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let percent = text
            .strip_suffix('%')
            .and_then(|text| text.trim().parse().ok());
        let percent = percent.filter(|percent| (0.0..=100.0).contains(percent));
        let percent: f64 = percent.context("not a share between 0% and 100%, such as 0.1%")?;
        Ok(Self(percent / 100.0))
    }
}

impl fmt::Display for Share {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 0.003 * 100 is not quite 0.3.
        write!(formatter, "{}%", (self.0 * 1e8).round() / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_shares_are_shown_as_they_are_written() {
        for (text, bits, shown) in [
            ("200Mbit", 200_000_000, "200Mbit"),
            ("1gbit", 1_000_000_000, "1Gbit"),
            ("1.5Mbit/s", 1_500_000, "1500kbit"),
            ("12kbit", 12_000, "12kbit"),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!((rate.bits(), &*rate.to_string()), (bits, shown));
        }
        for text in [
            "", "200", "Mbit", "-1Mbit", "NaNMbit", "11Gbit", "1kbit", "1MB",
        ] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
        for text in ["0%", "0.1%", "0.3%", "3%", "100%"] {
            assert_eq!(text.parse::<Share>().unwrap().to_string(), text);
        }
        for text in ["", "%", "1", "-1%", "101%", "NaN%"] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
    }
}
