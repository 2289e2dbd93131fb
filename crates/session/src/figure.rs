//! Numbers that know what metrics call them, so that a server and its agents name them alike.

/// One number of `S`, as a metric: a measure, or a count.
#[derive(Debug, Clone, Copy)]
pub struct Figure<S, N = f64> {
    /// The metric's name, unit included.
    pub name: &'static str,
    /// The metric's help.
    pub help: &'static str,
    /// Whether it only ever grows.
    pub grows: bool,
    /// Reads it off.
    pub read: fn(&S) -> N,
}

/// Metrics count in floats: exact up to 2⁵³.
#[expect(
    clippy::cast_precision_loss,
    reason = "a loss beyond 2^53 is what the metrics format has"
)]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}
