//! `karpenter_scheduler_pending_pods_by_effective_zone_count`: which zones the pods that wait can run in at all, as their
//! selectors, affinities and volumes have it. A zone that fills up while others are idle is seen here first.

use std::collections::{BTreeMap, BTreeSet};

use karpenter_api::labels::ZONE;
use karpenter_model::{LabelRegistry, Pod, Problem};
use karpenter_runtime::metrics::Metrics;
use karpenter_solver::Wares;

const NAME: &str = "karpenter_scheduler_pending_pods_by_effective_zone_count";
/// Pods that may run in several zones.
const FLEXIBLE: &str = "flexible";
/// Pods that may run in none.
const NONE: &str = "none";

/// Sets the gauge for the pods of a plan.
pub(super) fn tell(metrics: &Metrics, controller: &'static str, problem: &Problem, wares: &Wares) {
    metrics.remove(NAME, &[("controller", controller)]);
    for (zone, pods) in count(problem, wares) {
        let labels = [("controller", controller), ("zone", zone.as_str())];
        metrics.set(NAME, &labels, f64::from(pods));
    }
}

fn count(problem: &Problem, wares: &Wares) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    if problem.pods.is_empty() {
        return counts;
    }
    let offered: Vec<_> = problem
        .pools
        .iter()
        .map(|pool| (pool, wares.zones(&pool.instance_types)))
        .collect();
    let sold = offered.iter().flat_map(|(pool, zones)| {
        let zones = zones.iter().map(|zone| &**zone);
        zones.filter(|zone| pool.requirements.allows(ZONE, zone))
    });
    let there = problem
        .nodes
        .iter()
        .filter_map(|n| n.labels.get(ZONE).map(String::as_str));
    let zones: BTreeSet<&str> = sold.chain(there).filter(|z| !z.is_empty()).collect();
    for pod in problem.pods.iter().filter(|p| !p.is_virtual()) {
        let zone = effective(pod, &zones, &problem.labels);
        *counts.entry(zone.to_owned()).or_default() += 1;
    }
    counts
}

fn effective<'a>(pod: &Pod, zones: &BTreeSet<&'a str>, labels: &LabelRegistry) -> &'a str {
    let Ok(demands) = pod.node_demands(labels) else {
        return NONE;
    };
    let stored = pod.storage.as_deref().map(|s| s.alternatives.as_slice());
    let stored = stored.unwrap_or_default();
    let mut open = zones.iter().filter(|zone| {
        let asked = demands.alternatives.iter().any(|r| r.allows(ZONE, zone));
        asked && (stored.is_empty() || stored.iter().any(|r| r.allows(ZONE, zone)))
    });
    match (open.next(), open.next()) {
        (None, _) => NONE,
        (Some(zone), None) => zone,
        (Some(_), Some(_)) => FLEXIBLE,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use karpenter_model::NodeView;

    use super::*;

    fn pod(zone: Option<&str>) -> Arc<Pod> {
        let selector = zone.map(|z| (ZONE.to_owned(), z.to_owned()));
        Arc::new(Pod {
            node_selector: selector.into_iter().collect(),
            ..Pod::default()
        })
    }

    #[test]
    fn pods_count_where_they_may_run() {
        let node = |zone: &str| {
            let labels = [(ZONE.to_owned(), zone.to_owned())].into();
            Arc::new(NodeView {
                labels,
                ..NodeView::default()
            })
        };
        let problem = Problem {
            nodes: vec![node("a"), node("b"), node("")],
            pods: vec![pod(None), pod(Some("a")), pod(Some("a")), pod(Some("c"))],
            ..Problem::default()
        };
        let counts = count(&problem, &Wares::default());
        let expected = [("a", 2), ("flexible", 1), ("none", 1)];
        let expected = expected.map(|(zone, n)| (zone.to_owned(), n));
        assert_eq!(counts, BTreeMap::from(expected));
    }
}
