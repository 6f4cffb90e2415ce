//! What `DescribeInstanceTypes` and `DescribeInstanceTypeOfferings` say.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Facts about an instance type. The serialised form is that of the catalogue in `fixtures/catalog`: absent means the
/// default, so that a type is a short line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct InstanceTypeInfo {
    /// Name, such as `m7i.large`.
    pub name: Arc<str>,
    /// `x86_64`, `arm64`...: `ProcessorInfo.SupportedArchitectures`.
    pub architectures: Vec<String>,
    /// `on-demand`, `spot`, `capacity-block`: `SupportedUsageClasses`.
    pub usage_classes: Vec<String>,
    /// `nitro`, `xen`; empty for bare metal.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hypervisor: String,
    /// Whether it is bare metal.
    #[serde(skip_serializing_if = "is_default")]
    pub bare_metal: bool,
    /// Processor manufacturer.
    pub cpu_manufacturer: String,
    /// `ProcessorInfo.SustainedClockSpeedInGhz` in MHz; 0 if unknown.
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_clock_mhz: u32,
    /// Whether `ProcessorInfo.SupportedFeatures` holds nested virtualization.
    #[serde(skip_serializing_if = "is_default")]
    pub nested_virtualization: bool,
    /// `VCpuInfo.DefaultVCpus`.
    pub vcpus: u32,
    /// `MemoryInfo.SizeInMiB`.
    pub memory_mib: u64,
    /// Total NVMe instance storage in GB; none without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_nvme_gb: Option<u64>,
    /// `EbsOptimizedInfo.MaximumBandwidthInMbps` where EBS optimisation is the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ebs_bandwidth_mbps: Option<u32>,
    /// `NetworkInfo.NetworkCards`.
    pub network_cards: Vec<NetworkCard>,
    /// `NetworkInfo.DefaultNetworkCardIndex`.
    #[serde(skip_serializing_if = "is_default")]
    pub default_network_card: u32,
    /// `NetworkInfo.Ipv4AddressesPerInterface`.
    pub ipv4_per_interface: u32,
    /// Whether the elastic network adapter is supported or required.
    #[serde(skip_serializing_if = "is_default")]
    pub ena: bool,
    /// `NetworkInfo.EncryptionInTransitSupported`.
    #[serde(skip_serializing_if = "is_default")]
    pub encryption_in_transit: bool,
    /// `EfaInfo.MaximumEfaInterfaces`.
    #[serde(skip_serializing_if = "is_default")]
    pub max_efa_interfaces: u32,
    /// `GpuInfo.Gpus`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<Gpu>,
    /// `InferenceAcceleratorInfo.Accelerators`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub accelerators: Vec<Accelerator>,
    /// `NeuronInfo.NeuronDevices`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub neuron_devices: Vec<NeuronDevice>,
    /// `PlacementGroupInfo.SupportedStrategies`; all three when left out of the catalogue.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub placement_strategies: Vec<String>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A network card.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkCard {
    /// Index.
    pub index: u32,
    /// Most network interfaces on it.
    pub max_interfaces: u32,
}

/// GPUs of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Gpu {
    /// Model, such as `T4`.
    pub name: String,
    /// `NVIDIA`, `AMD`, `Habana`.
    pub manufacturer: String,
    /// Number of GPUs; 0 where a fraction of one is rented.
    pub count: u32,
    /// Memory of each in MiB.
    pub memory_mib: u64,
}

/// Inference accelerators of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Accelerator {
    /// Model.
    pub name: String,
    /// Manufacturer.
    pub manufacturer: String,
    /// Number.
    pub count: u32,
}

/// Neuron devices of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NeuronDevice {
    /// Model, such as `Trainium`.
    pub name: String,
    /// Number of devices.
    pub count: u32,
    /// Cores of each.
    pub cores: u32,
}

/// A type that a zone offers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeOffering {
    /// Instance type.
    pub instance_type: Arc<str>,
    /// Zone name.
    pub zone: Arc<str>,
}
