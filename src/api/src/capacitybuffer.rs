//! CapacityBuffer (`autoscaling.x-k8s.io/v1beta1`): room that is kept free for pods to come, in chunks that look like
//! a pod.

use std::collections::BTreeMap;

use kube::core::NamespaceResourceScope;
use serde::{Deserialize, Serialize};

use crate::Quantity;
use crate::kinds::{Condition, ObjectMeta, RawQuantity, Rest, TypeInfo};

/// `provisioningStrategy` of a buffer that names none.
pub const ACTIVE_CAPACITY: &str = "buffer.x-k8s.io/active-capacity";

/// Chunks of free room.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CapacityBuffer {
    /// `apiVersion` and `kind`.
    #[serde(flatten)]
    pub types: TypeInfo,
    /// Standard metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is wanted.
    #[serde(default)]
    pub spec: CapacityBufferSpec,
    /// What is.
    #[serde(default)]
    pub status: CapacityBufferStatus,
}

/// Spec of a [`CapacityBuffer`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CapacityBufferSpec {
    /// PodTemplate of the same namespace that a chunk looks like; not beside `scalable_ref`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template_ref: Option<LocalRef>,
    /// Workload whose pods a chunk looks like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scalable_ref: Option<ScalableRef>,
    /// Number of chunks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Chunks in percent of the workload's replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percentage: Option<i32>,
    /// Most that all chunks may add up to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, RawQuantity>,
    /// How room is made; none = [`ACTIVE_CAPACITY`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provisioning_strategy: Option<String>,
    /// Fields this build does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

/// An object of the buffer's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalRef {
    /// Name.
    #[serde(default)]
    pub name: String,
}

/// A workload of the buffer's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScalableRef {
    /// `apps`, or empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub api_group: String,
    /// `Deployment`, `StatefulSet` or `ReplicaSet`.
    #[serde(default)]
    pub kind: String,
    /// Name.
    #[serde(default)]
    pub name: String,
}

/// Status of a [`CapacityBuffer`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CapacityBufferStatus {
    /// PodTemplate that chunks look like now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template_ref: Option<LocalRef>,
    /// Generation of that PodTemplate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template_generation: Option<i64>,
    /// Number of chunks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// How room is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provisioning_strategy: Option<String>,
    /// Conditions; see [`crate::condition::capacity_buffer`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Fields this build does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

crate::impl_kind!(
    CapacityBuffer,
    "autoscaling.x-k8s.io",
    "v1beta1",
    "CapacityBuffer",
    "capacitybuffers",
    NamespaceResourceScope
);

impl CapacityBufferSpec {
    /// How many chunks there are to be, where one requests `chunk` and the workload, if there is one, has
    /// `scalable_replicas`: the greater of `replicas` and `percentage` (rounded up), as far as `limits` let; with
    /// neither, what the limits let. Limits that no chunk requests anything of do not bind; one that cannot be read
    /// lets no chunk in.
    #[must_use]
    pub fn chunks(&self, chunk: &BTreeMap<String, Quantity>, scalable_replicas: i32) -> i64 {
        let share = self.percentage.map(|percent| {
            let product = i64::from(percent).saturating_mul(scalable_replicas.max(0).into());
            product.saturating_add(99) / 100
        });
        let desired = match (self.replicas.map(i64::from), share) {
            (None, None) => None,
            (a, b) => Some(a.max(b).unwrap_or_default().max(0)),
        };
        let fitting = self
            .limits
            .iter()
            .filter_map(|(name, limit)| {
                let each = chunk.get(name).filter(|q| **q > Quantity::ZERO)?;
                let limit = Quantity::try_from(limit).unwrap_or_default();
                let times = limit.max(Quantity::ZERO).nanos() / each.nanos();
                Some(i64::try_from(times).unwrap_or(i64::MAX))
            })
            .min();
        match (desired, fitting) {
            (Some(desired), Some(fitting)) => desired.min(fitting),
            (Some(desired), None) => desired,
            (None, fitting) => fitting.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    #[rstest]
    #[case::replicas(json!({ "replicas": 3 }), 10, 3)]
    #[case::none_wanted(json!({ "replicas": 0 }), 10, 0)]
    #[case::share_of_few(json!({ "percentage": 1 }), 3, 1)]
    #[case::share_rounds_up(json!({ "percentage": 15 }), 10, 2)]
    #[case::the_greater(json!({ "replicas": 3, "percentage": 50 }), 10, 5)]
    #[case::share_of_none(json!({ "percentage": 50 }), 0, 0)]
    #[case::limited(json!({ "replicas": 9, "limits": { "cpu": "5", "memory": "1Ti" } }), 0, 2)]
    #[case::limits_alone(json!({ "limits": { "cpu": "8" } }), 0, 4)]
    #[case::limits_of_others(json!({ "replicas": 9, "limits": { "gpu": "1" } }), 0, 9)]
    #[case::no_room(json!({ "replicas": 9, "limits": { "cpu": "1" } }), 0, 0)]
    #[case::unreadable(json!({ "replicas": 9, "limits": { "cpu": "much" } }), 0, 0)]
    #[case::nothing(json!({}), 10, 0)]
    fn chunk_counts(#[case] spec: Value, #[case] replicas: i32, #[case] expected: i64) {
        let spec: CapacityBufferSpec = serde_json::from_value(spec).unwrap();
        let chunk = [
            ("cpu".to_owned(), Quantity::from_units(2)),
            ("memory".to_owned(), Quantity::from_units(1 << 30)),
        ];
        assert_eq!(spec.chunks(&chunk.into(), replicas), expected);
    }

    #[test]
    fn nothing_is_lost() {
        let object = json!({
            "apiVersion": "autoscaling.x-k8s.io/v1beta1", "kind": "CapacityBuffer",
            "metadata": { "name": "a", "namespace": "b" },
            "spec": {
                "scalableRef": { "apiGroup": "apps", "kind": "Deployment", "name": "web" }, "percentage": 10,
                "limits": { "cpu": "5" }, "provisioningStrategy": ACTIVE_CAPACITY, "later": 1,
            },
            "status": { "podTemplateRef": { "name": "t" }, "podTemplateGeneration": 2, "replicas": 3, "later": {} },
        });
        let buffer: CapacityBuffer = serde_json::from_value(object.clone()).unwrap();
        assert_eq!(serde_json::to_value(buffer).unwrap(), object);
    }
}
