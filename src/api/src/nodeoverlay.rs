//! NodeOverlay (`karpenter.sh/v1alpha1`): changes price or extended resources of instance types in the eyes of
//! scheduling. The machine itself stays what it is.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use kube::core::ClusterResourceScope;
use serde::{Deserialize, Serialize};

use crate::kinds::{Condition, ObjectMeta, RawQuantity, RequirementSpec, Rest, TypeInfo};

/// A change to the instance types and offerings that match its requirements.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeOverlay {
    /// `apiVersion` and `kind`.
    #[serde(flatten)]
    pub types: TypeInfo,
    /// Standard metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is changed.
    #[serde(default)]
    pub spec: NodeOverlaySpec,
    /// Whether it is.
    #[serde(default)]
    pub status: NodeOverlayStatus,
}

/// Spec of a [`NodeOverlay`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeOverlaySpec {
    /// Which instance types and offerings; without `minValues`.
    #[serde(default)]
    pub requirements: Vec<RequirementSpec>,
    /// Price an hour that replaces the provider's; not beside `price_adjustment`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<String>,
    /// Signed amount (`+0.01`) or percentage (`-10%`) that changes the provider's price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_adjustment: Option<String>,
    /// Extended resources that the types have besides.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub capacity: BTreeMap<String, RawQuantity>,
    /// Higher wins (1..=10000, none = 0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<i32>,
    /// Fields this build does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

/// Status of a [`NodeOverlay`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeOverlayStatus {
    /// Conditions; see [`crate::condition::NODE_OVERLAY`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Fields this build does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

crate::impl_kind!(
    NodeOverlay,
    "karpenter.sh",
    "v1alpha1",
    "NodeOverlay",
    "nodeoverlays",
    ClusterResourceScope
);

impl NodeOverlay {
    /// The order in which overlays are applied: heavier first, and of one weight the later in the alphabet first.
    #[must_use]
    pub fn precedence(&self, other: &Self) -> Ordering {
        let key = |o: &Self| (o.spec.weight.unwrap_or_default(), o.metadata.name.clone());
        key(other).cmp(&key(self))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn overlay(name: &str, weight: Option<i32>) -> NodeOverlay {
        let spec = json!({ "requirements": [], "weight": weight });
        serde_json::from_value(json!({ "metadata": { "name": name }, "spec": spec })).unwrap()
    }

    #[test]
    fn heavier_first_then_later_in_the_alphabet() {
        let mut all = [
            overlay("a", None),
            overlay("b", Some(5)),
            overlay("c", Some(5)),
            overlay("d", None),
        ];
        all.sort_by(NodeOverlay::precedence);
        let names = all.map(|o| o.metadata.name.unwrap());
        assert_eq!(names, ["c", "b", "d", "a"]);
    }

    #[test]
    fn nothing_is_lost() {
        let object = json!({
            "apiVersion": "karpenter.sh/v1alpha1", "kind": "NodeOverlay", "metadata": { "name": "a" },
            "spec": {
                "requirements": [{ "key": "k", "operator": "Exists" }], "priceAdjustment": "-10%",
                "capacity": { "smarter-devices/fuse": "1" }, "weight": 1, "later": [1],
            },
            "status": { "later": true },
        });
        let overlay: NodeOverlay = serde_json::from_value(object.clone()).unwrap();
        assert_eq!(serde_json::to_value(overlay).unwrap(), object);
    }
}
