//! What consolidating some nodes would come to (`lifecycle-and-disruption.md` §6.6): their pods fit elsewhere, or on
//! one machine that costs less at its worst, or on several that do, or it is not worth it and why. Shared by the two
//! methods that differ in which nodes they take together.

use std::collections::BTreeSet;
use std::sync::Arc;

use karpenter_api::labels;
use karpenter_model::plan::PricedOffering;
use karpenter_model::{InstanceType, Requirement};

use super::allowance::Allowance;
use super::candidate::{Candidate, Refusal, examine, node_name};
use super::emptiness::{goes_once_quiet, is_quiet, never_consolidates};
use super::ground::{Limits, Outcome, Terms, sentence};
use super::method::{Class, Command, Reason, Rejection, Replacement, all_still};
use super::room;
use super::snapshot::Snapshot;
use super::worth;
use crate::lifecycle::objects::label;

/// Value of the capacity-type label of spot machines.
const SPOT: &str = "spot";
/// The same of on-demand ones.
const ON_DEMAND: &str = "on-demand";
/// Cheaper spot types that a single spot machine needs before it is replaced by one of them: a narrower launch would
/// end in the pool that is interrupted next.
const SPOT_FLEXIBILITY: usize = 15;
/// Dollars per hour that count as a saving: sums of prices are not exact.
const LEAST_SAVING: f64 = 1e-9;
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
    if !is_quiet(candidate) {
        return Err(Refusal::Silent);
    }
    Ok(())
}

/// How many machines may be bought for nodes that go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Most {
    /// One.
    One,
    /// As many as go, where one will not do.
    AsManyAsGo,
}

/// Why nodes are not given back.
#[derive(Debug)]
pub(super) struct Stays {
    /// In words.
    pub(super) why: String,
    /// The claim of the one that what would be bought is no better than: without it the others may do.
    pub(super) spare: Option<Arc<str>>,
}

impl From<String> for Stays {
    fn from(why: String) -> Self {
        Self { why, spare: None }
    }
}

/// The command that gives `candidates` back together, or why there is none. One machine in their place is preferred to
/// several that cost less: fewer pods' homes depend on a launch.
pub(super) fn compute(
    snapshot: &Snapshot,
    candidates: &[&Candidate],
    kind: &'static str,
    most: Most,
) -> Result<Command, Stays> {
    let ground = &snapshot.ground;
    let simulate = |fewest_machines| {
        let terms = Terms {
            limits: Limits::Hold,
            fewest_machines,
        };
        ground.without(candidates, &snapshot.pdbs, terms, snapshot.taken)
    };
    let judge = |outcome| command(snapshot, candidates, kind, outcome);
    let free = simulate(false);
    if free.replacements.len() <= 1 {
        return judge(free);
    }
    let mut refused = Stays::from(if free.failures.is_empty() {
        let asked = free.replacements.len();
        format!("Can't remove without creating {asked} candidates")
    } else {
        sentence(&free.failures)
    });
    // What is cheapest in several may be cheap enough in one.
    let few = simulate(true);
    let mut several = vec![free];
    if few.replacements.len() > 1 {
        several.push(few);
    } else {
        match judge(few) {
            Ok(command) => return Ok(command),
            Err(stays) => refused = stays,
        }
    }
    // More machines than there were would be a step to a cluster of many small ones.
    let fits = |o: &Outcome| most == Most::AsManyAsGo && o.replacements.len() <= candidates.len();
    for outcome in several.into_iter().filter(fits) {
        match judge(outcome) {
            Ok(command) => return Ok(command),
            Err(stays) => refused = stays,
        }
    }
    Err(refused)
}

/// The command that a simulation comes to, if it pays.
fn command(
    snapshot: &Snapshot,
    candidates: &[&Candidate],
    kind: &'static str,
    outcome: Outcome,
) -> Result<Command, Stays> {
    let mut failures = outcome.failures;
    // Room that a buffer has is not given up to save money.
    failures.extend(outcome.buffer_failures);
    if !failures.is_empty() {
        return Err(sentence(&failures).into());
    }
    let several = outcome.replacements.len() > 1;
    let command = Command {
        reason: Reason::Underutilized,
        consolidation_type: kind,
        candidates: candidates.iter().map(|c| (*c).clone()).collect(),
        replacements: cheaper(snapshot, candidates, outcome.replacements)?,
    };
    let spared = given_back_otherwise(snapshot, &outcome.onto_idle);
    if spared > 0.0 && command.savings() - spared < LEAST_SAVING {
        return Err(Stays::from(
            "Pods would move onto empty nodes, and giving those back saves as much".to_owned(),
        ));
    }
    worth::check(&command, snapshot.taken)?;
    if several {
        room::check(snapshot, candidates, &command.replacements)?;
    }
    Ok(command)
}

/// Dollars per hour of those of these claims that nothing runs on and that wait for their time to be given back. Whoever moves
/// pods onto them keeps them.
fn given_back_otherwise(snapshot: &Snapshot, claims: &[Arc<str>]) -> f64 {
    let price = |claim: &Arc<str>| {
        let member = snapshot.member(claim)?;
        let empty = examine(member, snapshot, Class::Graceful, snapshot.taken).ok()?;
        let goes = goes_once_quiet(&empty).is_ok() && !is_quiet(&empty);
        goes.then_some(empty.price)
    };
    claims.iter().filter_map(price).sum()
}

/// The replacements with only those types left that together cost less than the candidates even at their worst.
fn cheaper(
    snapshot: &Snapshot,
    candidates: &[&Candidate],
    mut replacements: Vec<Replacement>,
) -> Result<Vec<Replacement>, Stays> {
    let dearer = || Stays::from("Can't replace with a cheaper node".to_owned());
    let now: f64 = candidates.iter().map(|c| c.price).sum();
    let all_spot = candidates.iter().all(|c| capacity_type(c) == SPOT);
    // Of several nodes nobody can tell which machine comes in place of which.
    let any_spot = candidates.iter().any(|c| capacity_type(c) == SPOT);
    let spot_to_spot = all_spot || (any_spot && replacements.len() > 1);
    let wide =
        candidates.len() == 1 || (replacements.len() > 1 && replacements.len() >= candidates.len());
    for replacement in &mut replacements {
        if spot_to_spot && may_be(replacement, SPOT) {
            if !snapshot.spot_to_spot {
                return Err(Stays::from(
                    "SpotToSpotConsolidation is disabled, can't replace a spot node with a spot node"
                        .to_owned(),
                ));
            }
            pin_to_spot(replacement);
        }
    }
    let limits = limits(snapshot, &replacements, now).ok_or_else(dearer)?;
    for (replacement, limit) in replacements.iter_mut().zip(limits) {
        let spot_possible = may_be(replacement, SPOT);
        keep(snapshot, replacement, limit);
        if replacement.planned.instance_types.is_empty() {
            return Err(dearer());
        }
        if spot_to_spot && spot_possible {
            let left = replacement.planned.instance_types.len();
            if wide {
                if left < SPOT_FLEXIBILITY {
                    return Err(Stays::from(format!(
                        "SpotToSpotConsolidation requires {SPOT_FLEXIBILITY} cheaper instance type options than the current candidate to consolidate, got {left}"
                    )));
                }
                // The cheapest ones only, or the launch would end where it came from and be moved again.
                shorten(snapshot, replacement);
            }
        } else if spot_possible && may_be(replacement, ON_DEMAND) {
            // A launch that finds no spot capacity then fails instead of buying what costs more.
            pin_to_spot(replacement);
            keep(snapshot, replacement, limit);
        }
        let mut spare = None;
        if let [_, _, ..] = candidates
            && let Some(own) = of_same_type(snapshot, candidates, replacement)
        {
            keep(snapshot, replacement, own.price.min(limit));
            spare = Some(own.name.clone());
        }
        if replacement.planned.instance_types.is_empty() {
            return Err(Stays { spare, ..dearer() });
        }
        check_variety(snapshot, replacement)?;
    }
    Ok(replacements)
}

/// What each replacement may cost at its worst, so that all together cost less than `now`: each its share by what it
/// costs at least. None if even the least is too much.
fn limits(snapshot: &Snapshot, replacements: &[Replacement], now: f64) -> Option<Vec<f64>> {
    if let [_] = replacements {
        return Some(vec![now]);
    }
    let registry = &snapshot.ground.labels;
    let least = |replacement: &Replacement| {
        let planned = &replacement.planned;
        let types = planned.instance_types.iter();
        types
            .filter_map(|name| type_of(snapshot, &planned.pool, name))
            .filter_map(|t| t.worst_launch_price(&planned.requirements, registry))
            .min_by(f64::total_cmp)
    };
    let least: Vec<f64> = replacements.iter().map(least).collect::<Option<_>>()?;
    let sum: f64 = least.iter().sum();
    if sum >= now && !least.is_empty() {
        return None;
    }
    let share = |l: &f64| now * if sum > 0.0 { l / sum } else { 0.0 };
    Some(least.iter().map(share).collect())
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

/// The cheapest of several candidates that a replacement could be of the type of: what costs as much is not bought, for
/// then keeping that one and deleting the others is what should have been found.
fn of_same_type<'a>(
    snapshot: &Snapshot,
    candidates: &[&'a Candidate],
    replacement: &Replacement,
) -> Option<&'a Candidate> {
    let options: BTreeSet<&str> = replacement
        .planned
        .instance_types
        .iter()
        .map(|t| &**t)
        .collect();
    let own_type = |c: &Candidate| {
        let own = label(&c.node.metadata, labels::INSTANCE_TYPE).unwrap_or_default();
        options.contains(own) && type_of(snapshot, &c.pool_name, own).is_some()
    };
    candidates
        .iter()
        .copied()
        .filter(|c| own_type(c))
        .min_by(|a, b| a.price.total_cmp(&b.price))
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
    let most = if command.replacements.len() > 1 {
        Most::AsManyAsGo
    } else {
        Most::One
    };
    let now = compute(snapshot, &still, command.consolidation_type, most);
    let now = now.map_err(|_| Rejection::Scheduling)?;
    if now.replacements.len() != command.replacements.len() {
        return Err(Rejection::Scheduling);
    }
    let fits = |before: &Replacement, after: &Replacement| {
        let allowed: BTreeSet<&str> = after.planned.instance_types.iter().map(|t| &**t).collect();
        let mut wanted = before.planned.instance_types.iter();
        before.pool.name == after.pool.name && wanted.all(|t| allowed.contains(&**t))
    };
    // Each is among what one of those of now may be, whatever their order.
    let mut free: Vec<&Replacement> = now.replacements.iter().collect();
    let same = command.replacements.iter().all(|before| {
        let found = free.iter().position(|after| fits(before, after));
        found.map(|at| free.remove(at)).is_some()
    });
    if !same {
        return Err(Rejection::Scheduling);
    }
    Ok(Command {
        candidates: now.candidates,
        ..command.clone()
    })
}
