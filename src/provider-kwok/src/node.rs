//! The Node that a claim becomes: a pure function of claim, instance type and offering.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus, Taint};
use karpenter_api::NodeClaim;
use karpenter_api::kinds::ObjectMeta;
use karpenter_api::labels as names;
use karpenter_cloud::Launched;
use karpenter_model::{InstanceType, LabelRegistry, Offering, Requirements};

/// Prefix of our provider ids.
pub const PROVIDER_ID_PREFIX: &str = "kwok://";
/// Label and annotation by which the KWOK controller adopts a node.
pub const KWOK_NODE: &str = "kwok.x-k8s.io/node";
/// Label that eks-node-viewer reads prices from.
const PRICE_LABEL: &str = "eks-node-viewer/instance-price";
/// Label that upstream's KWOK setup partitions nodes by.
const PARTITION_LABEL: &str = "kwok-partition";

/// The name of the node of a claim. It follows from the claim's UID, so that a launch that is repeated after a crash
/// finds what the first one made.
#[must_use]
pub fn node_name(claim: &NodeClaim) -> String {
    let uid = claim.metadata.uid.as_deref().unwrap_or_default();
    // FNV-1a: short, stable over versions and machines.
    let hash = uid.bytes().fold(0x811c_9dc5_u32, |h, b| {
        (h ^ u32::from(b)).wrapping_mul(0x0100_0193)
    });
    format!(
        "kwok-{}-{hash}",
        claim.metadata.name.as_deref().unwrap_or_default()
    )
}

/// What a launch of `offering` gives a claim.
#[must_use]
pub fn launched(
    claim: &NodeClaim,
    wanted: &Requirements,
    instance_type: &InstanceType,
    offering: &Offering,
    labels: &LabelRegistry,
) -> Launched {
    let name = node_name(claim);
    let mut node_labels: BTreeMap<String, String> = BTreeMap::new();
    let of_type = instance_type.requirements_as(offering);
    for set in [wanted, &of_type, &offering.requirements] {
        for requirement in set.iter() {
            if let Some(value) = requirement
                .single()
                .filter(|_| requirement.gte.is_none() && requirement.lte.is_none())
            {
                node_labels.insert(
                    labels.normalize(&requirement.key).to_owned(),
                    value.to_string(),
                );
            }
        }
    }
    node_labels.extend(claim.metadata.labels.clone().unwrap_or_default());
    node_labels.insert(
        names::INSTANCE_TYPE.to_owned(),
        instance_type.name.to_string(),
    );
    node_labels.insert(PRICE_LABEL.to_owned(), format!("{:.6}", offering.price));
    node_labels.insert(PARTITION_LABEL.to_owned(), "a".to_owned());
    node_labels.insert(
        names::HOSTNAME.to_owned(),
        claim.metadata.name.clone().unwrap_or_default(),
    );
    node_labels.insert(KWOK_NODE.to_owned(), "fake".to_owned());
    let mut annotations = claim.metadata.annotations.clone().unwrap_or_default();
    annotations.insert(KWOK_NODE.to_owned(), "fake".to_owned());
    Launched {
        provider_id: format!("{PROVIDER_ID_PREFIX}{name}"),
        image_id: String::new(),
        labels: node_labels,
        annotations,
        capacity: instance_type.capacity.clone(),
        allocatable: instance_type.allocatable.clone(),
    }
}

/// The Node object of a launch, as a kubelet would register it.
#[must_use]
pub fn node(launched: &Launched) -> Node {
    Node {
        metadata: ObjectMeta {
            name: launched
                .provider_id
                .strip_prefix(PROVIDER_ID_PREFIX)
                .map(str::to_owned),
            labels: Some(launched.labels.clone()),
            annotations: Some(launched.annotations.clone()),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            provider_id: Some(launched.provider_id.clone()),
            taints: Some(vec![Taint {
                key: names::UNREGISTERED_TAINT.to_owned(),
                effect: "NoExecute".to_owned(),
                ..Taint::default()
            }]),
            ..NodeSpec::default()
        }),
        status: Some(NodeStatus {
            capacity: Some(launched.capacity.to_raw()),
            allocatable: Some(launched.allocatable.to_raw()),
            phase: Some("Pending".to_owned()),
            ..NodeStatus::default()
        }),
    }
}
