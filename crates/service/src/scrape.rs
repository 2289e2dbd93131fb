//! Writes metrics whose values are read at scrape time: gauges and counters, alone or per label.

use std::borrow::Borrow;
use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// One scrape, as a collector sees it.
#[derive(Debug)]
pub struct Scrape<'a>(DescriptorEncoder<'a>);

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The value rises and falls.
    Gauge,
    /// The value only rises while the process runs and what its labels name exists.
    Counter,
}

/// A metric whose value of type `N` is read from an `S` at scrape time.
///
/// Programs keep tables of these, so that name, help and value of a metric stand together.
#[derive(Debug)]
pub struct MetricDesc<S, N = f64> {
    /// The name without the program's prefix, unit included; a counter's without `_total`.
    pub name: &'static str,
    /// The help text.
    pub help: &'static str,
    /// Counter or gauge.
    pub kind: Kind,
    /// Reads the value.
    pub read: fn(&S) -> N,
}

/// A count as metrics have it: exact up to 2⁵³.
#[expect(
    clippy::cast_precision_loss,
    reason = "the metrics format loses precision beyond 2^53"
)]
pub fn float(count: u64) -> f64 {
    count as f64
}

// === impl MetricDesc ===

// Derived implementations would require `S: Clone`, although no `S` is stored.
impl<S, N> Clone for MetricDesc<S, N> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S, N> Copy for MetricDesc<S, N> {}

// === impl Scrape ===

impl<'a> Scrape<'a> {
    /// Writes to the encoder that a collector is given.
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

    /// One integer of either kind without labels.
    ///
    /// # Errors
    /// When the page cannot be written.
    pub fn count(&mut self, kind: Kind, (name, help): (&str, &str), value: u64) -> fmt::Result {
        match kind {
            Kind::Gauge => self.gauge(name, help, usize::try_from(value).unwrap_or(usize::MAX)),
            Kind::Counter => self.counter(name, help, value),
        }
    }

    /// One described metric without labels.
    ///
    /// # Errors
    /// When the page cannot be written.
    pub fn metric<S>(&mut self, desc: &MetricDesc<S, u64>, source: &S) -> fmt::Result {
        self.count(desc.kind, (desc.name, desc.help), (desc.read)(source))
    }

    /// One described metric, with one value for each set of labels.
    ///
    /// # Errors
    /// When the page cannot be written.
    pub fn metric_family<L: EncodeLabelSet, S>(
        &mut self,
        desc: &MetricDesc<S>,
        sources: impl IntoIterator<Item = (impl Borrow<L>, impl Borrow<S>)>,
    ) -> fmt::Result {
        let values = sources
            .into_iter()
            .map(|(labels, source)| (labels, (desc.read)(source.borrow())));
        self.family::<L>(desc.kind, (desc.name, desc.help), values)
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

#[cfg(test)]
mod tests {
    use prometheus_client::collector::Collector;
    use prometheus_client::encoding::text;
    use prometheus_client::registry::Registry;

    use super::*;

    #[derive(Debug)]
    struct Session {
        id: u8,
        streams: u64,
        lost: u64,
    }

    const ALONE: [MetricDesc<Session, u64>; 2] = [
        MetricDesc {
            name: "streams",
            help: "Streams open",
            kind: Kind::Gauge,
            read: |session| session.streams,
        },
        MetricDesc {
            name: "lost",
            help: "Packets lost",
            kind: Kind::Counter,
            read: |session| session.lost,
        },
    ];

    const LABELED: MetricDesc<Session> = MetricDesc {
        name: "session_lost",
        help: "Packets lost, by session",
        kind: Kind::Counter,
        read: |session| float(session.lost),
    };

    type Labels = [(&'static str, String); 1];

    impl Collector for Session {
        fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
            let mut scrape = Scrape::new(encoder);
            for desc in ALONE {
                scrape.metric(&desc, self)?;
            }
            let labels: Labels = [("session", self.id.to_string())];
            scrape.metric_family::<Labels, _>(&LABELED, [(&labels, self)])
        }
    }

    #[test]
    fn described_metrics_have_name_help_type_and_value() {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Session {
            id: 7,
            streams: 3,
            lost: 5,
        }));
        let mut page = String::new();
        text::encode(&mut page, &registry).unwrap();
        for line in [
            "# HELP streams Streams open",
            "# TYPE streams gauge",
            "streams 3",
            "# TYPE lost counter",
            "lost_total 5",
            "# TYPE session_lost counter",
            "session_lost_total{session=\"7\"} 5.0",
        ] {
            assert!(
                page.lines().any(|written| written.starts_with(line)),
                "{line}: {page}"
            );
        }
    }
}
