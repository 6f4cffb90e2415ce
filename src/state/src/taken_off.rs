//! Taints that somebody took off a Node before it registered.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use karpenter_api::labels;

use crate::cluster::Cluster;
use crate::table::Step;
use crate::view;

/// A Node's name.
type Name = Arc<str>;

impl Cluster {
    /// Agents take startup taints off as soon as they run, which may be before the Node has registered.
    pub(crate) fn note_taken_off(&mut self, step: &Step<Name, Node>) {
        let open = |n: &&Arc<Node>| !view::has_label(&n.metadata, labels::REGISTERED);
        let Some(after) = step.after.as_ref().filter(open) else {
            self.taken_off.remove(&step.key);
            return;
        };
        let before = step
            .before
            .as_ref()
            .filter(|b| b.metadata.uid == after.metadata.uid);
        let taints = |n: &Node| -> BTreeSet<(String, String)> {
            let all = n.spec.as_ref().and_then(|s| s.taints.clone());
            let all = all.into_iter().flatten();
            all.map(|t| (t.key, t.effect)).collect()
        };
        let now = taints(after);
        let mut gone = before.map(|b| taints(b)).unwrap_or_default();
        if before.is_some() {
            gone.extend(self.taken_off.remove(&step.key).unwrap_or_default());
        }
        gone.retain(|t| !now.contains(t));
        if gone.is_empty() {
            self.taken_off.remove(&step.key);
        } else {
            self.taken_off.insert(step.key.clone(), gone);
        }
    }
}
