//! Whom rules are about, each once, and found by the labels that those meant have.

use std::collections::BTreeMap;

use karpenter_model::Pod;
use smallvec::SmallVec;

use crate::rules::Who;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Whos {
    all: Vec<Who>,
    index: BTreeMap<Who, usize>,
    /// Those that ask for a value of a label, by label and value.
    by_label: BTreeMap<String, BTreeMap<String, Vec<usize>>>,
    /// The others.
    rest: Vec<usize>,
}

impl Whos {
    /// The number of one, made up if it is new.
    pub(crate) fn id(&mut self, who: &Who) -> usize {
        if let Some(known) = self.index.get(who) {
            return *known;
        }
        let id = self.all.len();
        self.all.push(who.clone());
        self.index.insert(who.clone(), id);
        match who.label() {
            Some((key, value)) => {
                let values = self.by_label.entry(key.to_owned()).or_default();
                values.entry(value.to_owned()).or_default().push(id);
            }
            None => self.rest.push(id),
        }
        id
    }

    /// All that mean a pod.
    pub(crate) fn meaning(&self, pod: &Pod) -> SmallVec<[usize; 8]> {
        let by_label = self.by_label.iter().flat_map(|(key, values)| {
            let value = pod.labels.get(key);
            value.and_then(|v| values.get(v)).into_iter().flatten()
        });
        by_label
            .chain(&self.rest)
            .copied()
            .filter(|id| self.all.get(*id).is_some_and(|w| w.means(pod)))
            .collect()
    }
}
