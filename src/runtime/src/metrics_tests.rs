//! The registry and its page.

use std::time::Duration;

use super::table::{Kind, TABLE};
use super::*;

#[test]
fn names_are_unique_and_well_formed() {
    let mut seen = std::collections::BTreeSet::new();
    for row in TABLE {
        assert!(seen.insert(row.name), "{} stands twice", row.name);
        assert!(
            row.name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
            "{}",
            row.name
        );
        assert_eq!(
            row.kind == Kind::Counter,
            row.name.ends_with("_total") && row.kind != Kind::Gauge,
            "{}: counters and only they end in _total (gauge nodepools_cost_total is the reference's exception)",
            row.name
        );
        assert!(
            row.help.ends_with('.') && !row.help.contains(['\n', '\\']),
            "{}",
            row.name
        );
        if let Kind::Histogram(bounds) = row.kind {
            assert!(bounds.is_sorted() && !bounds.is_empty(), "{}", row.name);
        }
        let mut labels = row.labels.to_vec();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(
            labels.len(),
            row.labels.len(),
            "{} repeats a label",
            row.name
        );
    }
}

#[test]
fn the_table_is_the_contract() {
    let lines: Vec<String> = TABLE
        .iter()
        .map(|row| {
            let buckets = match row.kind {
                Kind::Histogram(bounds) => format!(" {bounds:?}"),
                _ => String::new(),
            };
            format!(
                "{} {} [{}]{buckets}",
                row.kind.as_str(),
                row.name,
                row.labels.join(",")
            )
        })
        .collect();
    insta::assert_snapshot!("metrics_table", lines.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn the_page_reads_as_prometheus_expects() {
    let metrics = Metrics::default();
    metrics.set("karpenter_cluster_state_synced", &[], 1.0);
    let created = [
        ("nodepool", "b"),
        ("reason", "provisioned"),
        ("min_values_relaxed", "false"),
    ];
    metrics.inc("karpenter_nodeclaims_created_total", &created);
    metrics.add("karpenter_nodeclaims_created_total", &created, 2.0);
    metrics.inc(
        "karpenter_nodeclaims_created_total",
        &[("nodepool", "a \"quoted\\\n"), ("reason", "drifted")],
    );
    for value in [1.0, 3.0, 5000.0] {
        metrics.observe(
            "karpenter_nodeclaims_termination_duration_seconds",
            &[("nodepool", "a")],
            value,
        );
    }
    for value in 1..=100 {
        metrics.observe(
            "karpenter_nodes_termination_duration_seconds",
            &[("nodepool", "a")],
            f64::from(value),
        );
    }
    insta::assert_snapshot!("metrics_page", metrics.render());
    tokio::time::sleep(Duration::from_secs(601)).await;
    let page = metrics.render();
    assert!(
        page.contains(
            r#"karpenter_nodes_termination_duration_seconds{nodepool="a",quantile="0.5"} NaN"#
        ),
        "{page}"
    );
    assert!(
        page.contains(r#"karpenter_nodes_termination_duration_seconds_count{nodepool="a"} 100"#),
        "{page}"
    );
}

#[test]
fn samples_can_be_removed_by_some_of_their_labels() {
    let metrics = Metrics::default();
    for (pool, resource) in [("a", "cpu"), ("a", "memory"), ("b", "cpu")] {
        metrics.set(
            "karpenter_nodepools_usage",
            &[("nodepool", pool), ("resource_type", resource)],
            1.0,
        );
    }
    metrics.remove("karpenter_nodepools_usage", &[("nodepool", "a")]);
    assert_eq!(
        metrics.value("karpenter_nodepools_usage", &[("nodepool", "a")]),
        None
    );
    assert_eq!(metrics.value("karpenter_nodepools_usage", &[]), Some(1.0));
    metrics.remove("karpenter_nodepools_usage", &[]);
    assert_eq!(metrics.render(), "");
}

#[test]
fn hooks_compute_gauges_at_each_scrape() {
    let metrics = Metrics::default();
    let seen = Arc::new(Mutex::new(0));
    let counter = Arc::clone(&seen);
    metrics.on_scrape(move |m| {
        let mut n = counter.lock();
        *n += 1;
        m.set("karpenter_cluster_state_node_count", &[], f64::from(*n));
    });
    assert!(
        metrics
            .render()
            .ends_with("karpenter_cluster_state_node_count 1\n")
    );
    assert!(
        metrics
            .render()
            .ends_with("karpenter_cluster_state_node_count 2\n")
    );
}

#[test]
fn a_hook_that_is_done_is_dropped() {
    let metrics = Metrics::default();
    let alive = Arc::new(Mutex::new(()));
    let hook = Arc::clone(&alive);
    metrics.on_scrape_while(move |_| Arc::strong_count(&hook) > 1);
    let _ = metrics.render();
    assert_eq!(metrics.inner.hooks.lock().len(), 1);
    drop(alive);
    let _ = metrics.render();
    assert!(metrics.inner.hooks.lock().is_empty());
}

#[test]
#[should_panic(expected = "not in the table")]
fn an_unknown_name_fails_a_debug_build() {
    Metrics::default().inc("karpenter_nodeclaims_made_total", &[]);
}

#[test]
#[should_panic(expected = "has no label pool")]
fn an_unknown_label_fails_a_debug_build() {
    Metrics::default().inc("karpenter_nodes_drained_total", &[("pool", "a")]);
}

#[test]
#[should_panic(expected = "is a counter")]
fn the_wrong_kind_fails_a_debug_build() {
    Metrics::default().set("karpenter_nodes_drained_total", &[("nodepool", "a")], 1.0);
}
