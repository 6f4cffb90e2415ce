//! Drift hashes, bit for bit those of Karpenter v1.14, so that a cluster which changes over does not replace every
//! node.
//!
//! The algorithm is `mitchellh/hashstructure` v2 with 64-bit FNV-1, sets for slices, and Go's zero values skipped.
//! What Go sees is written down field by field: names of types and fields are part of the hash, and so is their order.

use std::collections::BTreeMap;

use crate::kinds::{NodeClassRef, Taint, Time};
use crate::nodepool::{NodeClaimTemplateSpec, NodePool};
use crate::{duration, labels};

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// FNV-1 of bytes.
#[must_use]
pub fn bytes(data: &[u8]) -> u64 {
    data.iter()
        .fold(OFFSET, |h, b| h.wrapping_mul(PRIME) ^ u64::from(*b))
}

/// Hash of a string.
#[must_use]
pub fn string(text: &str) -> u64 {
    bytes(text.as_bytes())
}

/// Hash of a truth value.
#[must_use]
pub fn boolean(value: bool) -> u64 {
    bytes(&[u8::from(value)])
}

/// Hash of an `int64`, `int` or duration in nanoseconds.
#[must_use]
pub fn int64(value: i64) -> u64 {
    bytes(&value.to_le_bytes())
}

/// Hash of an `int32`.
#[must_use]
pub fn int32(value: i32) -> u64 {
    bytes(&value.to_le_bytes())
}

/// Hash of a set: what Go keeps as a slice.
#[must_use]
pub fn set(elements: impl IntoIterator<Item = u64>) -> u64 {
    elements.into_iter().fold(0, |h, e| h ^ e)
}

/// Hash of a map, from the hashes of its keys and values.
#[must_use]
pub fn map(entries: impl IntoIterator<Item = (u64, u64)>) -> u64 {
    finish(set(entries.into_iter().map(|(k, v)| pair(k, v))))
}

/// Hash of a map of strings.
#[must_use]
pub fn strings(entries: &BTreeMap<String, String>) -> u64 {
    map(entries.iter().map(|(k, v)| (string(k), string(v))))
}

fn pair(a: u64, b: u64) -> u64 {
    let mut both = [0; 16];
    let (left, right) = both.split_at_mut(8);
    left.copy_from_slice(&a.to_le_bytes());
    right.copy_from_slice(&b.to_le_bytes());
    bytes(&both)
}

fn finish(hash: u64) -> u64 {
    bytes(&hash.to_le_bytes())
}

/// Hash of a Go struct under way. Fields go in in the order of Go's declaration.
#[derive(Clone, Copy, Debug)]
pub struct Struct {
    hash: u64,
    is_zero: bool,
}

impl Struct {
    /// Begins with the name of the Go type.
    #[must_use]
    pub fn new(type_name: &str) -> Self {
        Self {
            hash: string(type_name),
            is_zero: true,
        }
    }

    /// Adds a field; none = Go's zero value, which is skipped.
    #[must_use]
    pub fn field(self, name: &str, value: Option<u64>) -> Self {
        match value {
            Some(value) => Self {
                hash: finish(self.hash ^ pair(string(name), value)),
                is_zero: false,
            },
            None => self,
        }
    }

    /// The hash, where Go has a pointer to the struct.
    #[must_use]
    pub fn pointer(self) -> u64 {
        self.hash
    }

    /// The hash, where Go has the struct itself: a field that is skipped if all of its fields are.
    #[must_use]
    pub fn value(self) -> Option<u64> {
        (!self.is_zero).then_some(self.hash)
    }
}

/// Hash of a field that Go has as a string: the empty one is skipped.
#[must_use]
pub fn string_field(text: &str) -> Option<u64> {
    (!text.is_empty()).then(|| string(text))
}

/// Hash of a Go `time.Duration` wrapped in a struct called `Duration`, as the API has durations; none for a text that
/// is no duration, which the API does not let in.
#[must_use]
pub fn duration(text: &str) -> Option<u64> {
    let nanos = nanos(text)?;
    let field = (nanos != 0).then(|| int64(nanos));
    Some(Struct::new("Duration").field("Duration", field).pointer())
}

fn nanos(text: &str) -> Option<i64> {
    i64::try_from(duration::parse(text).ok()?.as_nanos()).ok()
}

/// The value of annotation [`labels::NODEPOOL_HASH`], version [`labels::NODEPOOL_HASH_VERSION_VALUE`]: what machines
/// of the pool cannot be changed in. Requirements, disruption, limits and weight are not in it.
#[must_use]
pub fn node_pool(pool: &NodePool) -> String {
    let template = &pool.spec.template;
    let meta = Struct::new("ObjectMeta")
        .field("Labels", template.metadata.labels.as_ref().map(strings))
        .field(
            "Annotations",
            template.metadata.annotations.as_ref().map(strings),
        );
    let hash = Struct::new("NodeClaimTemplate")
        .field("ObjectMeta", meta.value())
        .field("Spec", template_spec(&template.spec).value());
    hash.pointer().to_string()
}

/// Annotations that a NodePool and its claims carry for drift.
#[must_use]
pub fn node_pool_annotations(pool: &NodePool) -> [(&'static str, String); 2] {
    [
        (labels::NODEPOOL_HASH, node_pool(pool)),
        (
            labels::NODEPOOL_HASH_VERSION,
            labels::NODEPOOL_HASH_VERSION_VALUE.to_owned(),
        ),
    ]
}

fn template_spec(spec: &NodeClaimTemplateSpec) -> Struct {
    let expire_after = spec.expire_after.as_deref().and_then(nanos);
    let expire_after = Struct::new("NillableDuration").field("Duration", expire_after.map(int64));
    let list = |list: &[Taint], given: bool| {
        (given || !list.is_empty()).then(|| set(list.iter().map(taint)))
    };
    Struct::new("NodeClaimTemplateSpec")
        .field("Taints", list(&spec.taints, spec.given.taints))
        .field(
            "StartupTaints",
            list(&spec.startup_taints, spec.given.startup_taints),
        )
        .field("NodeClassRef", Some(class_ref(&spec.node_class_ref)))
        .field(
            "TerminationGracePeriod",
            spec.termination_grace_period.as_deref().and_then(duration),
        )
        .field("ExpireAfter", expire_after.value())
}

fn class_ref(class: &NodeClassRef) -> u64 {
    Struct::new("NodeClassReference")
        .field("Kind", string_field(&class.kind))
        .field("Name", string_field(&class.name))
        .field("Group", string_field(&class.group))
        .pointer()
}

fn taint(taint: &Taint) -> u64 {
    Struct::new("Taint")
        .field("Key", string_field(&taint.key))
        .field("Value", taint.value.as_deref().and_then(string_field))
        .field("Effect", string_field(&taint.effect))
        .field("TimeAdded", taint.time_added.as_ref().map(time))
        .pointer()
}

/// Hash of a `metav1.Time`: over Go's binary form of a time in a zone without offset.
fn time(time: &Time) -> u64 {
    const VERSION: u8 = 1;
    /// From year 1 to 1970.
    const UNIX_TO_GO_SECONDS: i64 = 62_135_596_800;
    let seconds = time.0.as_second().saturating_add(UNIX_TO_GO_SECONDS);
    let mut binary = vec![VERSION];
    binary.extend(seconds.to_be_bytes());
    binary.extend(time.0.subsec_nanosecond().to_be_bytes());
    binary.extend(0_i16.to_be_bytes());
    Struct::new("Time")
        .field("Time", Some(bytes(&binary)))
        .pointer()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn pool(template: Value) -> NodePool {
        serde_json::from_value(json!({ "spec": { "template": template } })).unwrap()
    }

    fn hash(template: Value) -> String {
        node_pool(&pool(template))
    }

    fn class() -> Value {
        json!({ "group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default" })
    }

    fn base() -> Value {
        json!({ "spec": { "nodeClassRef": class(), "requirements": [], "expireAfter": "720h" } })
    }

    fn full() -> Value {
        json!({
            "metadata": { "labels": { "team": "a" } },
            "spec": {
                "nodeClassRef": class(),
                "requirements": [],
                "taints": [{ "key": "example.com/special", "value": "true", "effect": "NoSchedule" }],
                "terminationGracePeriod": "48h",
                "expireAfter": "Never",
            },
        })
    }

    #[test]
    fn vectors() {
        assert_eq!(hash(base()), "6821555240594823858");
        assert_eq!(hash(full()), "3080246250251466235");
    }

    #[test]
    fn annotations_carry_the_version() {
        let annotations = node_pool_annotations(&pool(base()));
        assert_eq!(annotations[0].1, "6821555240594823858");
        assert_eq!(
            annotations[1],
            ("karpenter.sh/nodepool-hash-version", "v3".to_owned())
        );
    }

    #[rstest]
    #[case("/spec/requirements", json!([{ "key": "a", "operator": "Exists" }]), false)]
    #[case("/spec/expireAfter", json!("43200m"), false)]
    #[case("/spec/expireAfter", json!("721h"), true)]
    #[case("/spec/nodeClassRef/name", json!("other"), true)]
    #[case("/metadata", json!({}), false)]
    #[case("/metadata", json!({ "labels": { "a": "b" } }), true)]
    #[case("/metadata", json!({ "annotations": { "a": "b" } }), true)]
    #[case("/metadata", json!({ "labels": {} }), true)]
    #[case("/spec/taints", json!([]), true)]
    #[case("/spec/startupTaints", json!([]), true)]
    #[case("/spec/taints", Value::Null, false)]
    #[case("/spec/terminationGracePeriod", json!("0s"), true)]
    fn what_counts(#[case] at: &str, #[case] value: Value, #[case] changes: bool) {
        let mut template = base();
        let (parent, field) = at.rsplit_once('/').unwrap();
        template.pointer_mut(parent).unwrap()[field] = value;
        assert_eq!(hash(template) != hash(base()), changes);
    }

    #[test]
    fn order_of_taints_does_not_count() {
        let taints = |list: Value| {
            let mut template = base();
            template["spec"]["taints"] = list;
            hash(template)
        };
        let (a, b) = (
            json!({ "key": "a", "effect": "NoSchedule" }),
            json!({ "key": "b", "effect": "NoExecute" }),
        );
        assert_eq!(taints(json!([a, b])), taints(json!([b, a])));
        assert_ne!(taints(json!([a])), taints(json!([b])));
        let added =
            json!({ "key": "a", "effect": "NoSchedule", "timeAdded": "2024-01-01T00:00:00Z" });
        assert_ne!(taints(json!([a])), taints(json!([added])));
    }
}
