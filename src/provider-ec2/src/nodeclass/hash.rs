//! The drift hash of an EC2NodeClass, bit for bit that of Karpenter v1.14 (`karpenter.k8s.aws/ec2nodeclass-hash`,
//! version `v5`). Selector terms, `ipPrefixCount` and the literal `amiFamily` are not in it.

use std::collections::BTreeMap;

use karpenter_api::Quantity;
use karpenter_api::hash::{
    Struct, boolean, duration, int32, int64, map, set, string, string_field, strings,
};

use super::{
    BlockDeviceMapping, ConnectionTracking, CpuOptions, Ebs, Kubelet, MetadataOptions,
    NetworkInterface, NodeClassSpec, PlacementGroupSelector, Written,
};

/// Value of [`crate::labels::HASH_VERSION`] that goes with [`drift_hash`].
pub const HASH_VERSION_VALUE: &str = "v5";

/// What machines of the class cannot be changed in: the static fields, the family that the images resolve to
/// (`AL2023`, `Custom`, ...), and the cluster's CA bundle.
#[must_use]
pub fn drift_hash(spec: &NodeClassSpec, family: &str, ca_bundle: &str) -> String {
    set([spec_hash(spec), string(family), string(ca_bundle)]).to_string()
}

fn text(value: &Option<String>) -> Option<u64> {
    value.as_deref().map(string)
}

fn texts(value: &Written<BTreeMap<String, String>>) -> Option<u64> {
    value.as_option().map(strings)
}

fn spec_hash(spec: &NodeClassSpec) -> u64 {
    let volumes = spec.block_device_mappings.as_option();
    let interfaces = spec.network_interfaces.as_option();
    Struct::new("EC2NodeClassSpec")
        .field(
            "PlacementGroupSelector",
            spec.placement_group_selector.as_ref().map(placement_group),
        )
        .field(
            "AssociatePublicIPAddress",
            spec.associate_public_ip_address.map(boolean),
        )
        .field("UserData", text(&spec.user_data))
        .field("Role", spec.role.as_deref().and_then(string_field))
        .field("InstanceProfile", text(&spec.instance_profile))
        .field("Tags", texts(&spec.tags))
        .field("Kubelet", spec.kubelet.as_ref().map(kubelet))
        .field(
            "BlockDeviceMappings",
            volumes.map(|all| set(all.iter().map(volume))),
        )
        .field("InstanceStorePolicy", text(&spec.instance_store_policy))
        .field(
            "NetworkInterfaces",
            interfaces.map(|all| set(all.iter().map(interface))),
        )
        .field("DetailedMonitoring", spec.detailed_monitoring.map(boolean))
        .field(
            "MetadataOptions",
            spec.metadata_options.as_ref().map(metadata_options),
        )
        .field(
            "ConnectionTracking",
            spec.connection_tracking.as_ref().map(connection_tracking),
        )
        .field("Context", text(&spec.context))
        .field("CPUOptions", spec.cpu_options.as_ref().map(cpu_options))
        .pointer()
}

fn placement_group(group: &PlacementGroupSelector) -> u64 {
    Struct::new("PlacementGroupSelector")
        .field("Name", text(&group.name))
        .field("ID", text(&group.id))
        .pointer()
}

fn kubelet(kubelet: &Kubelet) -> u64 {
    let dns = kubelet.cluster_dns.as_option();
    let grace = kubelet.eviction_soft_grace_period.as_option().map(|all| {
        // A text that is no duration does not get past Go's decoding, so that there is no hash to match.
        map(all
            .iter()
            .map(|(k, v)| (string(k), duration(v).unwrap_or_default())))
    });
    Struct::new("KubeletConfiguration")
        .field(
            "ClusterDNS",
            dns.map(|all| set(all.iter().map(|a| string(a)))),
        )
        .field("MaxPods", kubelet.max_pods.map(int32))
        .field("PodsPerCore", kubelet.pods_per_core.map(int32))
        .field("SystemReserved", texts(&kubelet.system_reserved))
        .field("KubeReserved", texts(&kubelet.kube_reserved))
        .field("EvictionHard", texts(&kubelet.eviction_hard))
        .field("EvictionSoft", texts(&kubelet.eviction_soft))
        .field("EvictionSoftGracePeriod", grace)
        .field(
            "EvictionMaxPodGracePeriod",
            kubelet.eviction_max_pod_grace_period.map(int32),
        )
        .field(
            "ImageGCHighThresholdPercent",
            kubelet.image_gc_high_threshold_percent.map(int32),
        )
        .field(
            "ImageGCLowThresholdPercent",
            kubelet.image_gc_low_threshold_percent.map(int32),
        )
        .field("CPUCFSQuota", kubelet.cpu_cfs_quota.map(boolean))
        .pointer()
}

fn volume(volume: &BlockDeviceMapping) -> u64 {
    Struct::new("BlockDeviceMapping")
        .field("DeviceName", text(&volume.device_name))
        .field("EBS", volume.ebs.as_ref().map(ebs))
        .field("RootVolume", volume.root_volume.then(|| boolean(true)))
        .pointer()
}

fn ebs(ebs: &Ebs) -> u64 {
    let size = ebs.volume_size.as_deref().map(|size| {
        let canonical = Quantity::parse_with_format(size).map(|(q, format)| q.to_string_as(format));
        string(canonical.as_deref().unwrap_or(size))
    });
    Struct::new("BlockDevice")
        .field(
            "DeleteOnTermination",
            ebs.delete_on_termination.map(boolean),
        )
        .field("Encrypted", ebs.encrypted.map(boolean))
        .field("IOPS", ebs.iops.map(int64))
        .field("KMSKeyID", text(&ebs.kms_key_id))
        .field("SnapshotID", text(&ebs.snapshot_id))
        .field("Throughput", ebs.throughput.map(int64))
        .field(
            "VolumeInitializationRate",
            ebs.volume_initialization_rate.map(int32),
        )
        .field("VolumeSize", size)
        .field("VolumeType", text(&ebs.volume_type))
        .pointer()
}

fn interface(interface: &NetworkInterface) -> u64 {
    let index = |n: i32| (n != 0).then(|| int32(n));
    Struct::new("NetworkInterface")
        .field("NetworkCardIndex", index(interface.network_card_index))
        .field("DeviceIndex", index(interface.device_index))
        .field("InterfaceType", string_field(&interface.interface_type))
        .pointer()
}

fn metadata_options(options: &MetadataOptions) -> u64 {
    Struct::new("MetadataOptions")
        .field("HTTPEndpoint", text(&options.http_endpoint))
        .field("HTTPProtocolIPv6", text(&options.http_protocol_ipv6))
        .field(
            "HTTPPutResponseHopLimit",
            options.http_put_response_hop_limit.map(int64),
        )
        .field("HTTPTokens", text(&options.http_tokens))
        .pointer()
}

fn connection_tracking(tracking: &ConnectionTracking) -> u64 {
    Struct::new("ConnectionTracking")
        .field(
            "TCPEstablishedTimeout",
            tracking.tcp_established_timeout.map(int32),
        )
        .field("UDPStreamTimeout", tracking.udp_stream_timeout.map(int32))
        .field("UDPTimeout", tracking.udp_timeout.map(int32))
        .pointer()
}

fn cpu_options(options: &CpuOptions) -> u64 {
    Struct::new("CPUOptions")
        .field("NestedVirtualization", text(&options.nested_virtualization))
        .pointer()
}
