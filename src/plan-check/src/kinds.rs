//! Pods that no rule can tell apart: what holds of one of them holds of all, and is worked out once.

use std::collections::{BTreeMap, HashMap};

use karpenter_model::Pod;

/// Kinds of pods, numbered as they were met.
#[derive(Default)]
pub(crate) struct Kinds<'a> {
    /// One pod of each.
    pub(crate) examples: Vec<&'a Pod>,
    by_labels: HashMap<(&'a str, &'a BTreeMap<String, String>), Vec<usize>>,
}

impl<'a> Kinds<'a> {
    /// The number of a pod's kind.
    pub(crate) fn of(&mut self, pod: &'a Pod) -> usize {
        let place = (pod.key.namespace.as_ref(), &pod.labels);
        let known = self.by_labels.entry(place).or_default();
        let alike = |k: &&usize| self.examples.get(**k).is_some_and(|e| are_alike(e, pod));
        if let Some(kind) = known.iter().find(alike) {
            return *kind;
        }
        let kind = self.examples.len();
        known.push(kind);
        self.examples.push(pod);
        kind
    }
}

/// Whether pods of the same namespace and labels want the same of nodes and of other pods.
fn are_alike(a: &Pod, b: &Pod) -> bool {
    a.node_selector == b.node_selector
        && a.tolerations == b.tolerations
        && a.spread == b.spread
        && a.affinity == b.affinity
}
