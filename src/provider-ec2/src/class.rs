//! EC2NodeClass (`karpenter.k8s.aws/v1`): the fields that EC2 logic reads. Fields it does not read are kept as they
//! came, so that nothing is lost where an object is written back.

use std::collections::BTreeMap;

use karpenter_api::kinds::{Condition, ObjectMeta, RequirementSpec, Rest, TypeInfo};
use kube::core::ClusterResourceScope;
use serde::{Deserialize, Serialize};

/// How a pool's machines are launched.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeClass {
    /// `apiVersion` and `kind`.
    #[serde(flatten)]
    pub types: TypeInfo,
    /// Standard metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is wanted.
    #[serde(default)]
    pub spec: NodeClassSpec,
    /// What was found.
    #[serde(default)]
    pub status: NodeClassStatus,
}

karpenter_api::impl_kind!(
    NodeClass,
    "karpenter.k8s.aws",
    "v1",
    "EC2NodeClass",
    "ec2nodeclasses",
    ClusterResourceScope
);

/// Spec of a [`NodeClass`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeClassSpec {
    /// Which subnets.
    pub subnet_selector_terms: Vec<SelectorTerm>,
    /// Which security groups.
    pub security_group_selector_terms: Vec<SelectorTerm>,
    /// Which images.
    pub ami_selector_terms: Vec<AmiTerm>,
    /// Family, if not the alias'.
    pub ami_family: Option<String>,
    /// User data to add.
    pub user_data: Option<String>,
    /// Role to make an instance profile for.
    pub role: Option<String>,
    /// Instance profile to use.
    pub instance_profile: Option<String>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Kubelet settings.
    pub kubelet: Option<Kubelet>,
    /// Volumes.
    pub block_device_mappings: Vec<BlockDeviceMapping>,
    /// `RAID0`.
    pub instance_store_policy: Option<String>,
    /// Network interfaces.
    pub network_interfaces: Vec<NetworkInterface>,
    /// Detailed monitoring.
    pub detailed_monitoring: Option<bool>,
    /// Public address.
    #[serde(rename = "associatePublicIPAddress")]
    pub associate_public_ip_address: Option<bool>,
    /// IPv4 prefixes.
    pub ip_prefix_count: Option<i32>,
    /// Metadata service.
    pub metadata_options: Option<MetadataOptions>,
    /// Connection tracking.
    pub connection_tracking: Option<ConnectionTracking>,
    /// Fleet context.
    pub context: Option<String>,
    /// CPU options.
    pub cpu_options: Option<CpuOptions>,
    /// Placement group.
    pub placement_group_selector: Option<PlacementGroupSelector>,
    /// Other fields.
    #[serde(flatten)]
    pub rest: Rest,
}

/// A subnet or security group selector term.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SelectorTerm {
    /// Tags, `*` = any value.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Id.
    pub id: Option<String>,
    /// Group name.
    pub name: Option<String>,
}

/// An image selector term.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AmiTerm {
    /// `family@version`.
    pub alias: Option<String>,
    /// Tags.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Id.
    pub id: Option<String>,
    /// Name.
    pub name: Option<String>,
    /// Owner.
    pub owner: Option<String>,
    /// SSM parameter.
    pub ssm_parameter: Option<String>,
}

/// Kubelet settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Kubelet {
    /// DNS servers.
    #[serde(rename = "clusterDNS", skip_serializing_if = "Vec::is_empty")]
    pub cluster_dns: Vec<String>,
    /// Most pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_pods: Option<i32>,
    /// Pods per core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods_per_core: Option<i32>,
    /// For the system.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub system_reserved: BTreeMap<String, String>,
    /// For the kubelet.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub kube_reserved: BTreeMap<String, String>,
    /// Eviction thresholds.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub eviction_hard: BTreeMap<String, String>,
    /// Soft eviction thresholds.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub eviction_soft: BTreeMap<String, String>,
    /// Grace of soft eviction.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub eviction_soft_grace_period: BTreeMap<String, String>,
    /// Most pod grace in soft eviction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eviction_max_pod_grace_period: Option<i32>,
    /// Image collection starts here.
    #[serde(
        rename = "imageGCHighThresholdPercent",
        skip_serializing_if = "Option::is_none"
    )]
    pub image_gc_high_threshold_percent: Option<i32>,
    /// Image collection stops here.
    #[serde(
        rename = "imageGCLowThresholdPercent",
        skip_serializing_if = "Option::is_none"
    )]
    pub image_gc_low_threshold_percent: Option<i32>,
    /// CPU quota.
    #[serde(rename = "cpuCFSQuota", skip_serializing_if = "Option::is_none")]
    pub cpu_cfs_quota: Option<bool>,
}

/// A volume.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BlockDeviceMapping {
    /// Device.
    pub device_name: Option<String>,
    /// Whether pods' storage is on it.
    pub root_volume: bool,
    /// EBS volume.
    pub ebs: Option<Ebs>,
}

/// An EBS volume.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ebs {
    /// Goes with the machine.
    pub delete_on_termination: Option<bool>,
    /// Encrypted.
    pub encrypted: Option<bool>,
    /// IOPS.
    pub iops: Option<i64>,
    /// Key.
    #[serde(rename = "kmsKeyID")]
    pub kms_key_id: Option<String>,
    /// Snapshot.
    #[serde(rename = "snapshotID")]
    pub snapshot_id: Option<String>,
    /// MiB/s.
    pub throughput: Option<i64>,
    /// MiB/s of initialization.
    pub volume_initialization_rate: Option<i32>,
    /// Size.
    pub volume_size: Option<String>,
    /// Type.
    pub volume_type: Option<String>,
}

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkInterface {
    /// Card.
    pub network_card_index: i32,
    /// Device.
    pub device_index: i32,
    /// `interface` or `efa-only`.
    pub interface_type: String,
}

/// Metadata service settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MetadataOptions {
    /// `enabled` or `disabled`.
    pub http_endpoint: Option<String>,
    /// `enabled` or `disabled`.
    #[serde(rename = "httpProtocolIPv6")]
    pub http_protocol_ipv6: Option<String>,
    /// Hops.
    pub http_put_response_hop_limit: Option<i64>,
    /// `required` or `optional`.
    pub http_tokens: Option<String>,
}

/// Idle time-outs in seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConnectionTracking {
    /// TCP.
    pub tcp_established_timeout: Option<i32>,
    /// UDP streams.
    pub udp_stream_timeout: Option<i32>,
    /// UDP.
    pub udp_timeout: Option<i32>,
}

/// CPU options.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CpuOptions {
    /// `enabled` or `disabled`.
    pub nested_virtualization: Option<String>,
}

/// A placement group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlacementGroupSelector {
    /// Name.
    pub name: Option<String>,
    /// Id.
    pub id: Option<String>,
}

/// Status of a [`NodeClass`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeClassStatus {
    /// Subnets, most free addresses first.
    pub subnets: Vec<SubnetStatus>,
    /// Security groups by id.
    pub security_groups: Vec<SecurityGroupStatus>,
    /// Images, newest first.
    pub amis: Vec<AmiStatus>,
    /// Instance profile.
    pub instance_profile: Option<String>,
    /// Conditions.
    pub conditions: Vec<Condition>,
    /// Other fields.
    #[serde(flatten)]
    pub rest: Rest,
}

/// A subnet found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SubnetStatus {
    /// Id.
    pub id: String,
    /// Zone.
    pub zone: String,
    /// Zone id.
    #[serde(rename = "zoneID")]
    pub zone_id: String,
}

/// A security group found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SecurityGroupStatus {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
}

/// An image found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AmiStatus {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Whether it is deprecated.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub deprecated: bool,
    /// What types it is for.
    pub requirements: Vec<RequirementSpec>,
}
