//! Pods on nodes that keep others away from where they are (anti-affinity that they require), found by those whom they
//! keep away: a question about a cluster looks at those that concern its own pods, however many others there are.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use karpenter_model::{NodeView, Pod, PodKey, Problem};

use crate::ledger::Whos;
use crate::rooms::Bits;
use crate::rules::{self, Who};
use crate::topology::Place;

/// What pods hold against others: the key whose domains they keep clear, and of whom.
pub(crate) type Held = (Arc<str>, Who);
/// Which of those that pods on nodes hold.
pub(crate) type HeldId = usize;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Keepers {
    rules: Vec<Held>,
    index: BTreeMap<Held, HeldId>,
    /// Where pods are that hold it, once for each.
    places: Vec<Vec<Place>>,
    whos: Whos,
    /// By whom.
    by_who: Vec<Vec<HeldId>>,
    /// What is held at a place, once for each pod.
    at: HashMap<Place, Vec<HeldId>>,
    /// Where each of them is, and what it holds.
    pods: HashMap<PodKey, (Place, Vec<HeldId>)>,
}

impl Keepers {
    /// Of these nodes.
    pub(crate) fn new(nodes: &[Arc<NodeView>], problem: &Problem) -> Self {
        let mut out = Self::default();
        for (place, node) in nodes.iter().enumerate() {
            for pod in &node.pods {
                let affinity = pod.affinity.as_ref();
                if affinity.is_some_and(|a| a.pod_anti_affinity.is_some()) {
                    out.add(place, pod, problem);
                }
            }
        }
        out
    }

    fn add(&mut self, place: Place, pod: &Pod, problem: &Problem) {
        let held: Vec<HeldId> = rules::held(problem, pod).map(|h| self.id(h)).collect();
        if held.is_empty() {
            return;
        }
        for id in &held {
            if let Some(places) = self.places.get_mut(*id) {
                places.push(place);
            }
        }
        self.at.entry(place).or_default().extend(&held);
        self.pods.insert(pod.key.clone(), (place, held));
    }

    fn id(&mut self, held: Held) -> HeldId {
        if let Some(known) = self.index.get(&held) {
            return *known;
        }
        let id = self.rules.len();
        let who = self.whos.id(&held.1);
        if self.by_who.len() <= who {
            self.by_who.resize(who + 1, Vec::new());
        }
        if let Some(own) = self.by_who.get_mut(who) {
            own.push(id);
        }
        self.rules.push(held.clone());
        self.places.push(Vec::new());
        self.index.insert(held, id);
        id
    }

    /// What is held against a pod.
    pub(crate) fn against(&self, pod: &Pod) -> impl Iterator<Item = HeldId> {
        let whos = self.whos.meaning(pod).into_iter();
        whos.flat_map(|who| self.by_who.get(who).into_iter().flatten().copied())
    }

    /// What is held by that number.
    pub(crate) fn held(&self, id: HeldId) -> Option<&Held> {
        self.rules.get(id)
    }

    /// The number of what pods on nodes hold, if any does.
    pub(crate) fn number(&self, held: &Held) -> Option<HeldId> {
        self.index.get(held).copied()
    }

    /// Where pods are that hold it.
    pub(crate) fn places(&self, id: HeldId) -> &[Place] {
        self.places.get(id).map_or(&[], Vec::as_slice)
    }

    /// How many pods on nodes that are gone hold what, of all that is held there.
    pub(crate) fn on(&self, gone: &Bits) -> BTreeMap<HeldId, usize> {
        let mut out = BTreeMap::new();
        let held = gone.iter().filter_map(|place| self.at.get(&place));
        for id in held.flatten() {
            *out.entry(*id).or_default() += 1;
        }
        out
    }

    /// Whether any pod holds it when those that `on` counted are gone.
    pub(crate) fn stays(&self, id: HeldId, on_gone: &BTreeMap<HeldId, usize>) -> bool {
        self.places(id).len() > on_gone.get(&id).copied().unwrap_or(0)
    }

    /// Where a pod is and what it holds, if it holds anything.
    pub(crate) fn pod(&self, key: &PodKey) -> Option<(Place, &[HeldId])> {
        let (place, held) = self.pods.get(key)?;
        Some((*place, held))
    }
}
