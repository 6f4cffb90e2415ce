//! Names of the EC2 provider: labels, annotations, tags, resources, and its part of the label registry.

use karpenter_model::LabelRegistry;

/// API group, and domain of the provider's labels.
pub const GROUP: &str = "karpenter.k8s.aws";

/// Defines constants and the list of them all, so that no well-known key is forgotten.
macro_rules! well_known {
    ($($(#[$doc:meta])* $name:ident = $value:expr;)*) => {
        $($(#[$doc])* pub const $name: &str = $value;)*
        /// Well-known keys of the provider.
        pub const WELL_KNOWN: &[&str] = &[$($value),*];
    };
}

well_known! {
    /// Capacity reservation of a reserved node.
    RESERVATION_ID = "karpenter.k8s.aws/capacity-reservation-id";
    /// `default` or `capacity-block`.
    RESERVATION_TYPE = "karpenter.k8s.aws/capacity-reservation-type";
    /// Whether the reservation may be taken back.
    RESERVATION_INTERRUPTIBLE = "karpenter.k8s.aws/capacity-reservation-interruptible";
    /// `nitro`, `xen`, or empty.
    HYPERVISOR = "karpenter.k8s.aws/instance-hypervisor";
    /// Whether traffic between instances is encrypted.
    ENCRYPTION_IN_TRANSIT = "karpenter.k8s.aws/instance-encryption-in-transit-supported";
    /// Letters before the generation, such as `m`.
    CATEGORY = "karpenter.k8s.aws/instance-category";
    /// Whether it is a flex type.
    CAPABILITY_FLEX = "karpenter.k8s.aws/instance-capability-flex";
    /// Part before the dot.
    FAMILY = "karpenter.k8s.aws/instance-family";
    /// Generation number.
    GENERATION = "karpenter.k8s.aws/instance-generation";
    /// Part after the dot.
    SIZE = "karpenter.k8s.aws/instance-size";
    /// NVMe storage in GB.
    LOCAL_NVME = "karpenter.k8s.aws/instance-local-nvme";
    /// Hardware threads.
    CPU = "karpenter.k8s.aws/instance-cpu";
    /// Processor manufacturer.
    CPU_MANUFACTURER = "karpenter.k8s.aws/instance-cpu-manufacturer";
    /// Clock in MHz.
    CPU_CLOCK = "karpenter.k8s.aws/instance-cpu-sustained-clock-speed-mhz";
    /// Memory in MiB.
    MEMORY = "karpenter.k8s.aws/instance-memory";
    /// EBS bandwidth in Mbps.
    EBS_BANDWIDTH = "karpenter.k8s.aws/instance-ebs-bandwidth";
    /// Network bandwidth in Mbps.
    NETWORK_BANDWIDTH = "karpenter.k8s.aws/instance-network-bandwidth";
    /// GPU model.
    GPU_NAME = "karpenter.k8s.aws/instance-gpu-name";
    /// GPU manufacturer.
    GPU_MANUFACTURER = "karpenter.k8s.aws/instance-gpu-manufacturer";
    /// Number of GPUs.
    GPU_COUNT = "karpenter.k8s.aws/instance-gpu-count";
    /// Memory of each GPU in MiB.
    GPU_MEMORY = "karpenter.k8s.aws/instance-gpu-memory";
    /// Accelerator model.
    ACCELERATOR_NAME = "karpenter.k8s.aws/instance-accelerator-name";
    /// Accelerator manufacturer.
    ACCELERATOR_MANUFACTURER = "karpenter.k8s.aws/instance-accelerator-manufacturer";
    /// Number of accelerators.
    ACCELERATOR_COUNT = "karpenter.k8s.aws/instance-accelerator-count";
    /// `default` or `dedicated`.
    TENANCY = "karpenter.k8s.aws/instance-tenancy";
    /// Placement group.
    PLACEMENT_GROUP_ID = "karpenter.k8s.aws/placement-group-id";
    /// Partition of a placement group.
    PLACEMENT_GROUP_PARTITION = "karpenter.k8s.aws/placement-group-partition";
    /// Account-independent zone id.
    ZONE_ID = "topology.k8s.aws/zone-id";
}

/// Label and tag that name the EC2NodeClass.
pub const NODE_CLASS: &str = "karpenter.k8s.aws/ec2nodeclass";
/// Finalizer on EC2NodeClasses.
pub const FINALIZER: &str = "karpenter.k8s.aws/termination";
/// Drift hash of the class, on class and claims.
pub const HASH: &str = "karpenter.k8s.aws/ec2nodeclass-hash";
/// Version of the algorithm behind [`HASH`].
pub const HASH_VERSION: &str = "karpenter.k8s.aws/ec2nodeclass-hash-version";
/// `true` on claims whose instance has its late tags.
pub const TAGGED: &str = "karpenter.k8s.aws/tagged";
/// `true` on claims whose instance has the cluster-name tag.
pub const CLUSTER_NAME_TAGGED: &str = "compatibility.karpenter.k8s.aws/cluster-name-tagged";
/// Instance profile a claim was launched with.
pub const INSTANCE_PROFILE_NAME: &str = "karpenter.k8s.aws/instance-profile-name";
/// Tag with the cluster name.
pub const CLUSTER_TAG: &str = "eks:eks-cluster-name";
/// Tag with the NodeClaim name.
pub const NODE_CLAIM_TAG: &str = "karpenter.sh/nodeclaim";
/// Zone label of the EBS CSI driver, an alias of the zone.
pub const EBS_ZONE: &str = "topology.ebs.csi.aws.com/zone";

/// Tag that marks resources as the cluster's.
#[must_use]
pub fn cluster_owned_tag(cluster: &str) -> String {
    format!("kubernetes.io/cluster/{cluster}")
}

/// Names of extended resources.
pub mod resources {
    /// NVIDIA GPUs.
    pub const NVIDIA_GPU: &str = "nvidia.com/gpu";
    /// AMD GPUs.
    pub const AMD_GPU: &str = "amd.com/gpu";
    /// Gaudi accelerators.
    pub const GAUDI: &str = "habana.ai/gaudi";
    /// Neuron devices.
    pub const NEURON: &str = "aws.amazon.com/neuron";
    /// Neuron cores.
    pub const NEURON_CORE: &str = "aws.amazon.com/neuroncore";
    /// Elastic fabric adapters.
    pub const EFA: &str = "vpc.amazonaws.com/efa";
    /// Branch network interfaces for pods.
    pub const POD_ENI: &str = "vpc.amazonaws.com/pod-eni";
}

/// The core's label keys and the provider's.
#[must_use]
pub fn registry() -> LabelRegistry {
    let mut registry = LabelRegistry::default();
    registry
        .well_known
        .extend(WELL_KNOWN.iter().map(|k| (*k).to_owned()));
    registry.restricted_domains.insert(GROUP.to_owned());
    registry
        .aliases
        .insert(EBS_ZONE.to_owned(), karpenter_api::labels::ZONE.to_owned());
    registry.known_values.insert(
        TENANCY.to_owned(),
        ["default", "dedicated"].map(str::to_owned).into(),
    );
    registry.reservation_id = Some(RESERVATION_ID.to_owned());
    registry.native_resources.extend(
        [
            resources::NEURON,
            resources::NEURON_CORE,
            resources::GAUDI,
            resources::EFA,
            resources::POD_ENI,
        ]
        .map(str::to_owned),
    );
    registry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_may_name_well_known_keys_of_the_domain_and_no_others() {
        let registry = registry();
        assert!(!registry.is_restricted(CPU));
        assert!(registry.is_restricted("karpenter.k8s.aws/colour"));
        assert!(registry.is_restricted("sub.karpenter.k8s.aws/colour"));
        assert_eq!(registry.normalize(EBS_ZONE), "topology.kubernetes.io/zone");
    }
}
