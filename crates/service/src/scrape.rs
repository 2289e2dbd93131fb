//! Writes what is read off at scrape time, for collectors: gauges and counters, alone or per label.

use std::borrow::Borrow;
use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// One scrape, as a collector sees it.
#[derive(Debug)]
pub struct Scrape<'a>(DescriptorEncoder<'a>);

/// What a number is, which decides how a scraper may add it up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It goes up and down.
    Gauge,
    /// It only goes up, until the process or whatever its labels name is gone.
    Counter,
}

// === impl Kind ===

impl Kind {
    /// A counter for what only ever grows.
    pub fn of(grows: bool) -> Self {
        if grows { Self::Counter } else { Self::Gauge }
    }
}

// === impl Scrape ===

impl<'a> Scrape<'a> {
    /// Writes to what a collector is given.
    pub fn new(encoder: DescriptorEncoder<'a>) -> Self {
        Self(encoder)
    }

    /// One gauge without labels.
    ///
    /// # Errors
    /// When the page cannot be written.
    pub fn gauge(&mut self, name: &str, help: &str, value: usize) -> fmt::Result {
        self.write(
            name,
            help,
            &ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)),
        )
    }

    /// One counter without labels; the page adds `_total`.
    ///
    /// # Errors
    /// When the page cannot be written.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.write(name, help, &ConstCounter::new(value))
    }

    /// One count of either kind without labels.
    ///
    /// # Errors
    /// When the page cannot be written.
    pub fn count(&mut self, kind: Kind, (name, help): (&str, &str), value: u64) -> fmt::Result {
        match kind {
            Kind::Gauge => self.gauge(name, help, usize::try_from(value).unwrap_or(usize::MAX)),
            Kind::Counter => self.counter(name, help, value),
        }
    }

    fn write(&mut self, name: &str, help: &str, value: &impl EncodeMetric) -> fmt::Result {
        let encoder = self
            .0
            .encode_descriptor(name, help, None, value.metric_type())?;
        value.encode(encoder)
    }

    /// A family: one value for each set of labels.
    ///
    /// # Errors
    /// When the page cannot be written.
    pub fn family<L: EncodeLabelSet>(
        &mut self,
        kind: Kind,
        (name, help): (&str, &str),
        values: impl IntoIterator<Item = (impl Borrow<L>, f64)>,
    ) -> fmt::Result {
        let metric_type = match kind {
            Kind::Gauge => MetricType::Gauge,
            Kind::Counter => MetricType::Counter,
        };
        let mut family = self.0.encode_descriptor(name, help, None, metric_type)?;
        for (labels, value) in values {
            let encoder = family.encode_family(labels.borrow())?;
            match kind {
                Kind::Gauge => ConstGauge::new(value).encode(encoder)?,
                Kind::Counter => ConstCounter::new(value).encode(encoder)?,
            }
        }
        Ok(())
    }
}
