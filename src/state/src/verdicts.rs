//! When the provisioner first saw a pod that waits, first decided about it, and first knew a place for it: what times
//! of scheduling are counted from (`operations.md` §3). In memory only, and forgotten with the pod.

use std::collections::BTreeMap;

use jiff::Timestamp;
use karpenter_model::{Pod, PodKey};

use crate::Store;

/// How far a pod has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// First seen waiting.
    pub seen: Timestamp,
    /// First decision, be it that there is no place.
    pub decided: Option<Timestamp>,
    /// First decision that named a place.
    pub placed: Option<Timestamp>,
}

/// By pod.
#[derive(Debug, Default)]
pub(crate) struct Verdicts {
    pods: BTreeMap<PodKey, Verdict>,
}

impl Verdicts {
    pub(crate) fn forget(&mut self, pod: &PodKey) {
        self.pods.remove(pod);
    }
}

impl Store {
    /// The pod waits, and was seen to.
    pub fn note_waiting(&self, pod: &Pod, now: Timestamp) {
        self.with_cluster(|c| {
            if c.pods.get(&pod.key).is_some_and(|held| held.uid == pod.uid) {
                let fresh = Verdict {
                    seen: now,
                    decided: None,
                    placed: None,
                };
                c.verdicts.pods.entry(pod.key.clone()).or_insert(fresh);
            }
        });
    }
    /// Something was decided about the pod: whether there is a place for it. Returns when it was first seen, if this is
    /// the first decision.
    pub fn note_decision(&self, pod: &PodKey, placed: bool, now: Timestamp) -> Option<Timestamp> {
        self.with_cluster(|c| {
            let verdict = c.verdicts.pods.get_mut(pod)?;
            if placed {
                verdict.placed.get_or_insert(now);
            }
            let first = verdict.decided.is_none();
            verdict.decided.get_or_insert(now);
            first.then_some(verdict.seen)
        })
    }
    /// How far a pod has come; none if it never waited.
    #[must_use]
    pub fn verdict(&self, pod: &PodKey) -> Option<Verdict> {
        self.read_cluster(|c| c.verdicts.pods.get(pod).copied())
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod as RawPod;
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, version: &str) -> RawPod {
        let meta = json!({"name": "a", "namespace": "n", "uid": uid, "resourceVersion": version});
        serde_json::from_value(json!({"metadata": meta})).unwrap()
    }

    #[test]
    fn first_times_stay_until_the_pod_goes() {
        let store = Store::default();
        let at = |s| Timestamp::from_second(s).unwrap();
        store.apply_pod(pod("1", "1"));
        let held = store.pods().pop().unwrap();
        let key = held.key.clone();
        assert_eq!(store.note_decision(&key, true, at(1)), None, "never waited");
        store.note_waiting(&held, at(2));
        store.note_waiting(&held, at(3));
        assert_eq!(store.note_decision(&key, false, at(4)), Some(at(2)));
        assert_eq!(store.note_decision(&key, true, at(5)), None);
        assert_eq!(store.note_decision(&key, true, at(6)), None);
        let verdict = store.verdict(&key).unwrap();
        assert_eq!(verdict.decided, Some(at(4)));
        assert_eq!(verdict.placed, Some(at(5)));
        store.apply_pod(pod("2", "2"));
        assert_eq!(store.verdict(&key), None, "another pod of that name");
        store.note_waiting(&held, at(7));
        assert_eq!(store.verdict(&key), None, "the old one is not the new one");
    }
}
