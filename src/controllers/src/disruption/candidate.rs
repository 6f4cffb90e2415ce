//! Which nodes may be disrupted at all, and what disrupting them costs (`lifecycle-and-disruption.md` §6.2, §6.3).

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use karpenter_api::{NodeClaim, NodePool, labels};
use karpenter_model::disruption::{PdbBlock, PdbMode, check_pdbs};
use karpenter_model::{DoNotDisrupt, Pod};

use super::method::Class;
use super::snapshot::{Member, Snapshot};
use crate::lifecycle::objects::{annotation, conditions, has_true_label, is_true, label, name};

/// A node that may be disrupted, with what methods rank it by.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    /// Name of its claim.
    pub(crate) name: Arc<str>,
    pub(crate) claim: Arc<NodeClaim>,
    pub(crate) node: Arc<Node>,
    pub(crate) pool_name: Arc<str>,
    pub(crate) pool: Arc<NodePool>,
    pub(crate) pods: Vec<Arc<Pod>>,
    /// Chunks of capacity buffers that have their room here.
    pub(crate) buffer_pods: usize,
    /// 1 plus what moving its pods costs.
    pub(crate) reschedule_cost: f64,
    /// Whether its pool sells its instance type.
    pub(crate) type_known: bool,
    /// Dollars per hour; zero if they cannot be told.
    pub(crate) price: f64,
}

impl Candidate {
    /// Whether nothing on it is worth keeping in place.
    pub(crate) fn is_empty(&self) -> bool {
        self.has_no_pods() && self.buffer_pods == 0
    }
    /// Whether no pod on it is worth keeping in place, room for buffers left aside.
    pub(crate) fn has_no_pods(&self) -> bool {
        self.reschedule_cost <= 1.0
    }
    /// What is saved per pod moved: what methods sort by.
    pub(crate) fn savings_ratio(&self) -> f64 {
        self.price / self.reschedule_cost
    }
    /// Pods that come back elsewhere.
    pub(crate) fn pods_to_move(&self) -> usize {
        self.pods.iter().filter(|p| p.is_reschedulable()).count()
    }
}

/// Why a node is no candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Nothing a user wants to hear about: it just is not one.
    Silent,
    /// The node cannot be disrupted by any method (event `DisruptionBlocked`).
    Blocked {
        /// Text.
        message: String,
        /// When the obstacle ends by itself, if that is known.
        ends: Option<Timestamp>,
    },
    /// It cannot be consolidated (event `Unconsolidatable`).
    Unconsolidatable(String),
}

impl Refusal {
    /// When the obstacle ends by itself, if that is known.
    pub(crate) fn ends(&self) -> Option<Timestamp> {
        match self {
            Self::Blocked { ends, .. } => *ends,
            Self::Silent | Self::Unconsolidatable(_) => None,
        }
    }
}

fn blocked(message: impl Into<String>) -> Refusal {
    Refusal::Blocked {
        message: message.into(),
        ends: None,
    }
}

fn blocked_until(message: impl Into<String>, ends: Timestamp) -> Refusal {
    Refusal::Blocked {
        message: message.into(),
        ends: Some(ends),
    }
}

/// The checks of every method, in upstream's order: the first that fails is what users are told.
pub(crate) fn examine(
    member: &Member,
    snapshot: &Snapshot,
    class: Class,
    now: Timestamp,
) -> Result<Candidate, Refusal> {
    if member.queued {
        return Err(Refusal::Silent);
    }
    let Some(node) = &member.node else {
        return Err(blocked("nodeclaim does not have an associated node"));
    };
    if !has_true_label(&node.metadata, labels::INITIALIZED)
        || !is_true(&member.claim.status.conditions, conditions::INITIALIZED)
    {
        return Err(blocked("node isn't initialized"));
    }
    if member.leaving || node.metadata.deletion_timestamp.is_some() {
        return Err(blocked("node is deleting or marked for deletion"));
    }
    if let Some(until) = member.nominated_until {
        return Err(blocked_until("node is nominated for a pending pod", until));
    }
    if annotation(&node.metadata, labels::DO_NOT_DISRUPT) == Some("true") {
        return Err(blocked(format!(
            "disruption is blocked through the \"{}\" annotation",
            labels::DO_NOT_DISRUPT
        )));
    }
    let Some(pool_name) = label(&node.metadata, labels::NODEPOOL) else {
        return Err(blocked(format!(
            "node doesn't have required label (label={})",
            labels::NODEPOOL
        )));
    };
    let pool = snapshot
        .pools
        .get(pool_name)
        .filter(|p| !p.types.is_empty());
    let Some(pool) = pool else {
        return Err(blocked(format!(
            "NodePool not found (NodePool={pool_name})"
        )));
    };
    let pods_are_waived =
        class == Class::Eventual && member.claim.spec.termination_grace_period.is_some();
    if !pods_are_waived {
        check_pods(&member.pods, snapshot, now)?;
    }
    let reschedule_cost = 1.0
        + member
            .pods
            .iter()
            .filter(|p| p.is_reschedulable())
            .map(|p| p.eviction_cost().max(0.0))
            .sum::<f64>();
    let value = |key| label(&node.metadata, key).unwrap_or_default();
    let none = BTreeMap::new();
    let bought_as = node.metadata.labels.as_ref().unwrap_or(&none);
    let price = pool
        .types
        .get(value(labels::INSTANCE_TYPE))
        .and_then(|t| t.offering_of(bought_as, &snapshot.ground.labels))
        .map_or(0.0, |o| o.price);
    Ok(Candidate {
        name: member.name.clone(),
        claim: member.claim.clone(),
        node: node.clone(),
        pool_name: pool_name.into(),
        pool: pool.pool.clone(),
        pods: member.pods.clone(),
        buffer_pods: member.buffer_pods,
        reschedule_cost,
        type_known: pool.types.contains_key(value(labels::INSTANCE_TYPE)),
        price: if price.is_finite() { price } else { 0.0 },
    })
}

pub(super) fn check_pods(
    pods: &[Arc<Pod>],
    snapshot: &Snapshot,
    now: Timestamp,
) -> Result<(), Refusal> {
    for pod in pods.iter().filter(|p| p.is_active()) {
        let message = || {
            format!(
                "pod has \"{}\" annotation (Pod={})",
                labels::DO_NOT_DISRUPT,
                pod.key
            )
        };
        match pod.do_not_disrupt(now) {
            DoNotDisrupt::Always => return Err(blocked(message())),
            DoNotDisrupt::Until(end) => return Err(blocked_until(message(), end)),
            DoNotDisrupt::Absent | DoNotDisrupt::Elapsed(_) | DoNotDisrupt::Invalid(_) => {}
        }
    }
    for pod in pods {
        let budgets = snapshot.pdbs.get(&pod.key.namespace).into_iter().flatten();
        match check_pdbs(pod, budgets, PdbMode::ZeroDisruptions, now) {
            Ok(()) => {}
            Err(PdbBlock::Budget(name)) => {
                return Err(blocked(format!(
                    "pdb prevents pod evictions (PodDisruptionBudget=[{name}])"
                )));
            }
            Err(PdbBlock::Several(names)) => {
                return Err(blocked(format!(
                    "eviction does not support multiple PDBs (PodDisruptionBudget(s)=[{}])",
                    names.join(" ")
                )));
            }
        }
    }
    Ok(())
}

/// Name of a candidate's Node.
pub(crate) fn node_name(candidate: &Candidate) -> &str {
    name(&candidate.node.metadata)
}
