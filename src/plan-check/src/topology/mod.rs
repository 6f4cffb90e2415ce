//! Rules between pods, judged on the cluster as it will be: required anti-affinity, required affinity and
//! DoNotSchedule spread, by hostname and by zone-like keys.
//!
//! A machine that is still to be bought may end up in any domain its claim allows. What must never hold is judged
//! against all of them, what must hold against each of them.

mod affinity;
mod coming;
mod meant;
mod places;
mod spread;

use karpenter_model::Pod;

use crate::Findings;
use crate::case::Case;
use places::Places;

pub(crate) fn check(case: &Case<'_>, findings: &mut Findings) {
    let problem = case.problem;
    let there = problem.nodes.iter().flat_map(|n| &n.pods);
    let all = problem.pods.iter().chain(there).chain(&problem.daemons);
    if !{ all }.any(|p| is_ruled(p)) {
        return;
    }
    let places = Places::new(case);
    coming::apart(problem, &places, findings);
    for (kind, example) in places.kinds.examples.iter().enumerate() {
        for term in meant::apart(example) {
            affinity::apart(problem, &places, kind, term, findings);
        }
        if !places.is_planned(kind) {
            continue;
        }
        for term in meant::together(example) {
            affinity::together(problem, &places, kind, term, findings);
        }
        for constraint in meant::spread(example) {
            spread::check(problem, &places, kind, example, constraint, findings);
        }
    }
}

/// Whether a pod has rules about others.
fn is_ruled(pod: &Pod) -> bool {
    !pod.spread.is_empty()
        || pod
            .affinity
            .as_ref()
            .is_some_and(|a| a.pod_affinity.is_some() || a.pod_anti_affinity.is_some())
}
