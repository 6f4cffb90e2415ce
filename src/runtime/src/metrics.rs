//! The metrics registry: values of the [`table`]'s families, and the text page Prometheus reads. Names, labels and
//! buckets are contract. An unknown name or label is a bug of the caller: it fails a debug build, and is ignored in
//! a release build, where a missing sample is better than a dead controller.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use series::Series;
use table::{Kind, Row, TABLE};

mod series;
pub mod table;
mod text;

/// Runs before each scrape: gauges that describe a state are computed then, not whenever time passes.
/// False = it has nothing left to tell, and is dropped.
type ScrapeHook = Box<dyn Fn(&Metrics) -> bool + Send + Sync>;

/// Registry of all metrics; cheap to clone.
#[derive(Clone, Default)]
pub struct Metrics {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    families: Mutex<BTreeMap<&'static str, Family>>,
    hooks: Mutex<Vec<ScrapeHook>>,
}

/// The samples of one row, by label values in the row's order.
struct Family {
    row: &'static Row,
    series: BTreeMap<Vec<Box<str>>, Series>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Adds 1 to the counter `name` (with its `karpenter_` prefix) under `labels` (name, value pairs of the table's
    /// row; a label left out is empty).
    pub fn inc(&self, name: &'static str, labels: &[(&'static str, &str)]) {
        self.add(name, labels, 1.0);
    }

    /// Adds `by` to a counter; negative amounts are ignored.
    pub fn add(&self, name: &'static str, labels: &[(&'static str, &str)], by: f64) {
        if by >= 0.0 {
            self.update(name, labels, |series| series.add(by));
        }
    }

    /// Sets a gauge.
    pub fn set(&self, name: &'static str, labels: &[(&'static str, &str)], value: f64) {
        self.update(name, labels, |series| series.set(value));
    }

    /// Makes `samples` all there is of a gauge: label values in the order of the table's row, and the value. For gauges
    /// about many objects, which are told anew at each scrape.
    pub fn replace(
        &self,
        name: &'static str,
        samples: impl IntoIterator<Item = (Vec<Box<str>>, f64)>,
    ) {
        let Some(row) = TABLE.iter().find(|row| row.name == name) else {
            debug_assert!(false, "metric {name} is not in the table");
            return;
        };
        debug_assert!(row.kind == Kind::Gauge, "{name} is a {}", row.kind.as_str());
        let mut series = BTreeMap::new();
        for (values, value) in samples {
            let fits = values.len() == row.labels.len();
            debug_assert!(fits, "{name} has the labels {:?}", row.labels);
            if fits {
                series.insert(values, Series::Gauge(value));
            }
        }
        let mut families = self.inner.families.lock();
        families.insert(row.name, Family { row, series });
    }

    /// Observes into a histogram or summary.
    pub fn observe(&self, name: &'static str, labels: &[(&'static str, &str)], value: f64) {
        self.update(name, labels, |series| series.observe(value));
    }

    /// Drops all samples of `name` that carry these labels; all of them when there are none.
    pub fn remove(&self, name: &'static str, labels: &[(&'static str, &str)]) {
        let mut families = self.inner.families.lock();
        let Some(family) = families.get_mut(name) else {
            return;
        };
        let positions: Vec<(usize, &str)> = labels
            .iter()
            .filter_map(|(label, value)| Some((family.row.position(label)?, *value)))
            .collect();
        debug_assert_eq!(
            positions.len(),
            labels.len(),
            "{name} lacks a label of {labels:?}"
        );
        family.series.retain(|values, _| {
            !positions
                .iter()
                .all(|(i, value)| values.get(*i).is_some_and(|v| **v == **value))
        });
    }

    /// Runs `hook` before each scrape.
    pub fn on_scrape(&self, hook: impl Fn(&Metrics) + Send + Sync + 'static) {
        self.on_scrape_while(move |metrics| {
            hook(metrics);
            true
        });
    }

    /// Runs `hook` before each scrape until it returns false.
    pub fn on_scrape_while(&self, hook: impl Fn(&Metrics) -> bool + Send + Sync + 'static) {
        self.inner.hooks.lock().push(Box::new(hook));
    }

    /// The value of a counter or gauge; none when it was never touched. For tests and for expectations of scenarios.
    #[must_use]
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let families = self.inner.families.lock();
        let family = families.get(name)?;
        family
            .series
            .iter()
            .filter(|(values, _)| {
                labels.iter().all(|(label, value)| {
                    family
                        .row
                        .position(label)
                        .and_then(|i| values.get(i))
                        .is_some_and(|v| **v == **value)
                })
            })
            .map(|(_, series)| series.scalar())
            .reduce(|a, b| a + b)
    }

    /// The page at `/metrics`, in Prometheus' text format 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        // Taken out while they run, so that a hook may itself use the registry.
        let mut hooks = std::mem::take(&mut *self.inner.hooks.lock());
        hooks.retain(|hook| hook(self));
        let mut held = self.inner.hooks.lock();
        let added_meanwhile = std::mem::replace(&mut *held, hooks);
        held.extend(added_meanwhile);
        drop(held);
        let families = self.inner.families.lock();
        let mut page = String::new();
        for family in families.values() {
            text::write_family(&mut page, family.row, &family.series);
        }
        page
    }

    fn update(
        &self,
        name: &'static str,
        labels: &[(&'static str, &str)],
        change: impl FnOnce(&mut Series) -> bool,
    ) {
        let Some(row) = TABLE.iter().find(|row| row.name == name) else {
            debug_assert!(false, "metric {name} is not in the table");
            return;
        };
        for (label, _) in labels {
            debug_assert!(
                row.position(label).is_some(),
                "metric {name} has no label {label}, only {:?}",
                row.labels
            );
        }
        let values: Vec<Box<str>> = row
            .labels
            .iter()
            .map(|label| {
                let value = labels.iter().find(|(l, _)| l == label);
                value.map_or("", |(_, v)| v).into()
            })
            .collect();
        let mut families = self.inner.families.lock();
        let family = families.entry(row.name).or_insert_with(|| Family {
            row,
            series: BTreeMap::new(),
        });
        let series = family
            .series
            .entry(values)
            .or_insert_with(|| Series::new(row));
        let fits = change(series);
        drop(families);
        debug_assert!(fits, "metric {name} is a {}", row.kind.as_str());
    }
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
