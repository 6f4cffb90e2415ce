//! How many pods a ReplicaSet has, kept up from changes: a set of thousands of pods would else be looked through at each
//! change of one of them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::object::{self, Labels};

/// What counts of the pods of one controller.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Tally {
    /// Pods that neither ended nor leave.
    pub(crate) active: i64,
    /// Those of them that are ready.
    pub(crate) ready: i64,
    /// The active ones by their labels.
    labels: BTreeMap<Labels, i64>,
}

impl Tally {
    /// Active pods that have all of these labels.
    pub(crate) fn labelled(&self, wanted: &Labels) -> i64 {
        let all = |labels: &Labels| wanted.iter().all(|(k, v)| labels.get(k) == Some(v));
        (self.labels.iter())
            .filter(|(labels, _)| all(labels))
            .map(|(_, pods)| pods)
            .sum()
    }

    /// Counts a pod in (`by` 1) or out (-1).
    fn count(&mut self, pod: &Value, by: i64) {
        if !object::active(pod) {
            return;
        }
        self.active += by;
        if object::pod_ready(pod) {
            self.ready += by;
        }
        let labels = object::labels(pod);
        let alike = self.labels.entry(labels.clone()).or_default();
        *alike += by;
        if *alike == 0 {
            self.labels.remove(&labels);
        }
    }
}

/// The tallies of all controllers, by UID.
#[derive(Debug, Default)]
pub(crate) struct Tallies(BTreeMap<String, Tally>);

impl Tallies {
    /// A pod was `before` and is `now`.
    pub(crate) fn moved(&mut self, before: Option<&Value>, now: Option<&Value>) {
        for (pod, by) in before
            .map(|p| (p, -1))
            .into_iter()
            .chain(now.map(|p| (p, 1)))
        {
            let uid = object::controller_uid(pod);
            if uid.is_empty() {
                continue;
            }
            let tally = self.0.entry(uid.to_owned()).or_default();
            tally.count(pod, by);
            if *tally == Tally::default() {
                self.0.remove(uid);
            }
        }
    }

    /// That of the controller with this UID, none where it has no pods that count.
    pub(crate) fn of(&self, uid: &str) -> Option<&Tally> {
        self.0.get(uid)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(owner: &str, phase: &str, ready: bool, app: &str) -> Value {
        let ready = if ready { "True" } else { "False" };
        json!({
            "metadata": {"labels": {"app": app},
                "ownerReferences": [{"controller": true, "kind": "ReplicaSet", "name": "s", "uid": owner}]},
            "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]},
        })
    }

    #[test]
    fn what_is_counted_in_is_counted_out() {
        let mut tallies = Tallies::default();
        let (waits, runs, ended) = (
            pod("a", "Pending", false, "x"),
            pod("a", "Running", true, "y"),
            pod("a", "Succeeded", false, "x"),
        );
        tallies.moved(None, Some(&waits));
        tallies.moved(None, Some(&waits));
        tallies.moved(Some(&waits), Some(&runs));
        let labelled = |app: &str| Labels::from([("app".to_owned(), app.to_owned())]);
        let a = tallies.of("a").unwrap();
        assert_eq!((a.active, a.ready), (2, 1));
        let counts = ["x", "y", "z"].map(|app| a.labelled(&labelled(app)));
        assert_eq!((counts, a.labelled(&Labels::new())), ([1, 1, 0], 2));
        tallies.moved(Some(&waits), Some(&ended));
        assert_eq!(tallies.of("a").unwrap().active, 1);
        // Adopted by another set.
        tallies.moved(Some(&runs), Some(&pod("b", "Running", true, "y")));
        assert_eq!(tallies.of("a"), None);
        assert_eq!(tallies.of("b").unwrap().ready, 1);
        tallies.moved(Some(&pod("b", "Running", true, "y")), None);
        assert_eq!(tallies.of("b"), None);
    }
}
