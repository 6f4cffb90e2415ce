//! Explanations as lines to read.

use karpenter_controllers::explain::{Allowed, NodeReport, PodReport, PoolReport};

use crate::output::line;

pub(super) fn node(report: &NodeReport) {
    let [instance_type, capacity_type, zone] = &report.machine;
    let price = report
        .price_per_hour
        .map_or("price unknown".to_owned(), |p| format!("${p:.4}/h"));
    let shown = if report.node.is_empty() {
        format!("NodeClaim {}, no Node yet", report.node_claim)
    } else {
        format!("Node {} (NodeClaim {})", report.node, report.node_claim)
    };
    line(&format!(
        "{shown} of NodePool {}: {instance_type} {capacity_type} in {zone}, {price}, {} pods of which {} would move",
        report.node_pool, report.pods, report.pods_to_move
    ));
    for end in &report.ends {
        line(&format!("  ends: {end}"));
    }
    for way in &report.alternatives {
        let verdict = if way.goes { "goes" } else { "stays" };
        line(&format!("  {}: {verdict}: {}", way.reason, way.why));
        if let (Some(before), Some(after)) = (way.price_before, way.price_after) {
            line(&format!("    ${before:.4}/h before, ${after:.4}/h after"));
        }
    }
}

pub(super) fn pod(report: &PodReport) {
    line(&format!("Pod {}: {}", report.pod, report.outcome));
    if let Some(price) = report.price_per_hour {
        line(&format!("  at ${price:.4}/h"));
    }
    for hold in &report.holds {
        line(&format!("  {hold}"));
    }
    for funnel in &report.node_pools {
        for step in &funnel.steps {
            line(&format!("  {}: {step}", funnel.node_pool));
        }
    }
}

pub(super) fn pool(report: &PoolReport) {
    line(&format!(
        "NodePool {}: {} nodes at ${:.4}/h, {} of them unavailable; {} after {}",
        report.node_pool,
        report.nodes,
        report.price_per_hour,
        report.disrupting,
        report.consolidation_policy,
        if report.consolidate_after.is_empty() {
            "0s"
        } else {
            &report.consolidate_after
        }
    ));
    for warning in &report.warnings {
        line(&format!("  warning: {warning}"));
    }
    line(&format!("  now: {}", words(&report.now)));
    for window in &report.windows {
        let until = window.until.as_deref().unwrap_or("then on");
        line(&format!(
            "  {} until {until}: {}",
            window.from,
            words(&window.allowed)
        ));
    }
}

fn words(all: &[Allowed]) -> String {
    let each: Vec<String> = all
        .iter()
        .map(|a| {
            let allowed = a.allowed.map_or("all".to_owned(), |n| n.to_string());
            let left = a.left.map_or(String::new(), |n| format!(" ({n} left)"));
            format!("{} {allowed}{left}", a.reason)
        })
        .collect();
    each.join(", ")
}
