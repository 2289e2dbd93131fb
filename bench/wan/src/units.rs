//! Rates, shares and sizes as people write them: `200Mbit`, `0.1%`, `60ms` or `1.5MB`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;

/// What a rate may be called, and how many bits per second each is.
const RATE_UNITS: [(&str, f64); 3] = [("gbit", 1e9), ("mbit", 1e6), ("kbit", 1e3)];

/// The slowest rate: a packet of 1,500 bytes takes a second.
const MIN_RATE: u64 = 12_000;

/// The fastest rate: beyond what one thread carries, so that a wish for more is told.
const MAX_RATE: u64 = 10_000_000_000;

/// Bits per second, counted with the packets' IP headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(u64);

/// A share between nothing and everything.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default)]
pub struct Share(f64);

/// How much may wait for the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// As much as the link sends in this time.
    Time(Duration),
    /// So many bytes.
    Bytes(u64),
}

/// Why a text is none of these.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// A rate.
    #[error("not a rate between 12kbit and 10Gbit, such as 200Mbit")]
    Rate,
    /// A share.
    #[error("not a share between 0% and 100%, such as 0.1%")]
    Share,
    /// A depth.
    #[error("neither a time such as 60ms nor a size such as 1500KB")]
    Depth,
}

// === impl Rate ===

impl Rate {
    /// A rate in bits per second, if it is one that a link can have.
    pub const fn bits_per_second(bits: u64) -> Option<Self> {
        if bits < MIN_RATE || bits > MAX_RATE {
            return None;
        }
        Some(Self(bits))
    }

    /// Bits per second.
    pub const fn bits(self) -> u64 {
        self.0
    }
}

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let text = text.to_ascii_lowercase();
        let text = text.trim_end_matches("/s");
        let (number, factor) = RATE_UNITS
            .iter()
            .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))
            .ok_or(UnitError::Rate)?;
        let number: f64 = number.trim().parse().map_err(|_| UnitError::Rate)?;
        whole(number * factor)
            .and_then(Self::bits_per_second)
            .ok_or(UnitError::Rate)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bits if bits.is_multiple_of(1_000_000_000) => {
                write!(formatter, "{}Gbit", bits / 1_000_000_000)
            }
            bits if bits.is_multiple_of(1_000_000) => write!(formatter, "{}Mbit", bits / 1_000_000),
            bits => write!(formatter, "{}kbit", bits / 1_000),
        }
    }
}

// === impl Share ===

impl Share {
    /// Nothing.
    pub const NONE: Self = Self(0.0);

    /// A share of one, if it is between nothing and everything.
    pub fn new(share: f64) -> Option<Self> {
        (0.0..=1.0).contains(&share).then_some(Self(share))
    }

    /// Between 0 and 1.
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl FromStr for Share {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let percent = text.strip_suffix('%').ok_or(UnitError::Share)?;
        let percent: f64 = percent.trim().parse().map_err(|_| UnitError::Share)?;
        Self::new(percent / 100.0).ok_or(UnitError::Share)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Rounded to what a person writes: 0.003 * 100 is not quite 0.3.
        let percent = (self.0 * 1e8).round() / 1e6;
        write!(formatter, "{percent}%")
    }
}

// === impl Depth ===

impl Depth {
    /// How long the last byte of a full queue waits.
    pub fn at(self, rate: Rate) -> Duration {
        match self {
            Self::Time(time) => time,
            Self::Bytes(bytes) => {
                let nanos = u128::from(bytes) * 8 * 1_000_000_000 / u128::from(rate.bits());
                Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
            }
        }
    }
}

impl FromStr for Depth {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        if let Ok(time) = humantime::parse_duration(text) {
            return Ok(Self::Time(time));
        }
        let bytes: ByteSize = text.parse().map_err(|_| UnitError::Depth)?;
        Ok(Self::Bytes(bytes.as_u64()))
    }
}

impl fmt::Display for Depth {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(time) => write!(formatter, "{}", humantime::format_duration(*time)),
            Self::Bytes(bytes) => write!(formatter, "{bytes}B"),
        }
    }
}

#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked to be a whole number that fits"
)]
fn whole(number: f64) -> Option<u64> {
    let rounded = number.round();
    (0.0..9e15).contains(&rounded).then_some(rounded as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        for (text, bits) in [
            ("200Mbit", 200_000_000),
            ("1gbit", 1_000_000_000),
            ("1.5Mbit/s", 1_500_000),
            ("512kbit", 512_000),
            ("12kbit", 12_000),
        ] {
            assert_eq!(text.parse::<Rate>().unwrap().bits(), bits, "{text}");
        }
        for text in [
            "", "200", "Mbit", "-1Mbit", "NaNMbit", "11Gbit", "1kbit", "1MB",
        ] {
            assert_eq!(text.parse::<Rate>(), Err(UnitError::Rate), "{text}");
        }
        for text in ["200Mbit", "1Gbit", "512kbit"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn shares() {
        for text in ["0%", "0.1%", "0.3%", "3%", "100%"] {
            assert_eq!(text.parse::<Share>().unwrap().to_string(), text);
        }
        for text in ["", "%", "1", "-1%", "101%", "NaN%"] {
            assert_eq!(text.parse::<Share>(), Err(UnitError::Share), "{text}");
        }
    }

    #[test]
    fn depths_are_times_or_sizes() {
        let rate: Rate = "200Mbit".parse().unwrap();
        for (text, milliseconds) in [("60ms", 60), ("1500KB", 60), ("0s", 0), ("25000B", 1)] {
            let depth: Depth = text.parse().unwrap();
            assert_eq!(
                depth.at(rate),
                Duration::from_millis(milliseconds),
                "{text}"
            );
        }
        for text in ["", "60", "deep", "-1ms"] {
            let depth = text.parse::<Depth>();
            assert!(depth.is_err() || text == "60", "{text}: {depth:?}");
        }
    }
}
