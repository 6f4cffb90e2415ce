//! NodeClaim (`karpenter.sh/v1`): one machine, wanted or bought.

use std::collections::BTreeMap;

use kube::core::ClusterResourceScope;
use serde::{Deserialize, Serialize};

use crate::kinds::{
    Condition, NodeClassRef, ObjectMeta, RawQuantity, RequirementSpec, Rest, Taint, Time, TypeInfo,
};

/// A request for one machine and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeClaim {
    /// `apiVersion` and `kind`.
    #[serde(flatten)]
    pub types: TypeInfo,
    /// Standard metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What was asked for; immutable.
    #[serde(default)]
    pub spec: NodeClaimSpec,
    /// What became of it.
    #[serde(default)]
    pub status: NodeClaimStatus,
}

/// Spec of a [`NodeClaim`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeClaimSpec {
    /// Taints the Node carries for good.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<Taint>,
    /// Taints that something else takes off before the Node counts as initialized.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub startup_taints: Vec<Taint>,
    /// What the machine must be like.
    #[serde(default)]
    pub requirements: Vec<RequirementSpec>,
    /// Least resources the machine must offer.
    #[serde(default, skip_serializing_if = "Resources::is_empty")]
    pub resources: Resources,
    /// NodeClass to launch with.
    #[serde(default)]
    pub node_class_ref: NodeClassRef,
    /// How long a drain may take (`48h`); none = for ever. The user's text is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub termination_grace_period: Option<String>,
    /// Age at which the machine is given back (`720h`, `Never`). The user's text is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expire_after: Option<String>,
    /// Fields this build does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

/// Resource requests of a [`NodeClaimSpec`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// Resource name to least quantity.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, RawQuantity>,
}

impl Resources {
    /// Whether nothing is requested.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }
}

/// Status of a [`NodeClaim`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeClaimStatus {
    /// Node that this claim became.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node_name: String,
    /// Machine at the cloud, such as `aws:///us-east-1a/i-0123`.
    #[serde(
        default,
        rename = "providerID",
        skip_serializing_if = "String::is_empty"
    )]
    pub provider_id: String,
    /// Machine image.
    #[serde(default, rename = "imageID", skip_serializing_if = "String::is_empty")]
    pub image_id: String,
    /// Expected capacity of the machine.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub capacity: BTreeMap<String, RawQuantity>,
    /// Expected allocatable of the machine.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub allocatable: BTreeMap<String, RawQuantity>,
    /// Conditions; see `api.md` of Karpenter v1.14 for the types.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Last time a pod came to or left the node; what `consolidateAfter` counts from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_pod_event_time: Option<Time>,
    /// Fields this build does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

crate::impl_kind!(
    NodeClaim,
    "karpenter.sh",
    "v1",
    "NodeClaim",
    "nodeclaims",
    ClusterResourceScope
);
