//! Prometheus' text exposition format, version 0.0.4.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::series::{QUANTILES, Series, quantiles};
use super::table::Row;

/// Appends a family: help, type, then its samples in label order. Labels are sorted by name, as the Go client does.
pub(super) fn write_family(page: &mut String, row: &Row, series: &BTreeMap<Vec<Box<str>>, Series>) {
    if series.is_empty() {
        return;
    }
    let name = row.name;
    // Writing into a String cannot fail.
    let _ = writeln!(page, "# HELP {name} {}", row.help);
    let _ = writeln!(page, "# TYPE {name} {}", row.kind.as_str());
    for (values, series) in series {
        let mut labels: Vec<(&str, &str)> = row
            .labels
            .iter()
            .copied()
            .zip(values.iter().map(AsRef::as_ref))
            .collect();
        labels.sort_unstable();
        write_series(page, name, &labels, series);
    }
}

fn write_series(page: &mut String, name: &str, labels: &[(&str, &str)], series: &Series) {
    match series {
        Series::Counter(value) | Series::Gauge(value) => {
            sample(page, name, "", labels, None, *value)
        }
        Series::Histogram {
            bounds,
            counts,
            sum,
            count,
        } => {
            let mut below = 0;
            for (bound, n) in bounds.iter().zip(counts) {
                below += n;
                let bound = number(*bound);
                sample(
                    page,
                    name,
                    "_bucket",
                    labels,
                    Some(("le", &bound)),
                    whole(below),
                );
            }
            sample(
                page,
                name,
                "_bucket",
                labels,
                Some(("le", "+Inf")),
                whole(*count),
            );
            sample(page, name, "_sum", labels, None, *sum);
            sample(page, name, "_count", labels, None, whole(*count));
        }
        Series::Summary { recent, sum, count } => {
            for (q, value) in QUANTILES.iter().zip(quantiles(recent)) {
                let q = number(*q);
                sample(page, name, "", labels, Some(("quantile", &q)), value);
            }
            sample(page, name, "_sum", labels, None, *sum);
            sample(page, name, "_count", labels, None, whole(*count));
        }
    }
}

fn sample(
    page: &mut String,
    name: &str,
    suffix: &str,
    labels: &[(&str, &str)],
    extra: Option<(&str, &str)>,
    value: f64,
) {
    page.push_str(name);
    page.push_str(suffix);
    let mut open = false;
    for (label, text) in labels.iter().copied().chain(extra) {
        page.push(if open { ',' } else { '{' });
        open = true;
        page.push_str(label);
        page.push_str("=\"");
        escape(page, text);
        page.push('"');
    }
    if open {
        page.push('}');
    }
    page.push(' ');
    page.push_str(&number(value));
    page.push('\n');
}

fn escape(page: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\\' => page.push_str("\\\\"),
            '"' => page.push_str("\\\""),
            '\n' => page.push_str("\\n"),
            c => page.push(c),
        }
    }
}

fn number(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        value.to_string()
    }
}

#[allow(clippy::cast_precision_loss)] // Exact up to 2⁵³ observations.
fn whole(count: u64) -> f64 {
    count as f64
}
