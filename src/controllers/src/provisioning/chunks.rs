//! Capacity buffers in plans: the chunks that are planned for, and what a plan made of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use karpenter_model::{LabelRegistry, NodeView, Plan, Pod, PodKey};
use karpenter_state::{Fit, Resolution, Store};

/// The chunks of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chunks {
    /// To be planned for.
    pub(crate) pods: Vec<Arc<Pod>>,
    /// What the buffers came to when the run began.
    buffers: Vec<(PodKey, Arc<Resolution>)>,
    /// Buffers whose chunks no plan can be made for, and why.
    refused: BTreeMap<PodKey, String>,
}

impl Chunks {
    /// Those of all buffers there are.
    pub(crate) fn collect(state: &Store, registry: &LabelRegistry) -> Self {
        let mut chunks = Self {
            buffers: state.resolutions(),
            ..Self::default()
        };
        for (key, resolution) in &chunks.buffers {
            // They are all alike.
            let why = resolution.pods().first().and_then(|p| p.refusal(registry));
            match why {
                Some(why) => {
                    chunks.refused.insert(key.clone(), why.to_string());
                }
                None => chunks.pods.extend(resolution.pods().iter().cloned()),
            }
        }
        chunks
    }

    /// Where the chunks found room in a plan; nothing is known of buffers that it did not get to.
    pub(crate) fn fits(
        &self,
        nodes: &[Arc<NodeView>],
        plan: &Plan,
    ) -> BTreeMap<PodKey, (Arc<Resolution>, Fit)> {
        let ready: BTreeSet<&str> = nodes
            .iter()
            .filter(|n| n.initialized)
            .map(|n| &*n.name)
            .collect();
        let mut there = BTreeSet::new();
        let mut coming = BTreeSet::new();
        for placement in &plan.existing {
            if ready.contains(&*placement.node) {
                there.extend(&placement.pods);
            } else {
                coming.extend(&placement.pods);
            }
        }
        coming.extend(plan.new_nodes.iter().flat_map(|n| &n.pods));
        let missing: BTreeMap<&PodKey, &str> = plan
            .unschedulable
            .iter()
            .map(|u| (&u.pod, &*u.reason))
            .collect();

        let mut fits = BTreeMap::new();
        for (key, resolution) in &self.buffers {
            let mut fit = Fit::default();
            if let Some(why) = self.refused.get(key) {
                fit.missing = resolution.pods().len();
                fit.why = Some(why.clone());
            } else {
                for pod in resolution.pods() {
                    if there.contains(&pod.key) {
                        fit.there += 1;
                    } else if coming.contains(&pod.key) {
                        fit.coming += 1;
                    } else if let Some(why) = missing.get(&pod.key) {
                        fit.missing += 1;
                        fit.why.get_or_insert_with(|| (*why).to_owned());
                    }
                }
            }
            if fit.there + fit.coming + fit.missing == resolution.pods().len() {
                fits.insert(key.clone(), (resolution.clone(), fit));
            }
        }
        fits
    }
}
