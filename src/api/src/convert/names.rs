//! Names that changed between v1beta1 and v1: annotations and the taint of disrupted nodes.

use serde_json::{Map, Value};

use super::Converted;
use crate::labels;

/// Annotation with the version that an AMI alias is to have; read, then taken off.
pub(super) const ALIAS_VERSION: &str = "compatibility.karpenter.k8s.aws/v1-alias-version";

/// Annotations that only the in-cluster conversion of Karpenter 1.0 needed, or that mean nothing any more.
const STRIPPED: [&str; 7] = [
    "compatibility.karpenter.sh/v1beta1-kubelet-conversion",
    "compatibility.karpenter.sh/v1beta1-nodeclass-reference",
    "karpenter.sh/stored-version-migrated",
    "compatibility.karpenter.k8s.aws/v1beta1-ubuntu",
    ALIAS_VERSION,
    "compatibility.karpenter.k8s.aws/kubelet-drift-hash",
    "karpenter.sh/managed-by",
];

const RENAMED: [(&str, &str); 1] = [(
    "karpenter.sh/node-termination-timestamp",
    labels::TERMINATION_TIMESTAMP,
)];

const DISRUPTION_TAINT_BETA: &str = "karpenter.sh/disruption";

/// Renames and strips annotations of a `metadata` object.
pub(super) fn annotations(metadata: Option<&mut Value>) {
    let Some(metadata) = metadata.and_then(Value::as_object_mut) else {
        return;
    };
    let Some(annotations) = metadata
        .get_mut("annotations")
        .and_then(Value::as_object_mut)
    else {
        return;
    };
    let mut changed = false;
    for key in STRIPPED {
        changed |= annotations.remove(key).is_some();
    }
    for (old, new) in RENAMED {
        if let Some(value) = annotations.remove(old) {
            annotations.insert(new.to_owned(), value);
            changed = true;
        }
    }
    if changed && annotations.is_empty() {
        metadata.remove("annotations");
    }
}

/// Renames the taint of disrupted nodes in the taint lists of a template or claim.
pub(super) fn taints(spec: &mut Map<String, Value>) {
    for list in ["taints", "startupTaints"] {
        let taints = spec.get_mut(list).and_then(Value::as_array_mut);
        for taint in taints
            .into_iter()
            .flatten()
            .filter_map(Value::as_object_mut)
        {
            if taint.get("key").and_then(Value::as_str) == Some(DISRUPTION_TAINT_BETA) {
                taint.insert("key".to_owned(), labels::DISRUPTED_TAINT.into());
                taint.remove("value");
            }
        }
    }
}

/// Workloads pass as they are, but a toleration of the old taint does nothing any more.
pub(super) fn warn_of_tolerations(doc: &Value, object: &str, out: &mut Converted) {
    for path in [
        "spec.tolerations",
        "spec.template.spec.tolerations",
        "spec.jobTemplate.spec.template.spec.tolerations",
    ] {
        let pointer = format!("/{}", path.replace('.', "/"));
        let list = doc.pointer(&pointer).and_then(Value::as_array);
        let old = |t: &Value| t.get("key").and_then(Value::as_str) == Some(DISRUPTION_TAINT_BETA);
        if list.is_some_and(|list| list.iter().any(old)) {
            let message = format!(
                "tolerates {DISRUPTION_TAINT_BETA}, which is {} (no value) in v1: change it",
                labels::DISRUPTED_TAINT
            );
            out.warn(object, path, message);
        }
    }
}
