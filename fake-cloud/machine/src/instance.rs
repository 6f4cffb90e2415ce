//! The machine's view of an instance, whatever cloud it came from.

/// An instance that was just launched.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Instance {
    /// Such as `i-0123456789abcdef0`.
    pub id: String,
    /// `spec.providerID` its Node must carry.
    pub provider_id: String,
    /// Host name its Node gets, such as `ip-10-0-3-4.ec2.internal`.
    pub private_dns_name: String,
    /// Instance type.
    pub instance_type: String,
    /// Region.
    pub region: String,
    /// Zone.
    pub zone: String,
    /// Zone id.
    pub zone_id: String,
    /// `amd64` or `arm64`.
    pub arch: String,
    /// Hardware threads.
    pub vcpus: u32,
    /// Memory that the operating system reports, in bytes.
    pub memory_bytes: u64,
    /// Root volume, in bytes.
    pub storage_bytes: u64,
    /// Devices a plugin registers late, such as `nvidia.com/gpu` to their count.
    pub extended_resources: std::collections::BTreeMap<String, u64>,
    /// User data, decoded from base64.
    pub user_data: String,
    /// Most pods by the network interface limit.
    pub eni_pods: u32,
}

/// What happens to instances, in order.
#[allow(clippy::large_enum_variant)] // A few live at a time.
#[derive(Clone, Debug, PartialEq)]
pub enum InstanceEvent {
    /// It boots from now on.
    Launched(Instance),
    /// It was told to go: its kubelet goes NotReady soon.
    Terminating {
        /// Instance id.
        id: String,
    },
    /// It is gone; the cloud controller deletes its Node if that is still there.
    Terminated {
        /// Instance id.
        id: String,
    },
}
