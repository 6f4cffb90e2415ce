//! The cluster as it will be: nodes with the pods that stay or come, by kind.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Taint, TopologySpreadConstraint};
use karpenter_api::labels as names;
use karpenter_model::{NodeView, Pod, Problem};

use super::coming::Coming;
use super::meant;
use crate::case::{Case, Purchase};
use crate::fits::untolerated;
use crate::kinds::Kinds;
use crate::labels::{Labelled, admits, keys_asked};

/// All nodes.
pub(crate) struct Places<'a> {
    pub(crate) all: Vec<Place<'a>>,
    pub(crate) kinds: Kinds<'a>,
    /// The places of each kind's pods.
    of_kind: Vec<Vec<usize>>,
    planned: Vec<bool>,
}

/// A node as it will be.
pub(crate) struct Place<'a> {
    what: What<'a>,
    /// Its host name.
    name: String,
    taints: &'a [Taint],
    /// Its pods by kind.
    pub(crate) pods: BTreeMap<usize, Group<'a>>,
    /// DaemonSets' pods beside them.
    pub(crate) coming: Coming<'a>,
}

/// What a place is.
enum What<'a> {
    /// It is there.
    Node(&'a NodeView),
    /// It is to be bought.
    Machine(Values),
}

/// The values that labels of a machine may have, and whether it will have some for certain.
type Values = BTreeMap<String, (BTreeSet<String>, bool)>;

/// Pods of a kind on a node.
#[derive(Default)]
pub(crate) struct Group<'a> {
    /// Those that the plan puts there.
    pub(crate) planned: Vec<&'a Pod>,
    /// Those that are there.
    pub(crate) there: Vec<&'a Pod>,
}

impl<'a> Group<'a> {
    pub(crate) fn len(&self) -> usize {
        self.planned.len() + self.there.len()
    }

    /// Every pod, and whether it is the plan that puts it there.
    pub(crate) fn each(&self) -> impl Iterator<Item = (&'a Pod, bool)> {
        let planned = self.planned.iter().map(|p| (*p, true));
        planned.chain(self.there.iter().map(|p| (*p, false)))
    }
}

impl<'a> Places<'a> {
    pub(crate) fn new(case: &Case<'a>) -> Self {
        let mut kinds = Kinds::default();
        let mut placed: BTreeMap<&str, BTreeSet<_>> = BTreeMap::new();
        for existing in &case.plan.existing {
            let on_node = placed.entry(&existing.node).or_default();
            on_node.extend(&existing.pods);
        }
        let mut all = Vec::new();
        for node in &case.problem.nodes {
            let mut pods: BTreeMap<usize, Group<'a>> = BTreeMap::new();
            let planned = placed.get(node.name.as_ref()).into_iter().flatten();
            for pod in planned.filter_map(|key| case.pods.get(*key).copied()) {
                pods.entry(kinds.of(pod)).or_default().planned.push(pod);
            }
            // Pods that are planned anew leave where they are.
            for pod in node.pods.iter().filter(|p| !case.pods.contains_key(&p.key)) {
                pods.entry(kinds.of(pod)).or_default().there.push(pod);
            }
            let name = node.labels.get(names::HOSTNAME);
            all.push(Place {
                what: What::Node(node),
                name: name.cloned().unwrap_or_else(|| node.name.to_string()),
                taints: &node.taints,
                pods,
                coming: Coming::default(),
            });
        }
        for purchase in &case.purchases {
            let mut pods: BTreeMap<usize, Group<'a>> = BTreeMap::new();
            for pod in case.pods_of(&purchase.node.pods) {
                pods.entry(kinds.of(pod)).or_default().planned.push(pod);
            }
            all.push(Place {
                what: What::Machine(BTreeMap::new()),
                name: purchase.what.clone(),
                taints: &purchase.pool.taints,
                pods,
                coming: Coming::default(),
            });
        }
        for (place, coming) in all.iter_mut().zip(Coming::of(case)) {
            place.coming = coming;
        }
        // Only what rules or pods ask about is worked out for what may be bought.
        let keys = keys(&kinds, case.problem);
        let machines = all.iter_mut().skip(case.problem.nodes.len());
        for (place, purchase) in machines.zip(&case.purchases) {
            place.what = What::Machine(values(purchase, &keys));
        }
        let mut of_kind = vec![Vec::new(); kinds.examples.len()];
        let mut planned = vec![false; kinds.examples.len()];
        for (at, place) in all.iter().enumerate() {
            for (kind, group) in &place.pods {
                if let Some(places) = of_kind.get_mut(*kind) {
                    places.push(at);
                }
                if let Some(planned) = planned.get_mut(*kind) {
                    *planned |= !group.planned.is_empty();
                }
            }
        }
        Self {
            all,
            kinds,
            of_kind,
            planned,
        }
    }

    /// Whether the plan places pods of a kind.
    pub(crate) fn is_planned(&self, kind: usize) -> bool {
        self.planned.get(kind).copied().unwrap_or_default()
    }

    /// The places where pods of a kind are, and those pods.
    pub(crate) fn of(&self, kind: usize) -> impl Iterator<Item = (usize, &Place<'a>, &Group<'a>)> {
        let places = self.of_kind.get(kind).into_iter().flatten();
        places.filter_map(move |at| {
            let place = self.all.get(*at)?;
            Some((*at, place, place.pods.get(&kind)?))
        })
    }
}

/// Label keys that rules and selectors name.
fn keys(kinds: &Kinds<'_>, problem: &Problem) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    let daemons = problem.daemons.iter().map(|d| &**d);
    for pod in kinds.examples.iter().copied().chain(daemons) {
        keys.extend(pod.spread.iter().map(|c| c.topology_key.clone()));
        keys.extend(keys_asked(pod, &problem.labels).map(str::to_owned));
        let terms = meant::apart(pod).iter().chain(meant::together(pod));
        keys.extend(terms.map(|t| t.topology_key.clone()));
    }
    keys
}

/// The values that labels of a machine may have.
fn values(purchase: &Purchase<'_>, keys: &BTreeSet<String>) -> Values {
    let mut values = Values::new();
    for key in keys {
        let mut known: BTreeSet<String> = BTreeSet::new();
        let mut is_certain = true;
        for sold in &purchase.sold {
            for node in purchase.nodes(sold) {
                match node.label(key) {
                    Some(Some(value)) if !known.contains(value) => {
                        known.insert(value.to_owned());
                    }
                    Some(Some(_)) => {}
                    Some(None) | None => is_certain = false,
                }
            }
        }
        if !known.is_empty() {
            values.insert(key.clone(), (known, is_certain));
        }
    }
    values
}

/// A label that has one possible value has it; one of several is there with one that is not known.
impl Labelled for Place<'_> {
    fn label(&self, key: &str) -> Option<Option<&str>> {
        match &self.what {
            What::Node(node) => node.labels.label(key),
            What::Machine(values) => {
                let (values, is_certain) = values.get(key)?;
                let mut all = values.iter();
                let first = all.next().map(String::as_str);
                Some(first.filter(|_| *is_certain && all.next().is_none()))
            }
        }
    }
}

impl Place<'_> {
    /// Whether it is there, not still to be bought.
    pub(crate) fn exists(&self) -> bool {
        matches!(self.what, What::Node(_))
    }

    /// The domains of `key` that it may be in.
    pub(crate) fn domains(&self, key: &str) -> Vec<&str> {
        if key == names::HOSTNAME {
            return vec![&self.name];
        }
        match &self.what {
            What::Node(node) => node
                .labels
                .get(key)
                .map(String::as_str)
                .into_iter()
                .collect(),
            What::Machine(values) => {
                let values = values.get(key).into_iter().flat_map(|(values, _)| values);
                values.map(String::as_str).collect()
            }
        }
    }

    /// The domain of `key` that it is in for certain.
    pub(crate) fn domain(&self, key: &str) -> Option<&str> {
        if let What::Machine(values) = &self.what
            && values.get(key).is_some_and(|(_, is_certain)| !is_certain)
        {
            return None;
        }
        match self.domains(key).as_slice() {
            [only] => Some(only),
            _ => None,
        }
    }

    /// Whether a spread constraint of the pod counts this node: by default nodes that it may not select do not count,
    /// those whose taints it does not tolerate do.
    pub(crate) fn counts(
        &self,
        problem: &Problem,
        pod: &Pod,
        constraint: &TopologySpreadConstraint,
    ) -> bool {
        let by_affinity = constraint.node_affinity_policy.as_deref() == Some("Ignore")
            || admits(self, pod, &problem.labels);
        let by_taints = constraint.node_taints_policy.as_deref() != Some("Honor")
            || untolerated(self.taints, pod, true).is_none();
        // A node without the label of one spread that must hold counts for none of the pod's.
        let labelled = meant::spread(pod).all(|c| !self.domains(&c.topology_key).is_empty());
        by_affinity && by_taints && labelled
    }
}
