//! What pods say about other pods: required affinity and anti-affinity in both directions, topology spread, and
//! their soft forms. All counts are made from classes of pods per node, never pod by pod.

use std::collections::{BTreeMap, BTreeSet};

use super::cluster::{Cluster, Node};
use super::filter::admitted_by_affinity;
use super::pod::{Pod, Spread, Term};
use crate::loops::selector::{self, tolerated};

/// Counts by value of one topology key.
type Domains = BTreeMap<String, i64>;

/// For each class, whether a test holds.
fn classes_where(cluster: &Cluster, test: impl Fn(&super::cluster::Class) -> bool) -> Vec<bool> {
    cluster.classes().iter().map(test).collect()
}

fn term_classes(cluster: &Cluster, term: &Term) -> Vec<bool> {
    classes_where(cluster, |c| {
        term.matches(
            &c.namespace,
            &cluster.namespace_labels(&c.namespace),
            &c.labels,
        )
    })
}

fn count(node: &Node, of: &[bool]) -> i64 {
    node.classes
        .iter()
        .filter(|(class, _)| of.get(**class).copied().unwrap_or(false))
        .map(|(_, n)| n)
        .sum()
}

fn count_by_domain(cluster: &Cluster, key: &str, of: &[bool]) -> Domains {
    let mut domains = Domains::new();
    if !of.contains(&true) {
        return domains;
    }
    for node in cluster.nodes() {
        if let Some(value) = node.labels.get(key) {
            let n = count(node, of);
            if n > 0 {
                *domains.entry(value.clone()).or_insert(0) += n;
            }
        }
    }
    domains
}

/// What the rules about other pods come to for one pod, computed before nodes are looked at.
pub(crate) struct PodRules {
    affinity: Vec<(String, Domains)>,
    /// The pod would satisfy its own affinity, and nobody else does yet: it may be the first.
    first_of_its_kind: bool,
    anti_affinity: Vec<(String, Domains)>,
    /// Topology keys and values that pods already there keep this pod out of.
    repelled_from: BTreeSet<(String, String)>,
    spread: Vec<HardSpread>,
}

struct HardSpread {
    key: String,
    max_skew: i64,
    counts: Domains,
    least: i64,
    /// 1 when the pod itself is counted by the constraint.
    own: i64,
}

/// Why a node does not satisfy the rules about other pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    Spread,
    SpreadLabelMissing,
    ExistingAntiAffinity,
    Affinity,
    AntiAffinity,
}

impl PodRules {
    pub(crate) fn new(cluster: &Cluster, pod: &Pod) -> Self {
        let own_namespace = cluster.namespace_labels(&pod.namespace);
        let matches_self = |t: &Term| t.matches(&pod.namespace, &own_namespace, &pod.labels);
        let affinity: Vec<(String, Domains)> = if pod.affinity.is_empty() {
            Vec::new()
        } else {
            // A pod counts only if it is meant by every term.
            let mut all = vec![true; cluster.classes().len()];
            for term in &pod.affinity {
                for (all, one) in all.iter_mut().zip(term_classes(cluster, term)) {
                    *all &= one;
                }
            }
            pod.affinity
                .iter()
                .map(|t| {
                    let domains = count_by_domain(cluster, &t.topology_key, &all);
                    (t.topology_key.clone(), domains)
                })
                .collect()
        };
        let nobody_yet = affinity.iter().all(|(_, d)| d.is_empty());
        let mut repelled_from = BTreeSet::new();
        if cluster.any_repelling() {
            for node in cluster.nodes() {
                for other in node.repelling.values() {
                    for term in other.anti_affinity.iter().filter(|t| matches_self(t)) {
                        if let Some(value) = node.labels.get(&term.topology_key) {
                            repelled_from.insert((term.topology_key.clone(), value.clone()));
                        }
                    }
                }
            }
        }
        Self {
            first_of_its_kind: nobody_yet && pod.affinity.iter().all(matches_self),
            affinity,
            anti_affinity: pod
                .anti_affinity
                .iter()
                .map(|t| {
                    let of = term_classes(cluster, t);
                    let domains = count_by_domain(cluster, &t.topology_key, &of);
                    (t.topology_key.clone(), domains)
                })
                .collect(),
            repelled_from,
            spread: hard_spread(cluster, pod),
        }
    }

    /// Whether `node` satisfies them, in the order in which the real scheduler's plugins ask.
    pub(crate) fn check(&self, node: &Node) -> Result<(), Broken> {
        for constraint in &self.spread {
            let Some(value) = node.labels.get(&constraint.key) else {
                return Err(Broken::SpreadLabelMissing);
            };
            let there = constraint.counts.get(value).copied().unwrap_or(0);
            if there + constraint.own - constraint.least > constraint.max_skew {
                return Err(Broken::Spread);
            }
        }
        let labelled = |key: &String| node.labels.get(key);
        let met = |(key, domains): &(String, Domains)| {
            labelled(key).is_some_and(|v| domains.get(v).is_some_and(|n| *n > 0))
        };
        if !self.affinity.iter().all(met) {
            let has_keys = self.affinity.iter().all(|(k, _)| labelled(k).is_some());
            if !(self.first_of_its_kind && has_keys) {
                return Err(Broken::Affinity);
            }
        }
        if self.anti_affinity.iter().any(met) {
            return Err(Broken::AntiAffinity);
        }
        let repelled = |(key, value): &(String, String)| labelled(key) == Some(value);
        if self.repelled_from.iter().any(repelled) {
            return Err(Broken::ExistingAntiAffinity);
        }
        Ok(())
    }
}

fn spread_classes(cluster: &Cluster, pod: &Pod, constraint: &Spread) -> Vec<bool> {
    classes_where(cluster, |c| {
        c.namespace == pod.namespace
            && !c.terminating
            && constraint
                .selector
                .as_ref()
                .is_some_and(|s| selector::selects(s, &c.labels))
    })
}

/// Whether a node takes part in a constraint by its policies.
fn counts_for(node: &Node, pod: &Pod, constraint: &Spread) -> bool {
    (!constraint.honor_affinity || admitted_by_affinity(pod, node))
        && (!constraint.honor_taints
            || node
                .taints
                .iter()
                .filter(|t| t.effect != "PreferNoSchedule")
                .all(|t| tolerated(&pod.tolerations, t)))
}

fn hard_spread(cluster: &Cluster, pod: &Pod) -> Vec<HardSpread> {
    let hard: Vec<&Spread> = pod.spread.iter().filter(|c| c.hard).collect();
    hard.iter()
        .map(|constraint| {
            let of = spread_classes(cluster, pod, constraint);
            let mut counts = Domains::new();
            for node in cluster.nodes() {
                // Only nodes that carry every key take part.
                if !hard
                    .iter()
                    .all(|c| node.labels.contains_key(&c.topology_key))
                    || !counts_for(node, pod, constraint)
                {
                    continue;
                }
                if let Some(value) = node.labels.get(&constraint.topology_key) {
                    *counts.entry(value.clone()).or_insert(0) += count(node, &of);
                }
            }
            let domains = i64::try_from(counts.len()).unwrap_or(i64::MAX);
            let least = if domains < constraint.min_domains.unwrap_or(1) {
                0
            } else {
                counts.values().min().copied().unwrap_or(0)
            };
            let own = constraint
                .selector
                .as_ref()
                .is_some_and(|s| selector::selects(s, &pod.labels));
            HardSpread {
                key: constraint.topology_key.clone(),
                max_skew: constraint.max_skew,
                counts,
                least,
                own: i64::from(own),
            }
        })
        .collect()
}

/// Points for the soft constraints by node name, higher is better, each 0 to 100; empty when there are none.
pub(crate) fn soft_spread(cluster: &Cluster, pod: &Pod, feasible: &[&Node]) -> Vec<i64> {
    let soft: Vec<&Spread> = pod.spread.iter().filter(|c| !c.hard).collect();
    if soft.is_empty() {
        return Vec::new();
    }
    let mut raw = vec![0_f64; feasible.len()];
    for constraint in soft {
        let of = spread_classes(cluster, pod, constraint);
        let mut counts = Domains::new();
        for node in cluster.nodes().filter(|n| counts_for(n, pod, constraint)) {
            if let Some(value) = node.labels.get(&constraint.topology_key) {
                *counts.entry(value.clone()).or_insert(0) += count(node, &of);
            }
        }
        let domains: BTreeSet<_> = feasible
            .iter()
            .filter_map(|n| n.labels.get(&constraint.topology_key))
            .collect();
        // The more domains, the less each one weighs; the real scheduler's formula.
        let weight = to_f64(i64::try_from(domains.len()).unwrap_or(0) + 2).ln();
        for (points, node) in raw.iter_mut().zip(feasible) {
            if let Some(value) = node.labels.get(&constraint.topology_key) {
                let there = counts.get(value).copied().unwrap_or(0);
                *points += to_f64(there) * weight + to_f64(constraint.max_skew - 1);
            }
        }
    }
    let rounded: Vec<i64> = raw.iter().map(|p| to_i64(p.round())).collect();
    let most = rounded.iter().max().copied().unwrap_or(0);
    let least = rounded.iter().min().copied().unwrap_or(0);
    rounded
        .iter()
        .map(|p| {
            if most == 0 {
                100
            } else {
                100 * (most + least - p) / most
            }
        })
        .collect()
}

/// Points for preferred affinity, the pod's own and that of pods already there, each 0 to 100; empty when there is none.
pub(crate) fn soft_affinity(cluster: &Cluster, pod: &Pod, feasible: &[&Node]) -> Vec<i64> {
    if pod.preferred.is_empty() && !cluster.any_preferring() {
        return Vec::new();
    }
    let mut weights: BTreeMap<(String, String), i64> = BTreeMap::new();
    for term in &pod.preferred {
        let of = term_classes(cluster, term);
        for (value, n) in count_by_domain(cluster, &term.topology_key, &of) {
            *weights
                .entry((term.topology_key.clone(), value))
                .or_insert(0) += n * term.weight;
        }
    }
    if cluster.any_preferring() {
        let own_namespace = cluster.namespace_labels(&pod.namespace);
        for node in cluster.nodes() {
            for other in node.preferring.values() {
                for term in &other.preferred {
                    if !term.matches(&pod.namespace, &own_namespace, &pod.labels) {
                        continue;
                    }
                    if let Some(value) = node.labels.get(&term.topology_key) {
                        let domain = (term.topology_key.clone(), value.clone());
                        *weights.entry(domain).or_insert(0) += term.weight;
                    }
                }
            }
        }
    }
    let raw: Vec<i64> = feasible
        .iter()
        .map(|node| {
            weights
                .iter()
                .filter(|((key, value), _)| node.labels.get(key) == Some(value))
                .map(|(_, w)| w)
                .sum()
        })
        .collect();
    let most = raw.iter().max().copied().unwrap_or(0);
    let least = raw.iter().min().copied().unwrap_or(0);
    raw.iter()
        .map(|p| {
            if most == least {
                0
            } else {
                100 * (p - least) / (most - least)
            }
        })
        .collect()
}

#[allow(clippy::cast_precision_loss)]
fn to_f64(n: i64) -> f64 {
    n as f64
}

#[allow(clippy::cast_possible_truncation)]
fn to_i64(n: f64) -> i64 {
    n as i64
}
