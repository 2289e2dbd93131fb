//! A strict reader of the `OpenMetrics` 1.0 text format: what it accepts, Prometheus accepts.

use std::collections::{BTreeMap, BTreeSet};

/// One scrape.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    families: BTreeMap<String, Family>,
}

/// The metrics of one name.
#[derive(Debug, Clone, Default)]
struct Family {
    kind: String,
    help: bool,
    samples: Vec<Sample>,
}

#[derive(Debug, Clone, PartialEq)]
struct Sample {
    /// What follows the family's name: nothing, `_total`, `_bucket`, …
    suffix: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

// === impl Metrics ===

impl Metrics {
    /// Reads a scrape.
    ///
    /// # Errors
    /// The first line that breaks the format, and the reason.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut metrics = Self::default();
        let mut current = String::new();
        let body = text.strip_suffix("# EOF\n").ok_or("no # EOF at the end")?;
        for line in body.lines() {
            let read = match line.strip_prefix("# ") {
                Some(descriptor) => metrics.descriptor(descriptor, &mut current),
                None => metrics.sample(line, &current),
            };
            read.map_err(|why| format!("{line:?}: {why}"))?;
        }
        for (name, family) in &metrics.families {
            family.check().map_err(|why| format!("{name}: {why}"))?;
        }
        Ok(metrics)
    }

    /// The value of the one metric with this name, as it stands in the text, and these labels.
    pub fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let wanted: BTreeMap<_, _> = labels
            .iter()
            .map(|(label, value)| ((*label).to_owned(), (*value).to_owned()))
            .collect();
        self.samples(name)
            .find(|sample| sample.labels == wanted)
            .map(|sample| sample.value)
    }

    /// As [`Self::find`]; a missing metric is 0, as a counter is before its first event.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels).unwrap_or_default()
    }

    /// The sum over all labels.
    pub fn sum(&self, name: &str) -> f64 {
        self.samples(name).map(|sample| sample.value).sum()
    }

    /// The values by the one label that they differ in, without those that are 0.
    pub fn by(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        self.samples(name)
            .filter(|sample| sample.value != 0.0)
            .filter_map(|sample| Some((sample.labels.get(label)?.clone(), sample.value)))
            .collect()
    }

    /// The names and types of all families.
    pub fn families(&self) -> impl Iterator<Item = (&str, &str)> {
        self.families
            .iter()
            .map(|(name, family)| (name.as_str(), family.kind.as_str()))
    }

    fn samples(&self, name: &str) -> impl Iterator<Item = &Sample> {
        self.families.iter().flat_map(move |(family, metrics)| {
            let suffix = name.strip_prefix(family.as_str());
            metrics
                .samples
                .iter()
                .filter(move |sample| suffix == Some(&sample.suffix))
        })
    }

    /// `HELP name text`, `TYPE name type` or `UNIT name unit`; a family is described once, before
    /// its samples, which stand together.
    fn descriptor(&mut self, line: &str, current: &mut String) -> Result<(), &'static str> {
        let mut words = line.splitn(3, ' ');
        let (Some(word), Some(name), Some(rest)) = (words.next(), words.next(), words.next())
        else {
            return Err("a descriptor has three parts");
        };
        if !is_name(name) {
            return Err("no name");
        }
        if name != current {
            if self.families.contains_key(name) {
                return Err("described twice, or in two places");
            }
            name.clone_into(current);
        }
        let family = self.families.entry(name.to_owned()).or_default();
        if !family.samples.is_empty() {
            return Err("a descriptor behind samples");
        }
        match word {
            "HELP" if family.help => Err("two helps"),
            "HELP" => {
                family.help = true;
                Ok(())
            }
            "TYPE" if !family.kind.is_empty() => Err("two types"),
            "TYPE" => {
                rest.clone_into(&mut family.kind);
                Ok(())
            }
            "UNIT" if name.ends_with(&format!("_{rest}")) => Ok(()),
            "UNIT" => Err("the name does not end in its unit"),
            _ => Err("no descriptor"),
        }
    }

    fn sample(&mut self, line: &str, current: &str) -> Result<(), &'static str> {
        let (metric, value) = line.rsplit_once(' ').ok_or("no value")?;
        let (name, labels) = match metric.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').ok_or("no closing brace")?),
            None => (metric, ""),
        };
        let suffix = name.strip_prefix(current).ok_or("of another family")?;
        let family = self.families.get_mut(current).ok_or("no family")?;
        let suffixes: &[&str] = match family.kind.as_str() {
            "counter" => &["_total"],
            "gauge" => &[""],
            "histogram" => &["_bucket", "_sum", "_count"],
            "info" => &["_info"],
            _ => return Err("a sample before its type, or of a type that we do not use"),
        };
        if !suffixes.contains(&suffix) {
            return Err("a suffix that its type does not have");
        }
        let sample = Sample {
            suffix: suffix.to_owned(),
            labels: read_labels(labels)?,
            value: value.parse().map_err(|_| "the value is no number")?,
        };
        let twice = |other: &Sample| other.suffix == sample.suffix && other.labels == sample.labels;
        if family.samples.iter().any(twice) {
            return Err("the same metric twice");
        }
        family.samples.push(sample);
        Ok(())
    }
}

// === impl Family ===

impl Family {
    fn check(&self) -> Result<(), String> {
        if !self.help || self.kind.is_empty() {
            return Err("no help, or no type".to_owned());
        }
        match self.kind.as_str() {
            "counter"
                if self
                    .samples
                    .iter()
                    .any(|sample| sample.value.is_nan() || sample.value < 0.0) =>
            {
                Err("a counter below zero".to_owned())
            }
            "histogram" => self.check_histogram(),
            _ => Ok(()),
        }
    }

    /// Of every set of labels: buckets that grow up to `+Inf`, which holds as many as the count.
    fn check_histogram(&self) -> Result<(), String> {
        let without_bound = |sample: &Sample| {
            let mut labels = sample.labels.clone();
            labels.remove("le");
            labels
        };
        let sets: BTreeSet<_> = self.samples.iter().map(without_bound).collect();
        for set in sets {
            let of = |suffix: &str| {
                let mine =
                    |sample: &&Sample| sample.suffix == suffix && without_bound(sample) == set;
                self.samples.iter().filter(mine).collect::<Vec<_>>()
            };
            let (buckets, sums, counts) = (of("_bucket"), of("_sum"), of("_count"));
            let mut bounds = Vec::new();
            for bucket in &buckets {
                let bound = bucket.labels.get("le").ok_or("a bucket without le")?;
                bounds.push((
                    bound.parse::<f64>().map_err(|_| "le is no number")?,
                    bucket.value,
                ));
            }
            let grows = bounds
                .windows(2)
                .all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
            let ([_sum], [count]) = (sums.as_slice(), counts.as_slice()) else {
                return Err(format!("{set:?}: not one sum and one count"));
            };
            if !grows || bounds.last() != Some(&(f64::INFINITY, count.value)) {
                return Err(format!("{set:?}: buckets {bounds:?} of {}", count.value));
            }
        }
        Ok(())
    }
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    let first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || byte == b':';
    bytes.next().is_some_and(first) && bytes.all(|byte| first(byte) || byte.is_ascii_digit())
}

/// `a="b",c="d"`, with `\\`, `\"` and `\n` within the quotes.
fn read_labels(text: &str) -> Result<BTreeMap<String, String>, &'static str> {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (name, quoted) = rest.split_once("=\"").ok_or("a label without a value")?;
        if !is_name(name) || name.contains(':') {
            return Err("no name of a label");
        }
        let mut value = String::new();
        let mut characters = quoted.chars();
        loop {
            match characters.next().ok_or("a label's value has no end")? {
                '"' => break,
                '\\' => value.push(match characters.next() {
                    Some('n') => '\n',
                    Some(escaped @ ('"' | '\\')) => escaped,
                    _ => return Err("an unknown escape"),
                }),
                plain => value.push(plain),
            }
        }
        if labels.insert(name.to_owned(), value).is_some() {
            return Err("a label twice");
        }
        rest = characters.as_str();
        if let Some(more) = rest.strip_prefix(',') {
            rest = more;
        } else if !rest.is_empty() {
            return Err("no comma between labels");
        }
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::Metrics;

    const GOOD: &str = "# HELP a_tunnels Ended, by outcome.\n# TYPE a_tunnels counter\n\
        a_tunnels_total{outcome=\"finished\"} 3\na_tunnels_total{outcome=\"say \\\"no\\\"\"} 2\n\
        # HELP open Open.\n# TYPE open gauge\nopen 7\n\
        # HELP dial_seconds Dial.\n# TYPE dial_seconds histogram\n# UNIT dial_seconds seconds\n\
        dial_seconds_sum 0.5\ndial_seconds_count 4\ndial_seconds_bucket{le=\"1.0\"} 3\n\
        dial_seconds_bucket{le=\"+Inf\"} 4\n# EOF\n";

    #[test]
    fn values_are_found_by_name_and_labels() {
        let metrics = Metrics::parse(GOOD).unwrap();
        assert_eq!(metrics.find("open", &[]), Some(7.0));
        assert_eq!(metrics.find("opened", &[]), None);
        assert_eq!(
            metrics.value("a_tunnels_total", &[("outcome", "finished")]),
            3.0
        );
        assert_eq!(metrics.sum("a_tunnels_total"), 5.0);
        assert_eq!(metrics.by("a_tunnels_total", "outcome")["say \"no\""], 2.0);
        assert_eq!(metrics.families().count(), 3);
    }

    #[test]
    fn what_breaks_the_format_is_refused() {
        for (from, to) in [
            ("# EOF\n", ""),
            ("# TYPE open gauge\n", ""),
            ("# HELP open Open.\n", ""),
            ("# TYPE open gauge", "# TYPE open mystery"),
            ("open 7", "open seven"),
            ("open 7", "open 7\nopen 7"),
            ("open 7", "shut 7"),
            ("open 7", "open 7\na_tunnels_total{outcome=\"late\"} 1"),
            ("# HELP open", "# HELP a_tunnels"),
            ("a_tunnels_total{outcome=\"finished\"} 3", "a_tunnels 3"),
            (
                "a_tunnels_total{outcome=\"finished\"} 3",
                "a_tunnels_total -3",
            ),
            ("outcome=\"finished\"", "outcome=\"finished"),
            ("outcome=\"finished\"", "outcome=finished"),
            ("outcome=\"finished\"", "outcome=\"a\"b=\"c\""),
            ("outcome=\"finished\"", "outcome=\"a\",outcome=\"c\""),
            ("UNIT dial_seconds seconds", "UNIT dial_seconds bytes"),
            ("_bucket{le=\"1.0\"} 3", "_bucket{le=\"1.0\"} 5"),
            ("dial_seconds_count 4", "dial_seconds_count 5"),
            ("dial_seconds_sum 0.5\n", ""),
        ] {
            let bad = GOOD.replacen(from, to, 1);
            assert_ne!(bad, GOOD, "{from}");
            assert!(Metrics::parse(&bad).is_err(), "{bad}");
        }
    }
}
