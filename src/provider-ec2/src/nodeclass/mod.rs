//! EC2NodeClass: its types, its CustomResourceDefinition, its conditions and its drift hash.

mod hash;
mod kubelet_schema;
mod schema;
mod types;
mod written;

use karpenter_api::condition::{ConditionSet, READY};
use karpenter_api::crd::LabelDomain;

pub use hash::{HASH_VERSION_VALUE, drift_hash};
pub use schema::crd;
pub use types::*;
pub use written::Written;

use crate::labels;

/// Condition types and reasons of an EC2NodeClass.
pub mod condition {
    pub use karpenter_api::condition::node_pool::VALIDATION_SUCCEEDED;

    /// Images were found.
    pub const AMIS_READY: &str = "AMIsReady";
    /// Subnets were found.
    pub const SUBNETS_READY: &str = "SubnetsReady";
    /// Security groups were found.
    pub const SECURITY_GROUPS_READY: &str = "SecurityGroupsReady";
    /// The instance profile is there.
    pub const INSTANCE_PROFILE_READY: &str = "InstanceProfileReady";
    /// The placement group, if one is wanted, was found.
    pub const PLACEMENT_GROUP_READY: &str = "PlacementGroupReady";
    /// Capacity reservations were looked for.
    pub const CAPACITY_RESERVATIONS_READY: &str = "CapacityReservationsReady";

    /// Reasons.
    pub mod reason {
        /// The alias has no images for the cluster's Kubernetes.
        pub const UNSUPPORTED_ALIAS: &str = "UnsupportedAlias";
        /// No image matches.
        pub const AMI_NOT_FOUND: &str = "AMINotFound";
        /// No subnet matches.
        pub const SUBNETS_NOT_FOUND: &str = "SubnetsNotFound";
        /// No security group matches.
        pub const SECURITY_GROUPS_NOT_FOUND: &str = "SecurityGroupsNotFound";
        /// Looking for the placement group failed.
        pub const PLACEMENT_GROUP_RESOLUTION_FAILED: &str = "PlacementGroupResolutionFailed";
        /// No placement group matches.
        pub const PLACEMENT_GROUP_NOT_FOUND: &str = "PlacementGroupNotFound";
        /// The cluster's service CIDR is not known.
        pub const CLUSTER_CIDR_RESOLUTION_FAILED: &str = "ClusterCIDRResolutionFailed";
        /// Other conditions come first.
        pub const DEPENDENCIES_NOT_READY: &str = "DependenciesNotReady";
        /// A tag is Karpenter's own.
        pub const TAG_VALIDATION_FAILED: &str = "TagValidationFailed";
        /// Not allowed to create launch templates.
        pub const CREATE_LAUNCH_TEMPLATE_AUTH_CHECK_FAILED: &str =
            "CreateLaunchTemplateAuthCheckFailed";
        /// User data is longer than EC2 takes.
        pub const USER_DATA_SIZE_LIMIT_EXCEEDED: &str = "UserDataSizeLimitExceeded";
        /// Not allowed to create fleets.
        pub const CREATE_FLEET_AUTH_CHECK_FAILED: &str = "CreateFleetAuthCheckFailed";
        /// Not allowed to run instances.
        pub const RUN_INSTANCES_AUTH_CHECK_FAILED: &str = "RunInstancesAuthCheckFailed";
    }
}

/// Conditions of an EC2NodeClass; reservations count only where the feature is on.
#[must_use]
pub const fn conditions(reserved_capacity: bool) -> ConditionSet {
    const ALL: [&str; 7] = [
        condition::AMIS_READY,
        condition::SUBNETS_READY,
        condition::SECURITY_GROUPS_READY,
        condition::INSTANCE_PROFILE_READY,
        condition::PLACEMENT_GROUP_READY,
        condition::VALIDATION_SUCCEEDED,
        condition::CAPACITY_RESERVATIONS_READY,
    ];
    const WITHOUT_RESERVATIONS: &[&str] = ALL.split_at(6).0;
    ConditionSet {
        root: READY,
        dependents: if reserved_capacity {
            &ALL
        } else {
            WITHOUT_RESERVATIONS
        },
    }
}

/// The label domain that users of the provider may set only some keys of; for [`karpenter_api::crd::core`].
#[must_use]
pub fn label_domain() -> LabelDomain {
    let keys = |not: &[&str]| -> Vec<String> {
        ALLOWED_KEYS
            .iter()
            .filter(|key| !not.contains(key))
            .map(|key| format!("{}/{key}", labels::GROUP))
            .collect()
    };
    LabelDomain {
        domain: labels::GROUP.to_owned(),
        requirement_keys: keys(&[]),
        label_keys: keys(&[]),
        overlay_keys: keys(&NOT_IN_OVERLAYS),
    }
}

/// Keys of the group that may be named, without the group.
const ALLOWED_KEYS: [&str; 28] = [
    "capacity-reservation-id",
    "capacity-reservation-interruptible",
    "capacity-reservation-type",
    "ec2nodeclass",
    "instance-accelerator-count",
    "instance-accelerator-manufacturer",
    "instance-accelerator-name",
    "instance-capability-flex",
    "instance-category",
    "instance-cpu",
    "instance-cpu-manufacturer",
    "instance-cpu-sustained-clock-speed-mhz",
    "instance-ebs-bandwidth",
    "instance-encryption-in-transit-supported",
    "instance-family",
    "instance-generation",
    "instance-gpu-count",
    "instance-gpu-manufacturer",
    "instance-gpu-memory",
    "instance-gpu-name",
    "instance-hypervisor",
    "instance-local-nvme",
    "instance-memory",
    "instance-network-bandwidth",
    "instance-size",
    "instance-tenancy",
    "placement-group-id",
    "placement-group-partition",
];
/// Those of them that overlays may not name: they are no facts of an instance type.
const NOT_IN_OVERLAYS: [&str; 6] = [
    "capacity-reservation-id",
    "capacity-reservation-interruptible",
    "capacity-reservation-type",
    "instance-tenancy",
    "placement-group-id",
    "placement-group-partition",
];

#[cfg(test)]
mod tests;
