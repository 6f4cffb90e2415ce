//! Why a node stays, a pod waits or a NodePool gives nothing back: the questions of the disruption loop and of the
//! provisioner, asked of a cluster as somebody has seen it (`kubectl karpenter explain`). Every answer comes from the
//! functions that decide; here they are only put into words.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use karpenter_api::budget::{Budgets, UNBOUNDED};
use karpenter_api::labels;
use karpenter_cloud::NodeClassKind;
use karpenter_model::plan::{PlannedNode, Unschedulable};
use karpenter_model::{InstanceType, LabelRegistry, Pod, PodKey};
use karpenter_runtime::Settings;
use karpenter_solver::Wares;
use karpenter_state::Store;

mod report;
mod windows;

pub use self::report::{
    Allowed, Alternative, Funnel, NodeReport, PodReport, PoolReport, WindowReport,
};
use self::windows::{REASONS, allowed, unrestricted, windows};
use super::allowance::{Allowance, PoolAllowance};
use super::candidate::{Candidate, Refusal, check_pods, examine};
use super::drift::Drift;
use super::emptiness::Emptiness;
use super::method::{Method, Proposal, Reason};
use super::multi::MultiNode;
use super::single::SingleNode;
use super::snapshot::{self, Facts, Member, Snapshot};
use super::static_drift::StaticDrift;
use super::under_way::Busy;
use super::{orchestrate, replace};
use crate::lifecycle::disruptable::{Quiet, quiet};
use crate::lifecycle::expiration::expires;
use crate::lifecycle::objects::{
    annotation, condition, conditions, is_true, label, label_or_empty, name,
};

/// A cluster to ask about.
pub struct Cluster {
    snapshot: Snapshot,
    state: Arc<Store>,
    labels: Arc<LabelRegistry>,
    now: Timestamp,
}

/// What was asked about is not there.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// No Node and no NodeClaim of ours.
    #[error("{name}: there is no Node or NodeClaim of that name that Karpenter manages{known}")]
    Node {
        /// Name.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// No such pod.
    #[error("Pod {key}: there is none of that name")]
    Pod {
        /// Namespace and name.
        key: PodKey,
    },
    /// No such pool.
    #[error("NodePool {name}: there is none of that name{known}")]
    Pool {
        /// Name.
        name: String,
        /// Those that there are.
        known: String,
    },
}

impl Cluster {
    /// The cluster in `state` at `now`, with the types that are sold to each pool.
    #[must_use]
    pub fn new(
        state: Arc<Store>,
        labels: Arc<LabelRegistry>,
        node_class: &NodeClassKind,
        settings: &Settings,
        types: &BTreeMap<Arc<str>, Arc<Vec<Arc<InstanceType>>>>,
        now: Timestamp,
    ) -> Self {
        let facts = Facts {
            state: &state,
            labels: &labels,
            node_class,
            settings,
            wares: &Wares::default(),
        };
        Self {
            snapshot: snapshot::assemble(facts, types, None, &Busy::default(), now),
            state,
            labels,
            now,
        }
    }

    /// Explains a Node, or the NodeClaim behind one.
    ///
    /// # Errors
    /// When there is no such node of ours.
    pub fn node(&self, wanted: &str) -> Result<NodeReport, ExplainError> {
        let node_of = |m: &Member| m.node.as_ref().map(|n| name(&n.metadata).to_owned());
        let mut members = self.snapshot.members.iter();
        let found = members
            .find(|m| node_of(m).as_deref() == Some(wanted) || &*m.name == wanted)
            .ok_or_else(|| ExplainError::Node {
                name: wanted.to_owned(),
                known: known(self.snapshot.members.iter().filter_map(node_of)),
            })?;
        let of = found
            .node
            .as_ref()
            .map_or(&found.claim.metadata, |n| &n.metadata);
        let pool = label_or_empty(&found.claim.metadata, labels::NODEPOOL);
        let machine = [labels::INSTANCE_TYPE, labels::CAPACITY_TYPE, labels::ZONE]
            .map(|key| label_or_empty(of, key).to_owned());
        let [instance_type, capacity_type, zone] = &machine;
        let sold = self.snapshot.pools.get(pool);
        let sold = sold.and_then(|p| p.types.get(instance_type.as_str()));
        let price = sold.and_then(|t| t.offering(zone, capacity_type));
        Ok(NodeReport {
            node: node_of(found).unwrap_or_default(),
            node_claim: found.name.to_string(),
            node_pool: pool.to_owned(),
            price_per_hour: price.map(|o| o.price),
            pods: found.pods.iter().filter(|p| p.is_active()).count(),
            pods_to_move: found.pods.iter().filter(|p| p.is_reschedulable()).count(),
            ends: self.ends(found),
            alternatives: self.alternatives(found),
            machine,
        })
    }

    fn ends(&self, member: &Member) -> Vec<String> {
        let mut ends = Vec::new();
        let (claim, all) = (&member.claim, &member.claim.status.conditions);
        if let Some(since) = &claim.metadata.deletion_timestamp {
            ends.push(format!("it is being deleted since {}", since.0));
        }
        if let Some(deadline) = annotation(&claim.metadata, labels::TERMINATION_TIMESTAMP) {
            ends.push(format!(
                "its pods are deleted by {deadline}, whatever holds them"
            ));
        }
        if let Some(at) = expires(claim) {
            let why = "no budget and no pod holds that up, though a pod may hold up the drain";
            ends.push(format!("it expires at {at}: {why}"));
        }
        if is_true(all, conditions::DRIFTED)
            && let Some(drifted) = condition(all, conditions::DRIFTED)
        {
            let since = drifted.last_transition_time.0;
            ends.push(format!("it has drifted since {since}: {}", drifted.reason));
        }
        ends
    }

    fn alternatives(&self, member: &Member) -> Vec<Alternative> {
        let single = SingleNode::default();
        let of_pool = label(&member.claim.metadata, labels::NODEPOOL);
        let pool = of_pool.and_then(|p| self.snapshot.pools.get(p));
        let is_static = pool.is_some_and(|p| p.pool.spec.replicas.is_some());
        let drift: &dyn Method = if is_static { &StaticDrift } else { &Drift };
        [&Emptiness as &dyn Method, drift, &single]
            .into_iter()
            .map(|method| self.alternative(member, method))
            .collect()
    }

    fn alternative(&self, member: &Member, method: &dyn Method) -> Alternative {
        let stays = |why: String| Alternative {
            reason: method.reason().as_str(),
            goes: false,
            why,
            price_before: None,
            price_after: None,
            replacements: Vec::new(),
        };
        let candidate = match examine(member, &self.snapshot, method.class(), self.now) {
            Ok(candidate) => candidate,
            Err(refusal) => {
                return stays(words(&refusal, || {
                    "a command about it is being carried out".to_owned()
                }));
            }
        };
        if let Err(refusal) = method.filter(&candidate) {
            return stays(words(&refusal, || {
                unsaid(method.reason(), &candidate, self.now)
            }));
        }
        let mut budgets = Allowance::new(&self.snapshot, method.reason(), self.now);
        let mut proposal = Proposal::default();
        let (pool, price) = (candidate.pool_name.clone(), candidate.price);
        let mut commands =
            method.choose(&self.snapshot, vec![candidate], &mut budgets, &mut proposal);
        let Some(command) = commands.pop() else {
            if let Some((_, refusal)) = proposal.refusals.first() {
                return stays(words(refusal, String::new));
            }
            let weighed = proposal.judged.iter().find_map(|v| v.words());
            let held = budgets.iter().find(|(p, c)| ***p == *pool && c.refused);
            return stays(match (weighed, held) {
                (Some(weighed), _) => format!("NodePool {pool} rejects the move: {weighed}"),
                (None, Some((_, counts))) => budget_words(&pool, method.reason(), counts),
                (None, None) => "it would save nothing".to_owned(),
            });
        };
        Alternative {
            goes: true,
            why: orchestrate::words(&command),
            price_before: Some(price),
            price_after: Some(price - command.savings()),
            replacements: command
                .replacements
                .iter()
                .map(|r| format!("[{}]", replace::machine(r)))
                .collect(),
            ..stays(String::new())
        }
    }

    /// Explains a pod.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn pod(&self, key: &PodKey) -> Result<PodReport, ExplainError> {
        let missing = || ExplainError::Pod { key: key.clone() };
        let pod = self.state.pod(key).ok_or_else(missing)?;
        let mut report = PodReport {
            pod: key.to_string(),
            node: pod.node_name.as_deref().unwrap_or_default().to_owned(),
            outcome: String::new(),
            holds: Vec::new(),
            price_per_hour: None,
            node_pools: Vec::new(),
        };
        match &pod.node_name {
            Some(node) => self.bound(&pod, node, &mut report),
            None => self.waiting(&pod, &mut report),
        }
        Ok(report)
    }

    fn bound(&self, pod: &Arc<Pod>, node: &str, report: &mut PodReport) {
        let on = |m: &&Member| m.node.as_ref().is_some_and(|n| name(&n.metadata) == node);
        let Some(member) = self.snapshot.members.iter().find(on) else {
            report.outcome = format!("it runs on {node}, which Karpenter does not manage");
            return;
        };
        report.outcome = format!("it runs on {node} (NodeClaim {})", member.name);
        match check_pods(std::slice::from_ref(pod), &self.snapshot, self.now) {
            Ok(()) => {}
            Err(refusal) => {
                let text = words(&refusal, String::new);
                report
                    .holds
                    .push(format!("nothing disrupts its node to save money: {text}"));
                let drains_for_ever = member.claim.spec.termination_grace_period.is_none();
                report.holds.push(if drains_for_ever {
                    "its node does not drift away either: it has no terminationGracePeriod".into()
                } else {
                    "drift does not mind: the drain ends with the terminationGracePeriod".into()
                });
            }
        }
        if pod.is_reschedulable() {
            let cost = pod.eviction_cost().max(0.0);
            let text = format!("its node is not empty: moving the pod costs {cost:.2}");
            report.holds.push(text);
        }
    }

    fn waiting(&self, pod: &Arc<Pod>, report: &mut PodReport) {
        let resolved = self.state.for_planning(vec![pod.clone()], &self.labels);
        let refusal = resolved.first().and_then(|p| p.refusal(&self.labels));
        if let Some(refusal) = refusal {
            report.outcome = format!("it is not planned for: {refusal}");
            return;
        }
        if !pod.is_provisionable() || !pod.is_active() {
            "it is not planned for: kube-scheduler has not said that no node can take it"
                .clone_into(&mut report.outcome);
            return;
        }
        if let Some(claim) = self.state.planned_claim(&pod.key) {
            report.outcome = format!("NodeClaim {claim} was made for it");
            return;
        }
        let plan = self.snapshot.ground.plan(self.now);
        let is_here = |pods: &[PodKey]| pods.contains(&pod.key);
        if let Some(existing) = plan.existing.iter().find(|e| is_here(&e.pods)) {
            report.outcome = format!("node {} has room for it", existing.node);
        } else if let Some(new) = plan.new_nodes.iter().find(|n| is_here(&n.pods)) {
            report.outcome = bought(new);
            report.price_per_hour = Some(new.cheapest.price);
        } else if let Some(u) = plan.unschedulable.iter().find(|u| u.pod == pod.key) {
            report.outcome = format!("nothing can take it: {}", u.reason);
            report.node_pools = funnels(u);
        } else {
            "the plan was cut off before it came to this pod".clone_into(&mut report.outcome);
        }
    }

    /// What a pass of the disruption loop would begin now, in words: the first method that finds something ends it.
    #[must_use]
    pub fn pass(&self) -> Vec<String> {
        let (multi, single) = (MultiNode::default(), SingleNode::default());
        let methods: [&dyn Method; 5] = [&Emptiness, &StaticDrift, &Drift, &multi, &single];
        for method in methods {
            let commands = method.propose(&self.snapshot, self.now).commands;
            if !commands.is_empty() {
                return commands.iter().map(orchestrate::words).collect();
            }
        }
        Vec::new()
    }

    /// Explains the budgets of a NodePool.
    ///
    /// # Errors
    /// When there is no such pool.
    pub fn pool(&self, wanted: &str) -> Result<PoolReport, ExplainError> {
        let pool = self.snapshot.pools.get(wanted);
        let pool = pool.ok_or_else(|| ExplainError::Pool {
            name: wanted.to_owned(),
            known: known(self.snapshot.pools.keys().map(ToString::to_string)),
        })?;
        let disruption = &pool.pool.spec.disruption;
        let budgets = Budgets::of(disruption);
        let counts = |reason| {
            let all = Allowance::new(&self.snapshot, reason, self.now);
            let found = all.iter().find(|(name, _)| &***name == wanted);
            found.map(|(_, counts)| *counts).unwrap_or_default()
        };
        let total = counts(Reason::Empty).total;
        let windows = windows(&budgets, total, self.now);
        let mut warnings: Vec<String> = budgets
            .errors()
            .iter()
            .map(|e| format!("{e}: nothing is disrupted until that is mended"))
            .collect();
        warnings.extend(unrestricted(&windows));
        if pool.types.is_empty() {
            warnings.push("no instance types are sold to it: its nodes are not disrupted".into());
        }
        Ok(PoolReport {
            node_pool: wanted.to_owned(),
            consolidation_policy: disruption
                .consolidation_policy
                .clone()
                .unwrap_or_else(|| super::balanced::DEFAULT_POLICY.to_owned()),
            consolidate_after: disruption.consolidate_after.clone(),
            nodes: total,
            disrupting: counts(Reason::Empty).disrupting,
            price_per_hour: super::balanced::cost(&self.snapshot, wanted),
            now: REASONS
                .into_iter()
                .map(|reason| Allowed {
                    left: Some(counts(reason).left).filter(|n| *n < UNBOUNDED / 2),
                    ..allowed(&budgets, reason, total, self.now)
                })
                .collect(),
            windows,
            warnings,
        })
    }
}

fn known(names: impl Iterator<Item = String>) -> String {
    let all: Vec<String> = names.collect();
    if all.is_empty() {
        String::new()
    } else {
        format!("; expected one of {}", all.join(", "))
    }
}

fn words(refusal: &Refusal, unsaid: impl FnOnce() -> String) -> String {
    match refusal {
        Refusal::Silent => unsaid(),
        Refusal::Unconsolidatable(text) => text.clone(),
        Refusal::Blocked {
            message,
            ends: None,
        } => message.clone(),
        Refusal::Blocked {
            message,
            ends: Some(at),
        } => format!("{message} (until {at})"),
    }
}

/// Why a method is not about a node, where it says nothing itself: that is no news to those who read events.
fn unsaid(reason: Reason, candidate: &Candidate, now: Timestamp) -> String {
    if reason == Reason::Drifted {
        return "it has not drifted".to_owned();
    }
    if candidate.pool.spec.replicas.is_some() {
        return "its NodePool is static: it has as many nodes as its replicas say".to_owned();
    }
    match (reason, candidate.is_empty()) {
        (Reason::Empty, false) => {
            let pods = candidate.pods_to_move();
            return format!("{pods} pod(s) on it would have to move");
        }
        (Reason::Underutilized, true) => return "it is empty, see there".to_owned(),
        _ => {}
    }
    match quiet(&candidate.claim, &candidate.pool, now) {
        Quiet::Until(at) => format!(
            "consolidateAfter has not passed since the last change of its pods: it will have at {at}"
        ),
        Quiet::Yes | Quiet::No => "its condition Consolidatable is not True".to_owned(),
    }
}

fn budget_words(pool: &str, reason: Reason, counts: &PoolAllowance) -> String {
    format!(
        "the budgets of NodePool {pool} leave nothing for {}: {} of {} node(s) may be in disruption at once, {} are",
        reason.as_str(),
        counts.allowed.min(counts.total),
        counts.total,
        counts.disrupting
    )
}

fn bought(new: &PlannedNode) -> String {
    let best = &new.cheapest;
    format!(
        "a machine of NodePool {} would be bought: {} {} in {} for {} pod(s)",
        new.pool,
        best.instance_type,
        best.capacity_type,
        best.zone,
        new.pods.len()
    )
}

fn funnels(unschedulable: &Unschedulable) -> Vec<Funnel> {
    let each = unschedulable.pools.iter().map(|pool| Funnel {
        node_pool: pool.pool.to_string(),
        steps: pool.steps.iter().map(ToString::to_string).collect(),
    });
    each.collect()
}
