//! Who is where: pods of one namespace with the same labels are a kind, as no rule about others can tell them apart.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use karpenter_model::{NodeView, Pod};

use crate::abreast::abreast;
use crate::kept::Kept;
use crate::rules::Who;
use crate::topology::Place;

/// Fewer nodes than this are not worth a thread.
const NODES_PER_THREAD: usize = 256;

/// Pods of one namespace with the same labels, all of them on their way out or none.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) example: Arc<Pod>,
    /// Where they are, and how many.
    pub(crate) at: Vec<(Place, usize)>,
}

/// All kinds on some nodes.
#[derive(Debug, Default)]
pub(crate) struct Kinds {
    all: Vec<Kind>,
    /// By label and value.
    by_label: Kept<String, BTreeMap<String, Vec<usize>>>,
}

impl Kinds {
    /// Of these nodes, looked through on so many threads.
    pub(crate) fn new(nodes: &[Arc<NodeView>], threads: usize) -> Self {
        let threads = threads.min(nodes.len() / NODES_PER_THREAD).max(1);
        let each = nodes.len().div_ceil(threads).max(1);
        let parts: Vec<(Place, &[Arc<NodeView>])> =
            (0..).step_by(each).zip(nodes.chunks(each)).collect();
        let parts = abreast(threads, &parts, |(first, nodes)| kinds_of(nodes, *first));
        Self {
            all: joined(parts),
            by_label: Kept::default(),
        }
    }

    /// Those that somebody means.
    pub(crate) fn meant(&self, who: &Who) -> impl Iterator<Item = &Kind> {
        let at = match who.label() {
            None => (0..self.all.len()).collect(),
            Some((key, value)) => {
                let by_value = (self.by_label).get(&key.to_owned(), || by_value(&self.all, key));
                by_value.get(value).cloned().unwrap_or_default()
            }
        };
        let kinds = at.into_iter().filter_map(|at| self.all.get(at));
        kinds.filter(move |kind| who.means(&kind.example))
    }
}

/// What tells kinds apart: whom rules mean, and whether they are on their way out.
type Told<'a> = (&'a str, &'a BTreeMap<String, String>, bool);

fn who(pod: &Pod) -> Told<'_> {
    let leaves = pod.deleted.is_some();
    (pod.key.namespace.as_ref(), &pod.labels, leaves)
}

/// The kinds on nodes whose places begin at `first`, in the order of their first pods.
fn kinds_of(nodes: &[Arc<NodeView>], first: Place) -> Vec<Kind> {
    let mut all: Vec<Kind> = Vec::new();
    let mut index: HashMap<Told<'_>, usize> = HashMap::new();
    for (place, node) in (first..).zip(nodes) {
        for pod in &node.pods {
            let next = all.len();
            let kind = *index.entry(who(pod)).or_insert(next);
            if kind == next {
                all.push(Kind {
                    example: Arc::clone(pod),
                    at: Vec::new(),
                });
            }
            let Some(kind) = all.get_mut(kind) else {
                continue;
            };
            match kind.at.last_mut() {
                Some((at, n)) if *at == place => *n += 1,
                _ => kind.at.push((place, 1)),
            }
        }
    }
    all
}

/// Kinds of one part of the nodes after another, as if all had been looked at together.
fn joined(parts: Vec<Vec<Kind>>) -> Vec<Kind> {
    let mut parts = parts.into_iter();
    let mut all = parts.next().unwrap_or_default();
    for part in parts {
        let examples: Vec<Arc<Pod>> = all.iter().map(|k| Arc::clone(&k.example)).collect();
        let index = examples.iter().enumerate().map(|(at, pod)| (who(pod), at));
        let index: HashMap<_, usize> = index.collect();
        for kind in part {
            match index
                .get(&who(&kind.example))
                .and_then(|at| all.get_mut(*at))
            {
                Some(known) => known.at.extend(kind.at),
                None => all.push(kind),
            }
        }
    }
    all
}

/// Kinds by the value that they have of a label.
fn by_value(kinds: &[Kind], key: &str) -> BTreeMap<String, Vec<usize>> {
    let mut out: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (at, kind) in kinds.iter().enumerate() {
        if let Some(value) = kind.example.labels.get(key) {
            match out.get_mut(value) {
                Some(own) => own.push(at),
                None => {
                    out.insert(value.clone(), vec![at]);
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use karpenter_model::PodKey;

    use super::*;

    fn nodes(count: usize) -> Vec<Arc<NodeView>> {
        let pod = |at: usize, n: usize| {
            let app = format!("app-{}", at * (n + 1) % 7);
            Arc::new(Pod {
                key: PodKey {
                    namespace: "d".into(),
                    name: format!("pod-{at}-{n}").into(),
                },
                labels: BTreeMap::from([("app".to_owned(), app)]),
                ..Pod::default()
            })
        };
        let node = |at: usize| {
            Arc::new(NodeView {
                name: format!("node-{at:05}").into(),
                pods: (0..3).map(|n| pod(at, n)).collect(),
                ..NodeView::default()
            })
        };
        (0..count).map(node).collect()
    }

    #[test]
    fn several_threads_find_the_kinds_that_one_finds() {
        let nodes = nodes(4 * NODES_PER_THREAD + 1);
        let found = |threads: usize| {
            let kinds = Kinds::new(&nodes, threads).all;
            kinds
                .iter()
                .map(|k| (k.example.key.clone(), k.at.clone()))
                .collect::<Vec<_>>()
        };
        assert_eq!(found(1).len(), 7);
        for threads in [2, 3, 4, 1000] {
            assert_eq!(found(threads), found(1), "{threads} threads");
        }
    }
}
