//! Labels of namespaces, which selectors of pod affinity look at.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use karpenter_model::Namespaces;

use crate::Kind;
use crate::cluster::{Cluster, name_of, version_of};
use crate::storage::feeds_trimmed;
use crate::table::{Step, Version};

type Labels = BTreeMap<String, String>;

fn labels(raw: &Namespace) -> Labels {
    raw.metadata.labels.clone().unwrap_or_default()
}

impl Cluster {
    feeds_trimmed!(namespaces: Arc<str>, Namespace, labels, name_of, namespace_changed; apply_namespace, delete_namespace, reset_namespaces);

    fn namespace_changed(&mut self, step: Step<Arc<str>, Labels>) {
        if step.before == step.after {
            return;
        }
        self.labels_of_namespaces = None;
        self.plans_differ();
        self.note_name(Kind::Namespace, &step.key, step.after.is_none());
    }

    /// Labels by namespace; the same allocation until one changes.
    pub(crate) fn labels_of_namespaces(&mut self) -> Arc<Namespaces> {
        let table = &self.namespaces;
        let read = || {
            let all = table.iter();
            let all = all.map(|(name, labels)| (name.clone(), Labels::clone(labels)));
            Arc::new(all.collect())
        };
        self.labels_of_namespaces.get_or_insert_with(read).clone()
    }
}
