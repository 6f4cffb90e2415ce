//! Topology spread constraints that must hold.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use karpenter_api::labels as names;
use karpenter_model::{Pod, PoolView, Problem};

use super::meant;
use super::places::{Place, Places};
use crate::Findings;
use crate::case::offers;
use crate::fits::untolerated;
use crate::labels::{Bought, Labelled, admits, allows};
use crate::volumes::in_reach;

/// Judges how pods of a kind are spread.
pub(crate) fn check(
    problem: &Problem,
    places: &Places<'_>,
    kind: usize,
    owner: &Pod,
    constraint: &TopologySpreadConstraint,
    findings: &mut Findings,
) {
    if !meant::by_constraint(constraint, owner, owner) {
        return; // It does not count itself, so the order of placement decides and the end state says nothing.
    }
    let key = constraint.topology_key.as_str();
    let counts: Vec<bool> = (places.all.iter())
        .map(|p| p.counts(problem, owner, constraint))
        .collect();
    let counts = |at: usize| counts.get(at).copied().unwrap_or_default();
    let mut all: BTreeMap<&str, usize> = BTreeMap::new();
    // Pods of this plan that do not share the rule are free to come after those that do.
    let mut sharing: BTreeMap<&str, usize> = BTreeMap::new();
    for (other, example) in places.kinds.examples.iter().enumerate() {
        if !meant::by_constraint(constraint, owner, example) {
            continue;
        }
        let has_rule = example.spread.contains(constraint);
        for (_, place, group) in places.of(other).filter(|(at, _, _)| counts(*at)) {
            let planned = if has_rule { group.planned.len() } else { 0 };
            // Who is on the way out is not counted any more.
            let there = group.there.iter().filter(|p| p.deleted.is_none()).count();
            for domain in place.domains(key) {
                *all.entry(domain).or_default() += group.planned.len() + there;
                *sharing.entry(domain).or_default() += there + planned;
            }
        }
    }
    let counting = places.all.iter().enumerate().filter(|(at, _)| counts(*at));
    let eligible = eligible_domains(problem, owner, constraint, counting.map(|(_, p)| p));
    let few = constraint
        .min_domains
        .is_some_and(|m| i64::try_from(eligible.len()).is_ok_and(|n| n < i64::from(m)));
    let count = |of: &BTreeMap<&str, usize>, domain: &str| {
        let pods = of.get(domain).copied().unwrap_or_default();
        i64::try_from(pods).unwrap_or(i64::MAX)
    };
    // A new host is always an option, with nobody on it.
    let least = if few || key == names::HOSTNAME {
        0
    } else {
        let least = eligible.iter().map(|d| count(&all, d)).min();
        least.unwrap_or(0)
    };
    for (_, here, mine) in places.of(kind) {
        let fault = match here.domain(key) {
            None => Some(format!(
                "is spread by {key} but may land in any of [{}]",
                here.domains(key).join(", ")
            )),
            Some(domain) => {
                let skew = count(&sharing, domain) - least;
                (skew > i64::from(constraint.max_skew)).then(|| {
                    format!(
                        "makes a skew of {skew} over {key}, at most {} is allowed",
                        constraint.max_skew
                    )
                })
            }
        };
        let Some(fault) = fault else { continue };
        for pod in &mine.planned {
            findings.error("spread", format!("pod {} {fault}", pod.key));
        }
    }
}

/// Domains among which the pod is spread: of the nodes that count, and of offerings that it could use.
fn eligible_domains<'a>(
    problem: &'a Problem,
    pod: &Pod,
    constraint: &TopologySpreadConstraint,
    counting: impl Iterator<Item = &'a Place<'a>>,
) -> BTreeSet<String> {
    let key = constraint.topology_key.as_str();
    // A machine to be bought is in a domain that can be bought: those are looked at below.
    let there = counting.filter(|p| p.exists());
    let mut out: BTreeSet<String> = there
        .flat_map(|p| p.domains(key))
        .map(str::to_owned)
        .collect();
    // Every new machine is a host of its own, which nobody can name ahead.
    if key == names::HOSTNAME {
        return out;
    }
    let alike = alike(problem, pod, constraint);
    let is_reached = |node: &As<'_>| alike.is_empty() || alike.iter().any(|p| in_reach(p, node));
    for pool in &problem.pools {
        if untolerated(&pool.taints, pod, true).is_some() || rules_out(pool, pod, problem) {
            continue;
        }
        let allowed = pool.requirements.map.get(key);
        for instance_type in &pool.instance_types {
            for offering in offers(&pool.requirements.map, instance_type) {
                let node = Bought {
                    labels: &pool.labels,
                    requirements: &pool.requirements.map,
                    instance_type,
                    offering,
                };
                let mut hard = meant::spread(pod).filter(|c| c.topology_key != names::HOSTNAME);
                // What lacks the label of another spread that must hold is in no domain of this one.
                if !hard.all(|c| node.label(&c.topology_key).is_some()) {
                    continue;
                }
                let values: Vec<&str> = match node.label(key) {
                    Some(Some(value)) => vec![value],
                    // One of those that the pool names, and a claim may name any of them.
                    Some(None) => {
                        let named = allowed.filter(|r| !r.complement).into_iter();
                        named
                            .flat_map(|r| r.values.iter().map(AsRef::as_ref))
                            .collect()
                    }
                    None => Vec::new(),
                };
                for value in values {
                    let node = As {
                        node: &node,
                        key,
                        value,
                    };
                    if !out.contains(value)
                        && allowed.is_none_or(|r| allows(r, value))
                        && admits(&node, pod, &problem.labels)
                        && is_reached(&node)
                    {
                        out.insert(value.to_owned());
                    }
                }
            }
        }
    }
    out
}

/// The pods to be placed that share a constraint with the pod, if all of them have volumes that are somewhere: where none
/// of those is, none of them makes a domain of a zone without nodes.
fn alike<'a>(
    problem: &'a Problem,
    pod: &Pod,
    constraint: &TopologySpreadConstraint,
) -> Vec<&'a Pod> {
    let shares =
        |p: &&Pod| p.spread.contains(constraint) && meant::by_constraint(constraint, pod, p);
    let all: Vec<&Pod> = problem.pods.iter().map(|p| &**p).filter(shares).collect();
    let is_bound = |p: &&Pod| {
        let storage = p.storage.as_deref();
        storage.is_some_and(|s| !s.alternatives.is_empty())
    };
    if all.iter().all(is_bound) {
        all
    } else {
        Vec::new()
    }
}

/// What may be bought, as it is if a label has this value.
struct As<'a> {
    node: &'a Bought<'a>,
    key: &'a str,
    value: &'a str,
}

impl Labelled for As<'_> {
    fn label(&self, key: &str) -> Option<Option<&str>> {
        if key == self.key {
            return Some(Some(self.value));
        }
        self.node.label(key)
    }
}

/// Whether no node of the pool can have the labels that the pod selects.
fn rules_out(pool: &PoolView, pod: &Pod, problem: &Problem) -> bool {
    pod.node_selector.iter().any(|(key, want)| {
        let key = problem.labels.normalize(key);
        match pool.labels.get(key) {
            Some(own) => own != want,
            None => {
                let allowed = pool.requirements.map.get(key);
                allowed.is_some_and(|r| !allows(r, want))
            }
        }
    })
}
