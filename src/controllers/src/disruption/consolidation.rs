//! What consolidating some nodes would come to (`lifecycle-and-disruption.md` §6.6): their pods fit elsewhere, or on
//! one machine that costs less at its worst, or it is not worth it and why. Shared by the two methods that differ in
//! which nodes they take together.

use std::collections::BTreeSet;
use std::sync::Arc;

use karpenter_api::labels;
use karpenter_model::plan::PricedOffering;
use karpenter_model::{InstanceType, Requirement};

use super::allowance::Allowance;
use super::candidate::{Candidate, Refusal, node_name};
use super::emptiness::never_consolidates;
use super::ground::{Limits, Terms, sentence};
use super::method::{Command, Reason, Rejection, Replacement, all_still};
use super::snapshot::Snapshot;
use super::worth;
use crate::lifecycle::objects::{conditions, is_true, label};

/// Value of the capacity-type label of spot machines.
const SPOT: &str = "spot";
/// The same of on-demand ones.
const ON_DEMAND: &str = "on-demand";
/// Cheaper spot types that a single spot machine needs before it is replaced by one of them: a narrower launch would
/// end in the pool that is interrupted next.
const SPOT_FLEXIBILITY: usize = 15;
/// Policy that lets nodes go only when they are empty.
const WHEN_EMPTY: &str = "WhenEmpty";

/// Whether a node takes part in consolidation at all.
pub(super) fn filter(candidate: &Candidate) -> Result<(), Refusal> {
    let no = |text: String| Err(Refusal::Unconsolidatable(text));
    let pool = &candidate.pool;
    if pool.spec.replicas.is_some() || candidate.is_empty() {
        return Err(Refusal::Silent);
    }
    if !candidate.type_known {
        let named = label(&candidate.node.metadata, labels::INSTANCE_TYPE).unwrap_or_default();
        return no(format!("Instance Type {named:?} not found"));
    }
    for key in [labels::CAPACITY_TYPE, labels::ZONE] {
        if label(&candidate.node.metadata, key).is_none() {
            return no(format!(
                "Node {:?} does not have label {key:?}",
                node_name(candidate)
            ));
        }
    }
    if never_consolidates(pool) {
        return no(format!(
            "NodePool {:?} has consolidation disabled",
            &*candidate.pool_name
        ));
    }
    if pool.spec.disruption.consolidation_policy.as_deref() == Some(WHEN_EMPTY) {
        return no(format!(
            "NodePool {:?} has consolidation policy WhenEmpty, but node is not empty",
            &*candidate.pool_name
        ));
    }
    if !is_true(
        &candidate.claim.status.conditions,
        conditions::CONSOLIDATABLE,
    ) {
        return Err(Refusal::Silent);
    }
    Ok(())
}

/// The command that gives `candidates` back together, or why there is none.
pub(super) fn compute(
    snapshot: &Snapshot,
    candidates: &[&Candidate],
    kind: &'static str,
) -> Result<Command, String> {
    let (pdbs, now) = (&snapshot.pdbs, snapshot.taken);
    let ground = &snapshot.ground;
    let simulate = |fewest_machines| {
        let terms = Terms {
            limits: Limits::Hold,
            fewest_machines,
        };
        ground.without(candidates, pdbs, terms, now)
    };
    let mut outcome = simulate(false);
    if outcome.replacements.len() > 1 {
        // One machine is all that may be bought: what is cheapest in several may be cheap enough in one.
        let few = simulate(true);
        if few.replacements.len() <= 1 {
            outcome = few;
        }
    }
    let mut failures = outcome.failures;
    // Room that a buffer has is not given up to save money.
    failures.extend(outcome.buffer_failures);
    if !failures.is_empty() {
        return Err(sentence(&failures));
    }
    let command = |replacements| Command {
        reason: Reason::Underutilized,
        consolidation_type: kind,
        candidates: candidates.iter().map(|c| (*c).clone()).collect(),
        replacements,
    };
    let mut replacements = outcome.replacements;
    let command = match (replacements.pop(), replacements.len()) {
        (None, _) => command(Vec::new()),
        (Some(replacement), 0) => command(vec![cheaper(snapshot, candidates, replacement)?]),
        (Some(_), others) => {
            return Err(format!(
                "Can't remove without creating {} candidates",
                others + 1
            ));
        }
    };
    worth::check(&command, now)?;
    Ok(command)
}

/// The replacement with only those types left that cost less than the candidates even at their worst.
fn cheaper(
    snapshot: &Snapshot,
    candidates: &[&Candidate],
    mut replacement: Replacement,
) -> Result<Replacement, String> {
    let now: f64 = candidates.iter().map(|c| c.price).sum();
    let all_spot = candidates.iter().all(|c| capacity_type(c) == SPOT);
    let spot_possible = may_be(&replacement, SPOT);
    if all_spot && spot_possible && !snapshot.spot_to_spot {
        return Err(
            "SpotToSpotConsolidation is disabled, can't replace a spot node with a spot node"
                .to_owned(),
        );
    }
    if all_spot && spot_possible {
        pin_to_spot(&mut replacement);
    }
    keep(snapshot, &mut replacement, now);
    if replacement.planned.instance_types.is_empty() {
        return Err("Can't replace with a cheaper node".to_owned());
    }
    if all_spot && spot_possible {
        let left = replacement.planned.instance_types.len();
        if let [_] = candidates {
            if left < SPOT_FLEXIBILITY {
                return Err(format!(
                    "SpotToSpotConsolidation requires {SPOT_FLEXIBILITY} cheaper instance type options than the current candidate to consolidate, got {left}"
                ));
            }
            // The cheapest ones only, or the launch would end where it came from and be moved again.
            shorten(snapshot, &mut replacement);
        }
    } else if spot_possible && may_be(&replacement, ON_DEMAND) {
        // A launch that finds no spot capacity then fails instead of buying what costs more.
        pin_to_spot(&mut replacement);
        keep(snapshot, &mut replacement, now);
    }
    if let [_, _, ..] = candidates {
        let cap = same_type_cap(snapshot, candidates, &replacement);
        keep(snapshot, &mut replacement, cap.min(now));
    }
    if replacement.planned.instance_types.is_empty() {
        return Err("Can't replace with a cheaper node".to_owned());
    }
    check_variety(snapshot, &replacement)?;
    Ok(replacement)
}

fn capacity_type(candidate: &Candidate) -> &str {
    label(&candidate.node.metadata, labels::CAPACITY_TYPE).unwrap_or_default()
}

fn may_be(replacement: &Replacement, capacity_type: &str) -> bool {
    let planned = &replacement.planned;
    planned.capacity_types.iter().any(|c| &**c == capacity_type)
        && planned
            .requirements
            .allows(labels::CAPACITY_TYPE, capacity_type)
}

fn pin_to_spot(replacement: &mut Replacement) {
    let planned = &mut replacement.planned;
    planned
        .requirements
        .add(Requirement::is_in(labels::CAPACITY_TYPE, [SPOT]));
    planned.capacity_types = vec![SPOT.into()];
}

fn type_of<'a>(snapshot: &'a Snapshot, pool: &str, name: &str) -> Option<&'a Arc<InstanceType>> {
    snapshot.pools.get(pool)?.types.get(name)
}

/// Keeps the types that can be had and cost less than `limit` at their worst, cheapest first.
fn keep(snapshot: &Snapshot, replacement: &mut Replacement, limit: f64) {
    let registry = &snapshot.ground.labels;
    let planned = &mut replacement.planned;
    let mut left: Vec<PricedOffering> = planned
        .instance_types
        .iter()
        .filter_map(|name| {
            let found = type_of(snapshot, &planned.pool, name)?;
            let worst = found.worst_launch_price(&planned.requirements, registry)?;
            let best = found.cheapest(&planned.requirements, registry)?;
            (worst < limit).then(|| PricedOffering {
                instance_type: name.clone(),
                zone: best.zone().into(),
                capacity_type: best.capacity_type().into(),
                price: best.price,
            })
        })
        .collect();
    left.sort_by(|a, b| {
        a.price
            .total_cmp(&b.price)
            .then_with(|| a.instance_type.cmp(&b.instance_type))
    });
    planned.instance_types = left.iter().map(|o| o.instance_type.clone()).collect();
    let mut left = left.into_iter();
    if let Some(best) = left.next() {
        planned.cheapest = best;
    }
    planned.runner_up = left.next();
}

/// Several nodes are not to be replaced by one of their own type: then keeping the one and deleting the others is what
/// should have been found.
fn same_type_cap(snapshot: &Snapshot, candidates: &[&Candidate], replacement: &Replacement) -> f64 {
    let options: BTreeSet<&str> = replacement
        .planned
        .instance_types
        .iter()
        .map(|t| &**t)
        .collect();
    let mut cap = f64::INFINITY;
    for candidate in candidates {
        let own = label(&candidate.node.metadata, labels::INSTANCE_TYPE).unwrap_or_default();
        if !options.contains(own) || type_of(snapshot, &candidate.pool_name, own).is_none() {
            continue;
        }
        cap = cap.min(candidate.price);
    }
    cap
}

/// Keeps the cheapest types, as few as flexibility and `minValues` allow.
fn shorten(snapshot: &Snapshot, replacement: &mut Replacement) {
    let all = std::mem::take(&mut replacement.planned.instance_types);
    for n in SPOT_FLEXIBILITY..=all.len() {
        replacement.planned.instance_types = all.iter().take(n).cloned().collect();
        if check_variety(snapshot, replacement).is_ok() {
            return;
        }
    }
    // Too few whatever is kept: the caller says so.
    replacement.planned.instance_types = all;
}

/// Whether the types that are left still have the variety that `minValues` asks for.
fn check_variety(snapshot: &Snapshot, replacement: &Replacement) -> Result<(), String> {
    let planned = &replacement.planned;
    for requirement in planned.requirements.iter() {
        let Some(least) = requirement.min_values else {
            continue;
        };
        let values: BTreeSet<Arc<str>> = planned
            .instance_types
            .iter()
            .filter_map(|name| type_of(snapshot, &planned.pool, name))
            .filter_map(|t| t.requirements.get(&requirement.key))
            .flat_map(|r| r.values.iter().filter(|v| requirement.has(v)).cloned())
            .collect();
        let have = i64::try_from(values.len()).unwrap_or(i64::MAX);
        if have < least {
            return Err(format!(
                "Filtering by price: {have} values of {} are left, minValues asks for {least}",
                requirement.key
            ));
        }
    }
    Ok(())
}

/// What is left of a command: all of its candidates, or nothing; what it would buy must be among what would be bought
/// now (`lifecycle-and-disruption.md` §6.7).
pub(super) fn reconsider(
    snapshot: &Snapshot,
    command: &Command,
    still: &[Candidate],
    budgets: &mut Allowance,
) -> Result<Command, Rejection> {
    all_still(command, still, budgets)?;
    let still: Vec<&Candidate> = still.iter().collect();
    let now = compute(snapshot, &still, command.consolidation_type);
    let now = now.map_err(|_| Rejection::Scheduling)?;
    if now.replacements.len() != command.replacements.len() {
        return Err(Rejection::Scheduling);
    }
    let fits = |before: &Replacement, after: &Replacement| {
        let allowed: BTreeSet<&str> = after.planned.instance_types.iter().map(|t| &**t).collect();
        before
            .planned
            .instance_types
            .iter()
            .all(|t| allowed.contains(&**t))
    };
    let same = command
        .replacements
        .iter()
        .zip(&now.replacements)
        .all(|(before, after)| fits(before, after));
    if !same {
        return Err(Rejection::Scheduling);
    }
    Ok(Command {
        candidates: now.candidates,
        ..command.clone()
    })
}
