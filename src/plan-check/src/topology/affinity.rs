//! Required pod affinity and anti-affinity.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::PodAffinityTerm;
use karpenter_model::{Pod, Problem};

use super::places::{Place, Places};
use super::{coming, meant};
use crate::Findings;

/// Kinds that a term of a kind means.
fn meant_kinds(
    problem: &Problem,
    places: &Places<'_>,
    kind: usize,
    term: &PodAffinityTerm,
) -> BTreeSet<usize> {
    let all = &places.kinds.examples;
    let owner = all.get(kind);
    let means = |other: &Pod| owner.is_some_and(|o| meant::by_term(problem, term, o, other));
    let kinds = all.iter().enumerate();
    kinds
        .filter(|(_, other)| means(other))
        .map(|(kind, _)| kind)
        .collect()
}

/// Judges what pods of a kind exclude.
pub(crate) fn apart(
    problem: &Problem,
    places: &Places<'_>,
    kind: usize,
    term: &PodAffinityTerm,
    findings: &mut Findings,
) {
    let key = term.topology_key.as_str();
    let meant = meant_kinds(problem, places, kind, term);
    let mut by_domain: BTreeMap<&str, Vec<(usize, &Place<'_>, usize)>> = BTreeMap::new();
    for other in &meant {
        for (at, place, _) in places.of(*other) {
            for domain in place.domains(key) {
                by_domain
                    .entry(domain)
                    .or_default()
                    .push((at, place, *other));
            }
        }
    }
    for (_, here, mine) in places.of(kind) {
        // In several domains two places are neighbours once all the same.
        let mut neighbours: BTreeMap<(usize, usize), &Place<'_>> = BTreeMap::new();
        for domain in here.domains(key) {
            for (at, place, other) in by_domain.get(domain).into_iter().flatten() {
                neighbours.insert((*at, *other), place);
            }
        }
        for ((_, other), place) in neighbours {
            let Some(theirs) = place.pods.get(&other) else {
                continue;
            };
            // Two pods that were both there before are not this plan's doing.
            if mine.planned.is_empty() && theirs.planned.is_empty() {
                continue;
            }
            for (pod, planned) in mine.each() {
                for (excluded, also) in theirs.each() {
                    if (planned || also) && excluded.key != pod.key {
                        findings.error(
                            "anti-affinity",
                            format!(
                                "pods {} and {} may share {key} although the first excludes it",
                                pod.key, excluded.key
                            ),
                        );
                    }
                }
            }
        }
    }
}

/// Judges whom pods of a kind want to be with.
pub(crate) fn together(
    problem: &Problem,
    places: &Places<'_>,
    kind: usize,
    term: &PodAffinityTerm,
    findings: &mut Findings,
) {
    let key = term.topology_key.as_str();
    // kube-scheduler counts only pods that all terms of the pod mean.
    let terms = places
        .kinds
        .examples
        .get(kind)
        .map_or(&[][..], |e| meant::together(e));
    let all = terms.iter().map(|t| meant_kinds(problem, places, kind, t));
    let meant = all.reduce(|a, b| &a & &b).unwrap_or_default();
    // Pods of this plan that are meant but do not share the rule are free to come after it.
    let mut sharing = 0;
    let mut certain: BTreeMap<&str, usize> = BTreeMap::new();
    for other in &meant {
        let example = places.kinds.examples.get(*other);
        let has_rule = example.is_some_and(|e| meant::together(e).contains(term));
        for (_, place, group) in places.of(*other) {
            // Who is in no domain of any term's key is not counted at all.
            if terms
                .iter()
                .any(|t| !place.domains(&t.topology_key).is_empty())
            {
                sharing += group.there.len();
                if has_rule {
                    sharing += group.planned.len();
                }
            }
            if let Some(domain) = place.domain(key) {
                *certain.entry(domain).or_default() += group.len();
            }
        }
    }
    if let Some(owner) = places.kinds.examples.get(kind) {
        coming::add_certain(problem, places, owner, key, &mut certain);
    }
    let itself = usize::from(meant.contains(&kind));
    for (_, here, mine) in places.of(kind) {
        let on_node = here.pods.iter().filter(|(k, _)| meant.contains(k));
        let on_node: usize = on_node.map(|(_, group)| group.len()).sum();
        let with_me = match here.domain(key) {
            Some(domain) => certain.get(domain).copied().unwrap_or_default(),
            None => on_node,
        };
        let partner = with_me > itself;
        // The first of a group that selects itself may go anywhere, if nobody of the group runs elsewhere.
        let first = itself == 1 && sharing <= itself;
        if here.domains(key).is_empty() || !(partner || first) {
            for pod in &mine.planned {
                findings.error(
                    "affinity",
                    format!(
                        "pod {} is not put with the pods it wants to share {key} with",
                        pod.key
                    ),
                );
            }
        }
    }
}
