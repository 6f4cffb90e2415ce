//! The metrics table: one row makes registration, docs line and golden. Names, labels and buckets are contract.

/// Registry of all metrics; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    // INTERFACE: the runtime author fills this in.
}

impl Metrics {
    /// Adds 1 to the counter `name` (with its `karpenter_` prefix) under `labels` (name, value pairs of the table's row).
    pub fn inc(&self, _name: &'static str, _labels: &[(&'static str, &str)]) {}
    /// Adds `by` to a counter.
    pub fn add(&self, _name: &'static str, _labels: &[(&'static str, &str)], _by: f64) {}
    /// Sets a gauge.
    pub fn set(&self, _name: &'static str, _labels: &[(&'static str, &str)], _value: f64) {}
    /// Observes into a histogram or summary.
    pub fn observe(&self, _name: &'static str, _labels: &[(&'static str, &str)], _value: f64) {}
}
