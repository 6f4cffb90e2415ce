//! Whether a PodDisruptionBudget stands in the way of a pod's eviction (`lifecycle-and-disruption.md` §1.3).

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::Pod;
use crate::selector::Selector;

/// What a PodDisruptionBudget says, as far as evictions care.
#[derive(Clone, Debug)]
pub struct Pdb {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// Pods it covers; an unreadable selector covers none.
    pub selector: Selector,
    /// `status.disruptionsAllowed`.
    pub disruptions_allowed: i32,
    /// Whether its spec lets no pod go whatever happens: maxUnavailable 0 or 0%, or minAvailable 100%.
    pub never_allows: bool,
    /// Whether pods that are not ready may always go.
    pub unhealthy_always_allowed: bool,
}

/// How strictly budgets are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PdbMode {
    /// Blocked when no disruption is allowed just now: for choosing nodes to disrupt.
    ZeroDisruptions,
    /// Blocked only when no disruption ever will be: for planning where pods go next.
    FullyBlocking,
}

/// Why a pod may not be evicted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PdbBlock {
    /// The eviction API refuses pods under several budgets.
    #[error("eviction does not support multiple PDBs: {}", .0.join(", "))]
    Several(Vec<String>),
    /// The budget that refuses.
    #[error("PDB {0} prevents pod evictions")]
    Budget(String),
}

impl Pdb {
    /// From the Kubernetes object.
    #[must_use]
    pub fn from_k8s(raw: &PodDisruptionBudget) -> Self {
        let spec = raw.spec.clone().unwrap_or_default();
        let is = |value: &Option<IntOrString>, number: Option<i32>, percent: &str| match value {
            Some(IntOrString::Int(n)) => Some(*n) == number,
            Some(IntOrString::String(s)) => s == percent,
            None => false,
        };
        Self {
            namespace: raw.metadata.namespace.as_deref().unwrap_or_default().into(),
            name: raw.metadata.name.as_deref().unwrap_or_default().into(),
            selector: selector(spec.selector.as_ref()),
            disruptions_allowed: raw
                .status
                .as_ref()
                .and_then(|s| s.disruptions_allowed)
                .unwrap_or(0),
            never_allows: is(&spec.max_unavailable, Some(0), "0%")
                || is(&spec.min_available, None, "100%"),
            unhealthy_always_allowed: spec.unhealthy_pod_eviction_policy.as_deref()
                == Some("AlwaysAllow"),
        }
    }

    /// Whether it covers `pod`.
    #[must_use]
    pub fn covers(&self, pod: &Pod) -> bool {
        *self.namespace == *pod.key.namespace && self.selector.matches(&pod.labels)
    }
}

/// What keeps `pod` from being evicted, if a budget does; pods that are not evictable anyway are not kept by one.
///
/// # Errors
/// The budget in the way.
pub fn check_pdbs<'a>(
    pod: &Pod,
    budgets: impl IntoIterator<Item = &'a Pdb>,
    mode: PdbMode,
    now: Timestamp,
) -> Result<(), PdbBlock> {
    if !pod.is_evictable(now) {
        return Ok(());
    }
    let covering: Vec<&Pdb> = budgets.into_iter().filter(|b| b.covers(pod)).collect();
    let full_name = |b: &Pdb| format!("{}/{}", b.namespace, b.name);
    match covering.as_slice() {
        [] => Ok(()),
        [budget] => {
            if budget.unhealthy_always_allowed && !pod.ready {
                return Ok(());
            }
            let blocked = match mode {
                PdbMode::ZeroDisruptions => budget.disruptions_allowed <= 0,
                PdbMode::FullyBlocking => budget.never_allows,
            };
            if blocked {
                Err(PdbBlock::Budget(full_name(budget)))
            } else {
                Ok(())
            }
        }
        several => Err(PdbBlock::Several(
            several.iter().map(|b| full_name(b)).collect(),
        )),
    }
}

impl Pod {
    /// Whether the pod has to find another place when its node goes (`currentlyReschedulable` of
    /// `scheduling.md` §4).
    #[must_use]
    pub fn is_currently_reschedulable<'a>(
        &self,
        budgets: impl IntoIterator<Item = &'a Pdb>,
        now: Timestamp,
    ) -> bool {
        self.is_reschedulable()
            && self.is_disruptable(now)
            && check_pdbs(self, budgets, PdbMode::FullyBlocking, now).is_ok()
    }
}

/// policy/v1: a missing selector covers nothing, an empty one everything.
fn selector(raw: Option<&LabelSelector>) -> Selector {
    raw.map_or_else(Selector::nothing, Selector::from_k8s)
}
