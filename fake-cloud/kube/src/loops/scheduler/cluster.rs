//! The scheduler's picture of the cluster: usage per node, kept up change by change, and pods counted by what their
//! labels have in common, so that no decision walks over all pods.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use karpenter_runtime::Key;
use serde_json::Value;

use super::pod::{HostPort, Pod};
use crate::loops::object::{self, Labels};
use crate::loops::resources::Amounts;
use crate::loops::selector::Taint;

/// Pods that no selector can tell apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Class {
    pub(crate) namespace: String,
    pub(crate) labels: Labels,
    /// Pods on their way out do not count for spread.
    pub(crate) terminating: bool,
}

/// A node with what runs on it.
#[derive(Debug, Default)]
pub(crate) struct Node {
    /// Whether the Node object is there; pods can outlive it for a while.
    pub(crate) present: bool,
    pub(crate) name: String,
    pub(crate) labels: Labels,
    pub(crate) taints: Vec<Taint>,
    pub(crate) unschedulable: bool,
    pub(crate) allocatable: Amounts,
    pub(crate) requested: Amounts,
    pub(crate) scoring_requested: Amounts,
    /// Number of pods by class.
    pub(crate) classes: BTreeMap<usize, i64>,
    pub(crate) ports: Vec<(Key, HostPort)>,
    /// Pods with required anti-affinity.
    pub(crate) repelling: BTreeMap<Key, Arc<Pod>>,
    /// Pods with preferred affinity or anti-affinity.
    pub(crate) preferring: BTreeMap<Key, Arc<Pod>>,
    pods: BTreeSet<Key>,
}

impl Node {
    /// Pods that are placed on it.
    pub(crate) fn pods(&self) -> impl Iterator<Item = &Key> {
        self.pods.iter()
    }

    fn place(&mut self, pod: &Arc<Pod>, class: usize) {
        self.requested.add(&pod.requests);
        self.scoring_requested.add(&pod.scoring_requests);
        *self.classes.entry(class).or_insert(0) += 1;
        for port in &pod.ports {
            self.ports.push((pod.key.clone(), port.clone()));
        }
        if !pod.anti_affinity.is_empty() {
            self.repelling.insert(pod.key.clone(), Arc::clone(pod));
        }
        if !pod.preferred.is_empty() {
            self.preferring.insert(pod.key.clone(), Arc::clone(pod));
        }
        self.pods.insert(pod.key.clone());
    }

    fn remove(&mut self, pod: &Pod, class: usize) {
        self.requested.subtract(&pod.requests);
        self.scoring_requested.subtract(&pod.scoring_requests);
        if let Some(count) = self.classes.get_mut(&class) {
            *count -= 1;
            if *count == 0 {
                self.classes.remove(&class);
            }
        }
        self.ports.retain(|(k, _)| *k != pod.key);
        self.repelling.remove(&pod.key);
        self.preferring.remove(&pod.key);
        self.pods.remove(&pod.key);
    }
}

/// All nodes and what is placed on them.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    nodes: BTreeMap<String, Node>,
    placed: BTreeMap<Key, (Arc<Pod>, usize)>,
    class_ids: BTreeMap<Class, usize>,
    classes: Vec<Class>,
    namespaces: BTreeMap<String, Labels>,
    /// How many placed pods have required anti-affinity, and preferred terms: mostly none, and then a walk is saved.
    repelling: usize,
    preferring: usize,
    /// How many placed pods name a claim, and how many have a priority.
    claims: BTreeMap<Key, usize>,
    priorities: BTreeMap<i64, usize>,
    /// Goes up with every change that a decision can depend on.
    generation: u64,
}

impl Cluster {
    /// Nodes that are there, in order of name.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values().filter(|n| n.present)
    }
    /// A node, if it is there.
    pub(crate) fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name).filter(|n| n.present)
    }
    pub(crate) fn classes(&self) -> &[Class] {
        &self.classes
    }
    pub(crate) fn namespace_labels(&self, name: &str) -> Labels {
        self.namespaces.get(name).cloned().unwrap_or_default()
    }
    pub(crate) fn any_repelling(&self) -> bool {
        self.repelling > 0
    }
    pub(crate) fn any_preferring(&self) -> bool {
        self.preferring > 0
    }
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }
    /// Takes back the number of an earlier state, for who has brought back that very state.
    pub(crate) fn back_to(&mut self, generation: u64) {
        self.generation = generation;
    }
    /// Whether a placed pod names a claim.
    pub(crate) fn uses(&self, claim: &Key) -> bool {
        self.claims.contains_key(claim)
    }
    /// Pods on a node that are of lower priority.
    pub(crate) fn lesser(&self, node: &str, priority: i64) -> Vec<Arc<Pod>> {
        // Mostly there are none in the whole cluster.
        let any = self.priorities.range(..priority).next().is_some();
        let node = self.nodes.get(node).filter(|_| any);
        let pods = node.into_iter().flat_map(Node::pods);
        pods.filter_map(|key| self.placed.get(key))
            .filter(|(pod, _)| pod.priority < priority)
            .map(|(pod, _)| Arc::clone(pod))
            .collect()
    }
    /// Where a pod is placed.
    pub(crate) fn place_of(&self, key: &Key) -> Option<&str> {
        self.placed.get(key).map(|(p, _)| p.node.as_str())
    }

    /// A placed pod.
    pub(crate) fn placed(&self, key: &Key) -> Option<&Pod> {
        self.placed.get(key).map(|(p, _)| p.as_ref())
    }

    /// Takes in a node; true when something changed that scheduling can depend on.
    pub(crate) fn set_node(&mut self, object: &Value) -> bool {
        let name = object::name(object);
        let labels = object::labels(object);
        let taints = Taint::of_node(object);
        let unschedulable = object::flag(object, &["spec", "unschedulable"]);
        let allocatable = Amounts::read(object::at(object, &["status", "allocatable"]));
        let node = self.nodes.entry(name.to_owned()).or_default();
        let same = node.present
            && node.labels == labels
            && node.taints == taints
            && node.unschedulable == unschedulable
            && node.allocatable == allocatable;
        if same {
            return false;
        }
        name.clone_into(&mut node.name);
        node.present = true;
        node.labels = labels;
        node.taints = taints;
        node.unschedulable = unschedulable;
        node.allocatable = allocatable;
        self.generation += 1;
        true
    }

    /// The Node object is gone.
    pub(crate) fn remove_node(&mut self, name: &str) {
        if let Some(node) = self.nodes.get_mut(name) {
            node.present = false;
            if node.pods.is_empty() {
                self.nodes.remove(name);
            }
            self.generation += 1;
        }
    }

    /// Takes in a namespace's labels.
    pub(crate) fn set_namespace(&mut self, name: &str, labels: Option<Labels>) {
        let changed = match labels {
            Some(labels) => self.namespaces.insert(name.to_owned(), labels.clone()) != Some(labels),
            None => self.namespaces.remove(name).is_some(),
        };
        if changed {
            self.generation += 1;
        }
    }

    /// Puts a pod on its node, wherever it was before.
    pub(crate) fn place(&mut self, pod: Arc<Pod>) {
        self.unplace(&pod.key);
        let class = self.class_of(&pod);
        *self.priorities.entry(pod.priority).or_insert(0) += 1;
        for claim in &pod.claims {
            let key = Key::namespaced(&pod.namespace, claim);
            *self.claims.entry(key).or_insert(0) += 1;
        }
        self.repelling += usize::from(!pod.anti_affinity.is_empty());
        self.preferring += usize::from(!pod.preferred.is_empty());
        self.nodes
            .entry(pod.node.clone())
            .or_default()
            .place(&pod, class);
        self.placed.insert(pod.key.clone(), (pod, class));
        self.generation += 1;
    }

    /// Takes a pod off its node; false when it was on none.
    pub(crate) fn unplace(&mut self, key: &Key) -> bool {
        let Some((pod, class)) = self.placed.remove(key) else {
            return false;
        };
        less(&mut self.priorities, &pod.priority);
        for claim in &pod.claims {
            less(&mut self.claims, &Key::namespaced(&pod.namespace, claim));
        }
        self.repelling -= usize::from(!pod.anti_affinity.is_empty());
        self.preferring -= usize::from(!pod.preferred.is_empty());
        if let Some(node) = self.nodes.get_mut(&pod.node) {
            node.remove(&pod, class);
            if !node.present && node.pods.is_empty() {
                self.nodes.remove(&pod.node);
            }
        }
        self.generation += 1;
        true
    }

    fn class_of(&mut self, pod: &Pod) -> usize {
        let class = Class {
            namespace: pod.namespace.clone(),
            labels: pod.labels.clone(),
            terminating: pod.terminating,
        };
        if let Some(id) = self.class_ids.get(&class) {
            return *id;
        }
        let id = self.classes.len();
        self.classes.push(class.clone());
        self.class_ids.insert(class, id);
        id
    }
}

/// Counts one less; what is not there any more is forgotten.
fn less<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, node: &str, cpu: &str) -> Arc<Pod> {
        Arc::new(Pod::read(&json!({
            "metadata": {"name": name, "namespace": "default", "labels": {"app": "a"}},
            "spec": {"nodeName": node, "containers": [{"resources": {"requests": {"cpu": cpu}}, "ports": [{"hostPort": 80}]}]},
        })))
    }

    #[test]
    fn usage_follows_pods_and_survives_the_node() {
        let mut cluster = Cluster::default();
        let node = json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "4", "pods": "10"}}});
        assert!(cluster.set_node(&node));
        assert!(!cluster.set_node(&node), "same again is no change");
        cluster.place(pod("a", "n", "1"));
        cluster.place(pod("b", "n", "2"));
        cluster.place(pod("a", "n", "3"));
        let n = cluster.node("n").unwrap();
        assert_eq!(
            (n.requested.cpu, n.requested.pods, n.ports.len()),
            (5000, 2, 2)
        );
        cluster.remove_node("n");
        assert!(cluster.node("n").is_none());
        cluster.set_node(&node);
        assert_eq!(cluster.node("n").unwrap().requested.cpu, 5000);
        cluster.unplace(&Key::namespaced("default", "a"));
        cluster.unplace(&Key::namespaced("default", "b"));
        let n = cluster.node("n").unwrap();
        assert_eq!(n.requested, Amounts::default());
        assert!(n.classes.is_empty() && n.ports.is_empty());
    }
}
