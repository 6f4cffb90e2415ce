//! Drift of static NodePools: machines that are not what is asked for now are replaced one for one from the pool's
//! template, as many at a time as budgets and the limit of nodes allow (`lifecycle-and-disruption.md` §6.6). Pods play
//! no part in it: the pool keeps its size whatever runs there.

use std::collections::BTreeMap;
use std::sync::Arc;

use karpenter_model::plan::{PlannedNode, PricedOffering};
use karpenter_model::{PoolView, ResourceList};
use karpenter_state::condition_is_true;

use super::allowance::Allowance;
use super::candidate::{Candidate, Refusal};
use super::drift::longest_drifted_first;
use super::method::{Class, Command, Method, Proposal, Reason, Rejection, Replacement, all_still};
use super::snapshot::{Pool, Snapshot};
use crate::lifecycle::objects::{conditions, is_deleting, is_true};
use crate::provisioning::{inflight, limits, pools};

/// The method.
pub(crate) struct StaticDrift;

impl Method for StaticDrift {
    fn reason(&self) -> Reason {
        Reason::Drifted
    }
    fn class(&self) -> Class {
        Class::Eventual
    }
    fn consolidation_type(&self) -> &'static str {
        ""
    }
    fn waits(&self) -> bool {
        false
    }
    /// Each command is about one machine, and once one has begun its pool is not looked at until it has ended.
    fn begins_all(&self) -> bool {
        true
    }

    fn filter(&self, candidate: &Candidate) -> Result<(), Refusal> {
        let drifted = is_true(&candidate.claim.status.conditions, conditions::DRIFTED);
        if drifted && candidate.pool.spec.replicas.is_some() {
            Ok(())
        } else {
            Err(Refusal::Silent)
        }
    }

    fn choose(
        &self,
        snapshot: &Snapshot,
        mut candidates: Vec<Candidate>,
        budgets: &mut Allowance,
        proposal: &mut Proposal,
    ) -> Vec<Command> {
        longest_drifted_first(&mut candidates);
        let mut rooms: BTreeMap<Arc<str>, usize> = BTreeMap::new();
        let mut commands = Vec::new();
        for candidate in candidates {
            let Some(pool) = snapshot.pools.get(&candidate.pool_name) else {
                continue;
            };
            if is_over_size(pool) {
                // What is too much goes first, and may well be what has drifted.
                continue;
            }
            let room = rooms
                .entry(candidate.pool_name.clone())
                .or_insert_with(|| pool.count.room(limits::of_nodes(&pool.pool)));
            if *room == 0 {
                if is_at_rest(pool) {
                    proposal.refusals.push((candidate.name, no_room()));
                }
                continue;
            }
            let Some(replacement) = replacement(snapshot, pool) else {
                continue;
            };
            if budgets.take(&candidate.pool_name) {
                *room -= 1;
                commands.push(self.command(candidate, replacement));
            }
        }
        commands
    }

    fn reconsider(
        &self,
        snapshot: &Snapshot,
        command: &Command,
        still: Vec<Candidate>,
        budgets: &mut Allowance,
    ) -> Result<Command, Rejection> {
        all_still(command, &still, budgets)?;
        let candidate = still.into_iter().next().ok_or(Rejection::Churn)?;
        let pool = snapshot.pools.get(&candidate.pool_name);
        let pool = pool.ok_or(Rejection::Churn)?;
        // The place under the limit is taken when the replacement is bought. Other commands of this pass have raised
        // the pool's count already, so its size is not judged again.
        let replacement = replacement(snapshot, pool).ok_or(Rejection::Scheduling)?;
        Ok(self.command(candidate, replacement))
    }
}

impl StaticDrift {
    fn command(&self, candidate: Candidate, replacement: Replacement) -> Command {
        Command {
            reason: self.reason(),
            consolidation_type: self.consolidation_type(),
            candidates: vec![candidate],
            replacements: vec![replacement],
        }
    }
}

/// Whether the pool has, or is about to have, more machines than it should.
fn is_over_size(pool: &Pool) -> bool {
    let replicas = usize::try_from(pool.pool.spec.replicas.unwrap_or(0)).unwrap_or(0);
    pool.count.holding() > replicas
}

/// Whether nothing is about to come or to go, and so to make room by itself.
fn is_at_rest(pool: &Pool) -> bool {
    let count = pool.count;
    count.active == count.all()
}

fn no_room() -> Refusal {
    Refusal::Blocked {
        message: "its NodePool's limit of nodes leaves no room for a replacement".to_owned(),
        ends: None,
    }
}

/// A machine of the pool as it is now; none if the pool cannot launch one.
fn replacement(snapshot: &Snapshot, pool: &Pool) -> Option<Replacement> {
    let ready = condition_is_true(&pool.pool.status.conditions, "Ready");
    if !ready || is_deleting(&pool.pool.metadata) {
        return None;
    }
    let types: Vec<_> = pool.types.values().cloned().collect();
    let labels = &snapshot.ground.labels;
    let view = pools::pool_view(&pool.pool, types, ResourceList::new(), labels).ok()?;
    let planned = likely(&view, labels)?;
    Some(Replacement {
        planned,
        pool: Arc::new(view),
        from_template: true,
    })
}

/// What the provider will most likely launch: for the log only, the claim does not ask for it.
fn likely(pool: &PoolView, labels: &karpenter_model::LabelRegistry) -> Option<PlannedNode> {
    let none = ResourceList::new();
    let (instance_type, offering) =
        inflight::likeliest(&pool.instance_types, &pool.requirements, &none, labels)?;
    Some(PlannedNode {
        pool: pool.name.clone(),
        pods: Vec::new(),
        requirements: pool.requirements.clone(),
        instance_types: Vec::new(),
        capacity_types: Vec::new(),
        requests: ResourceList::new(),
        min_values_relaxed: false,
        cheapest: PricedOffering {
            instance_type: instance_type.name.clone(),
            zone: offering.zone().into(),
            capacity_type: offering.capacity_type().into(),
            price: offering.price,
        },
        runner_up: None,
        funnel: Vec::new(),
    })
}
