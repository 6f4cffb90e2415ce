//! Which machines are on their way out (`MarkedForDeletion` of Karpenter v1.14).

use k8s_openapi::api::core::v1::Node;
use karpenter_api::NodeClaim;
use karpenter_api::kinds::Condition;

/// Whether `conditions` holds `kind` with status `True`.
#[must_use]
pub fn condition_is_true(conditions: &[Condition], kind: &str) -> bool {
    conditions
        .iter()
        .any(|c| c.type_ == kind && c.status == "True")
}

/// Whether the claim's own object says that its machine goes.
pub(crate) fn claim_is_leaving(claim: &NodeClaim) -> bool {
    claim.metadata.deletion_timestamp.is_some()
        || condition_is_true(&claim.status.conditions, "InstanceTerminating")
}

/// Whether a node that no claim stands behind goes.
pub(crate) fn node_is_leaving(node: &Node) -> bool {
    node.metadata.deletion_timestamp.is_some()
}
