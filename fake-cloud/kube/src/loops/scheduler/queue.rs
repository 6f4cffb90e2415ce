//! Pods that wait for a node: which to try now, which wait out their back-off, which wait for the cluster to change.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use karpenter_runtime::Key;
use serde_json::Value;
use tokio::time::Instant;

use super::pod::{self, Pod};
use crate::loops::object;

/// Back-off after the first failed try (the scheduler's `podInitialBackoffSeconds`).
const BACKOFF_FIRST_SECONDS: u64 = 1;
/// Longest back-off (`podMaxBackoffSeconds`).
const BACKOFF_MAX_SECONDS: u64 = 10;
/// Shapes that are remembered before those of pods long gone are forgotten.
const SHAPES_MAX: usize = 10_000;

/// High priority first, then old before young.
type Rank = (Reverse<i64>, Timestamp, u64, Key);

/// A pod without a node.
pub(crate) struct Pending {
    pub(crate) object: Arc<Value>,
    pub(crate) pod: Arc<Pod>,
    /// Pods with the same number are alike; none for pods whose fate depends on their own claims.
    pub(crate) shape: Option<u64>,
    rank: Rank,
    tries: u32,
    tried: Option<Instant>,
    /// Its entry among those that back off.
    ready: Option<Instant>,
    /// The verdict that was last written.
    pub(crate) verdict: String,
}

/// The queue.
#[derive(Default)]
pub(crate) struct Queue {
    pods: BTreeMap<Key, Pending>,
    active: BTreeSet<Rank>,
    backing_off: BTreeSet<(Instant, Key)>,
    shapes: BTreeMap<String, u64>,
    serial: u64,
}

impl Queue {
    /// A new pod, or a change of one that waits already.
    pub(crate) fn upsert(&mut self, object: &Arc<Value>) {
        let key = object::key(object);
        if let Some(known) = self.pods.get_mut(&key) {
            let same = |path: &[&str]| object::at(&known.object, path) == object::at(object, path);
            if object::uid(&known.object) == object::uid(object)
                && same(&["spec"])
                && same(&["metadata", "labels"])
            {
                known.object = Arc::clone(object);
                let nominated = object::text(object, &["status", "nominatedNodeName"]);
                if known.pod.nominated != nominated {
                    let mut pod = Pod::clone(&known.pod);
                    nominated.clone_into(&mut pod.nominated);
                    known.pod = Arc::new(pod);
                }
                return;
            }
            self.remove(&key);
        }
        let pod = Arc::new(Pod::read(object));
        self.serial += 1;
        let shape = pod.claims.is_empty().then(|| self.shape(object));
        let rank = (
            Reverse(pod.priority),
            object::created(object),
            self.serial,
            key.clone(),
        );
        self.active.insert(rank.clone());
        let pending = Pending {
            object: Arc::clone(object),
            pod,
            shape,
            rank,
            tries: 0,
            tried: None,
            ready: None,
            verdict: String::new(),
        };
        self.pods.insert(key, pending);
    }

    fn shape(&mut self, object: &Value) -> u64 {
        if self.shapes.len() > SHAPES_MAX {
            // Numbers are never given twice, so forgetting costs a second look and nothing else.
            self.shapes.clear();
        }
        *self.shapes.entry(pod::shape(object)).or_insert(self.serial)
    }

    pub(crate) fn remove(&mut self, key: &Key) -> Option<Pending> {
        let pending = self.pods.remove(key)?;
        self.active.remove(&pending.rank);
        if let Some(ready) = pending.ready {
            self.backing_off.remove(&(ready, key.clone()));
        }
        Some(pending)
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Pending> {
        self.pods.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: &Key) -> Option<&mut Pending> {
        self.pods.get_mut(key)
    }

    /// The next pod to try, if any.
    pub(crate) fn pop(&mut self) -> Option<Key> {
        self.active.pop_first().map(|(.., key)| key)
    }

    /// The pod was tried in vain.
    pub(crate) fn failed(&mut self, key: &Key, now: Instant) {
        if let Some(pending) = self.pods.get_mut(key) {
            pending.tries = pending.tries.saturating_add(1);
            pending.tried = Some(now);
        }
    }

    /// The cluster changed in a way that may help those for whom `test` holds: they are tried once their back-off is over.
    pub(crate) fn wake(&mut self, now: Instant, test: impl Fn(&Pod) -> bool) {
        for (key, pending) in &mut self.pods {
            // What was never tried is in front already.
            let Some(tried) = pending.tried.filter(|_| test(&pending.pod)) else {
                continue;
            };
            let ready = tried + backoff(pending.tries);
            if ready <= now {
                self.active.insert(pending.rank.clone());
            } else if pending.ready.is_none() {
                pending.ready = Some(ready);
                self.backing_off.insert((ready, key.clone()));
            }
        }
    }

    /// Tries one pod again at `when`.
    pub(crate) fn retry_at(&mut self, key: &Key, when: Instant) {
        if let Some(pending) = self.pods.get_mut(key) {
            if let Some(ready) = pending.ready.replace(when) {
                self.backing_off.remove(&(ready, key.clone()));
            }
            self.backing_off.insert((when, key.clone()));
        }
    }

    /// Moves pods whose back-off is over to the front.
    pub(crate) fn promote(&mut self, now: Instant) {
        while let Some((ready, key)) = self.backing_off.first().cloned() {
            if ready > now {
                break;
            }
            self.backing_off.pop_first();
            if let Some(pending) = self.pods.get_mut(&key) {
                pending.ready = None;
                self.active.insert(pending.rank.clone());
            }
        }
    }

    /// When a back-off is next over.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.backing_off.first().map(|(when, _)| *when)
    }
}

fn backoff(tries: u32) -> Duration {
    let doubled = BACKOFF_FIRST_SECONDS
        .checked_shl(tries.saturating_sub(1).min(16))
        .unwrap_or(BACKOFF_MAX_SECONDS);
    Duration::from_secs(doubled.min(BACKOFF_MAX_SECONDS))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, priority: i64, created: &str) -> Arc<Value> {
        Arc::new(json!({
            "metadata": {"name": name, "namespace": "default", "uid": name, "creationTimestamp": created},
            "spec": {"priority": priority},
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn priority_then_age_then_backoff() {
        let mut queue = Queue::default();
        queue.upsert(&pod("young", 0, "2026-01-01T00:00:02Z"));
        queue.upsert(&pod("old", 0, "2026-01-01T00:00:01Z"));
        queue.upsert(&pod("urgent", 10, "2026-01-01T00:00:03Z"));
        let order: Vec<String> = std::iter::from_fn(|| queue.pop())
            .map(|k| k.name.to_string())
            .collect();
        assert_eq!(order, ["urgent", "old", "young"]);

        let (now, old) = (Instant::now(), Key::namespaced("default", "old"));
        queue.failed(&old, now);
        queue.wake(now, |_| true);
        assert_eq!(queue.pop(), None, "its back-off is not over");
        assert_eq!(queue.deadline(), Some(now + Duration::from_secs(1)));
        queue.promote(now + Duration::from_secs(1));
        assert_eq!(queue.pop(), Some(old.clone()));
        for _ in 0..10 {
            queue.failed(&old, now);
        }
        queue.wake(now, |_| true);
        assert_eq!(queue.deadline(), Some(now + Duration::from_secs(10)));
    }

    #[test]
    fn a_status_write_does_not_put_a_pod_back() {
        let mut queue = Queue::default();
        let before = pod("a", 0, "2026-01-01T00:00:00Z");
        queue.upsert(&before);
        let key = queue.pop().unwrap();
        let mut after = Value::clone(&before);
        after["status"] = json!({"conditions": [{"type": "PodScheduled"}]});
        queue.upsert(&Arc::new(after));
        assert_eq!(queue.pop(), None);
        let mut other = Value::clone(&before);
        other["spec"]["nodeSelector"] = json!({"a": "b"});
        queue.upsert(&Arc::new(other));
        assert_eq!(queue.pop(), Some(key));
    }
}
