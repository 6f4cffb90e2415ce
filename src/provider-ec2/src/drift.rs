//! Whether a machine is still what its class asks for (`aws-provider.md` §22). The first reason found counts.

use std::collections::BTreeSet;
use std::sync::Arc;

use karpenter_api::NodeClaim;
use karpenter_api::labels::INSTANCE_TYPE;
use karpenter_cloud::CloudError;
use karpenter_ec2_api::Instance;
use karpenter_model::{InstanceType, LabelRegistry};

use crate::image::ImageMap;
use crate::labels::{HASH, HASH_VERSION};
use crate::nodeclass::NodeClass;

/// The class' static fields changed.
pub(crate) const NODE_CLASS: &str = "NodeClassDrift";
/// The class would use another image.
pub(crate) const AMI: &str = "AMIDrift";
/// The class would use other security groups.
pub(crate) const SECURITY_GROUP: &str = "SecurityGroupDrift";
/// The class would not use the machine's subnet.
pub(crate) const SUBNET: &str = "SubnetDrift";
/// The class would not use the machine's capacity reservation.
pub(crate) const CAPACITY_RESERVATION: &str = "CapacityReservationDrift";

/// Drift of the static fields: hashes of one version that differ.
pub(crate) fn of_class(class: &NodeClass, claim: &NodeClaim) -> Option<&'static str> {
    let of_class = class.metadata.annotations.as_ref()?;
    let of_claim = claim.metadata.annotations.as_ref()?;
    let same_version = of_class.get(HASH_VERSION)? == of_claim.get(HASH_VERSION)?;
    let differs = of_class.get(HASH)? != of_claim.get(HASH)?;
    (same_version && differs).then_some(NODE_CLASS)
}

/// Whether the class maps the claim's type to another image now.
///
/// # Errors
/// When the class has no images or the type is not known.
pub(crate) fn of_image(
    class: &NodeClass,
    claim: &NodeClaim,
    types: &[Arc<InstanceType>],
    labels: &LabelRegistry,
) -> Result<bool, CloudError> {
    let bad = |what: String| CloudError::Other(format!("deciding on drift: {what}"));
    if class.status.amis.is_empty() {
        return Err(bad("no images in the EC2NodeClass' status".to_owned()));
    }
    let name = claim
        .metadata
        .labels
        .as_ref()
        .and_then(|l| l.get(INSTANCE_TYPE))
        .ok_or_else(|| bad(format!("no label {INSTANCE_TYPE}")))?;
    let held = types
        .iter()
        .find(|t| *t.name == **name)
        .ok_or_else(|| bad(format!("instance type {name} is not known")))?;
    let images = ImageMap::new(&class.status.amis, labels);
    Ok(images
        .of(held)
        .is_none_or(|ami| ami.id != claim.status.image_id))
}

/// Drift of what the instance is attached to; `reserved` is the reservation that it runs in.
///
/// # Errors
/// When the class' status has no subnets or security groups to compare with.
pub(crate) fn of_instance(
    class: &NodeClass,
    instance: &Instance,
    reserved: Option<&str>,
) -> Result<Option<&'static str>, CloudError> {
    let status = &class.status;
    if status.security_groups.is_empty() || status.subnets.is_empty() {
        return Err(CloudError::Other(
            "deciding on drift: no subnets or security groups in the EC2NodeClass' status"
                .to_owned(),
        ));
    }
    let wanted: BTreeSet<&str> = status
        .security_groups
        .iter()
        .map(|g| g.id.as_str())
        .collect();
    let has: BTreeSet<&str> = instance
        .security_group_ids
        .iter()
        .map(String::as_str)
        .collect();
    if wanted != has {
        return Ok(Some(SECURITY_GROUP));
    }
    let subnet_ok = status.subnets.iter().any(|s| s.id == instance.subnet_id);
    if !subnet_ok {
        return Ok(Some(SUBNET));
    }
    let selected = |id: &str| status.capacity_reservations.iter().any(|r| r.id == id);
    let stray = reserved.is_some_and(|id| !selected(id));
    Ok(stray.then_some(CAPACITY_RESERVATION))
}
