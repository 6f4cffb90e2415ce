//! Which pods wait for a node, and which of them a claim that is not launched yet was made for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use karpenter_model::PodKey;

type Name = Arc<str>;

#[derive(Debug, Default)]
pub(crate) struct Plans {
    /// Pods that kube-scheduler gave up on.
    waiting: BTreeSet<PodKey>,
    /// Those that nothing was planned for, kept apart as they are asked for at every change.
    unplanned: BTreeSet<PodKey>,
    claim_of: BTreeMap<PodKey, Name>,
    pods_of: BTreeMap<Name, BTreeSet<PodKey>>,
}

impl Plans {
    /// A pod waits for a node now, or not.
    pub(crate) fn waits(&mut self, pod: &PodKey, waits: bool) {
        if waits {
            self.waiting.insert(pod.clone());
        } else {
            self.waiting.remove(pod);
        }
        self.settle(pod);
    }

    /// `claim` was made for `pod`.
    pub(crate) fn plan(&mut self, pod: PodKey, claim: &Name) {
        self.unplanned.remove(&pod);
        let pods = self.pods_of.entry(Arc::clone(claim)).or_default();
        pods.insert(pod.clone());
        self.claim_of.insert(pod, Arc::clone(claim));
    }

    /// What was planned for a pod counts no more; which claim it was.
    pub(crate) fn unplan(&mut self, pod: &PodKey) -> Option<Name> {
        let claim = self.claim_of.remove(pod)?;
        if let Some(pods) = self.pods_of.get_mut(&claim) {
            pods.remove(pod);
            if pods.is_empty() {
                self.pods_of.remove(&claim);
            }
        }
        self.settle(pod);
        Some(claim)
    }

    /// What a claim was made for counts no more.
    pub(crate) fn forget(&mut self, claim: &str) {
        for pod in self.pods_of.remove(claim).unwrap_or_default() {
            self.claim_of.remove(&pod);
            self.settle(&pod);
        }
    }

    fn settle(&mut self, pod: &PodKey) {
        if self.waiting.contains(pod) && !self.claim_of.contains_key(pod) {
            self.unplanned.insert(pod.clone());
        } else {
            self.unplanned.remove(pod);
        }
    }

    pub(crate) fn claim_of(&self, pod: &PodKey) -> Option<&Name> {
        self.claim_of.get(pod)
    }
    /// The pods that a claim was made for.
    pub(crate) fn pods_of(&self, claim: &str) -> impl Iterator<Item = &PodKey> {
        self.pods_of.get(claim).into_iter().flatten()
    }
    /// All pods that wait for a node.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = &PodKey> {
        self.waiting.iter()
    }
    /// Those of them that no claim was made for.
    pub(crate) fn unplanned(&self) -> impl Iterator<Item = &PodKey> {
        self.unplanned.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> PodKey {
        PodKey {
            namespace: "default".into(),
            name: name.into(),
        }
    }

    fn unplanned(plans: &Plans) -> Vec<&str> {
        plans.unplanned().map(|p| &*p.name).collect()
    }

    #[test]
    fn a_pod_is_unplanned_while_it_waits_and_no_claim_is_made_for_it() {
        let mut plans = Plans::default();
        for name in ["a", "b", "c"] {
            plans.waits(&pod(name), true);
        }
        assert_eq!(unplanned(&plans), ["a", "b", "c"]);
        plans.plan(pod("a"), &"one".into());
        plans.plan(pod("b"), &"one".into());
        assert_eq!(unplanned(&plans), ["c"]);
        assert_eq!(plans.pods_of("one").count(), 2);
        assert_eq!(plans.unplan(&pod("a")), Some("one".into()));
        assert_eq!(unplanned(&plans), ["a", "c"]);
        plans.forget("one");
        assert_eq!(unplanned(&plans), ["a", "b", "c"]);
        plans.plan(pod("c"), &"two".into());
        plans.waits(&pod("c"), false);
        plans.forget("two");
        assert_eq!(unplanned(&plans), ["a", "b"], "it has a node now");
        assert_eq!(plans.waiting().count(), 2);
    }
}
