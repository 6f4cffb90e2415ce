//! NodePool (`karpenter.sh/v1`): what machines may be bought, how many, and when they may be taken back.

use std::collections::BTreeMap;

use kube::core::ClusterResourceScope;
use serde::{Deserialize, Serialize};

use crate::kinds::{
    Condition, NodeClassRef, ObjectMeta, RawQuantity, RequirementSpec, Rest, Taint, TypeInfo,
};

/// A family of machines with a template, limits and rules for disruption.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodePool {
    /// `apiVersion` and `kind`.
    #[serde(flatten)]
    pub types: TypeInfo,
    /// Standard metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is wanted.
    #[serde(default)]
    pub spec: NodePoolSpec,
    /// What is.
    #[serde(default)]
    pub status: NodePoolStatus,
}

/// Spec of a [`NodePool`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodePoolSpec {
    /// What every claim of this pool starts from.
    #[serde(default)]
    pub template: NodeClaimTemplate,
    /// When machines may be given back.
    #[serde(default)]
    pub disruption: Disruption,
    /// Most resources all machines of the pool may add up to; key `nodes` counts machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<BTreeMap<String, RawQuantity>>,
    /// Higher is tried first (1..=100, none = 0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<i32>,
    /// Makes the pool static: this many machines, whatever the pods ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i64>,
    /// Fields this build does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

/// Template of the claims of a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeClaimTemplate {
    /// Labels and annotations for claims and nodes.
    #[serde(default, skip_serializing_if = "TemplateMeta::is_empty")]
    pub metadata: TemplateMeta,
    /// Spec for claims.
    #[serde(default)]
    pub spec: NodeClaimTemplateSpec,
}

/// Metadata of a [`NodeClaimTemplate`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TemplateMeta {
    /// Labels of the claim and the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Annotations of the claim and the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

impl TemplateMeta {
    /// Whether there is neither a label nor an annotation field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_none() && self.annotations.is_none()
    }
}

/// Spec of a [`NodeClaimTemplate`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", from = "WireTemplateSpec")]
pub struct NodeClaimTemplateSpec {
    /// NodeClass to launch with.
    pub node_class_ref: NodeClassRef,
    /// What the machines must be like.
    pub requirements: Vec<RequirementSpec>,
    /// Taints the Node carries for good.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<Taint>,
    /// Taints that something else takes off before the Node counts as initialized.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub startup_taints: Vec<Taint>,
    /// Age at which a machine is given back (`720h`, `Never`). The user's text is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expire_after: Option<String>,
    /// How long a drain may take (`48h`); none = for ever. The user's text is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub termination_grace_period: Option<String>,
    /// Which lists were written, be it empty: the drift hash tells an empty list from none.
    #[serde(skip)]
    pub given: GivenLists,
    /// Fields this build does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

/// Lists that were written in the object that was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GivenLists {
    /// `taints`.
    pub taints: bool,
    /// `startupTaints`.
    pub startup_taints: bool,
}

/// [`NodeClaimTemplateSpec`] as it is read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireTemplateSpec {
    #[serde(default)]
    node_class_ref: NodeClassRef,
    #[serde(default)]
    requirements: Vec<RequirementSpec>,
    taints: Option<Vec<Taint>>,
    startup_taints: Option<Vec<Taint>>,
    expire_after: Option<String>,
    termination_grace_period: Option<String>,
    #[serde(flatten)]
    rest: Rest,
}

impl From<WireTemplateSpec> for NodeClaimTemplateSpec {
    fn from(wire: WireTemplateSpec) -> Self {
        Self {
            given: GivenLists {
                taints: wire.taints.is_some(),
                startup_taints: wire.startup_taints.is_some(),
            },
            node_class_ref: wire.node_class_ref,
            requirements: wire.requirements,
            taints: wire.taints.unwrap_or_default(),
            startup_taints: wire.startup_taints.unwrap_or_default(),
            expire_after: wire.expire_after,
            termination_grace_period: wire.termination_grace_period,
            rest: wire.rest,
        }
    }
}

/// When machines may be given back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Disruption {
    /// Quiet time after which a node may be consolidated (`30s`, `Never`). The user's text is kept.
    #[serde(default = "default_consolidate_after")]
    pub consolidate_after: String,
    /// `WhenEmpty`, `WhenEmptyOrUnderutilized` or `Balanced`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consolidation_policy: Option<String>,
    /// How many nodes may be disrupted at once; none = `[{nodes: 10%}]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budgets: Option<Vec<Budget>>,
    /// Fields this build does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

fn default_consolidate_after() -> String {
    "0s".to_owned()
}

impl Default for Disruption {
    fn default() -> Self {
        Self {
            consolidate_after: default_consolidate_after(),
            consolidation_policy: None,
            budgets: None,
            rest: Rest::new(),
        }
    }
}

/// One rule of how many nodes of a pool may be disrupted at once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// A number or a percentage of the pool's nodes (rounded up).
    #[serde(default)]
    pub nodes: String,
    /// `Underutilized`, `Empty`, `Drifted`; none = all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasons: Option<Vec<String>>,
    /// Cron text (UTC) of when the rule starts to hold; comes with `duration`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// How long it holds from each hit of `schedule`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
}

/// Status of a [`NodePool`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodePoolStatus {
    /// Sum over the pool's nodes; always has cpu, memory, pods, ephemeral-storage, nodes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub resources: BTreeMap<String, RawQuantity>,
    /// Number of nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<i64>,
    /// Generation of the NodeClass that the registration health was last judged for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_class_observed_generation: Option<i64>,
    /// Conditions; see `api.md` of Karpenter v1.14 for the types.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Fields this build does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

crate::impl_kind!(
    NodePool,
    "karpenter.sh",
    "v1",
    "NodePool",
    "nodepools",
    ClusterResourceScope
);
