//! Launch templates: what every machine of a launch has in common.

use crate::{ReservationUse, Tags};

/// A launch template as listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaunchTemplate {
    /// `lt-...`.
    pub id: String,
    /// Name.
    pub name: String,
    /// Tags.
    pub tags: Tags,
}

/// What is in a launch template's only version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LaunchTemplateData {
    /// Image.
    pub image_id: String,
    /// User data, base64.
    pub user_data: String,
    /// IAM instance profile name.
    pub instance_profile: String,
    /// Whether detailed monitoring is on.
    pub detailed_monitoring: bool,
    /// Volumes; empty = the image's.
    pub block_device_mappings: Vec<BlockDeviceMapping>,
    /// Metadata service.
    pub metadata_options: MetadataOptions,
    /// Network interfaces; never empty.
    pub network_interfaces: Vec<NetworkInterfaceSpec>,
    /// `default` or `dedicated`.
    pub tenancy: String,
    /// `enabled`/`disabled` nested virtualization; none = not set.
    pub nested_virtualization: Option<String>,
    /// Which capacity reservations it may use.
    pub capacity_reservation: ReservationUse,
    /// `MarketType`, for machines out of some reservations ([`crate::reservation`]); none = not set.
    pub market_type: Option<String>,
    /// Tags of resources that the launch makes and the fleet request cannot name.
    pub tag_specifications: Vec<TagSpecification>,
}

/// A volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct BlockDeviceMapping {
    /// Device, such as `/dev/xvda`.
    pub device_name: String,
    /// EBS volume.
    pub ebs: Option<BlockDevice>,
}

/// An EBS volume; none = not set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct BlockDevice {
    /// Whether it goes with the machine.
    pub delete_on_termination: Option<bool>,
    /// Whether it is encrypted.
    pub encrypted: Option<bool>,
    /// IOPS.
    pub iops: Option<i64>,
    /// Key.
    pub kms_key_id: Option<String>,
    /// Snapshot it is made from.
    pub snapshot_id: Option<String>,
    /// MiB/s.
    pub throughput: Option<i64>,
    /// MiB/s of reading the snapshot in.
    pub volume_initialization_rate: Option<i32>,
    /// Size in GiB.
    pub volume_size_gib: Option<i64>,
    /// `gp3`, ...
    pub volume_type: Option<String>,
}

/// Metadata service settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct MetadataOptions {
    /// `enabled` or `disabled`.
    pub http_endpoint: String,
    /// `enabled` or `disabled`; none in regions that do not know it.
    pub http_protocol_ipv6: Option<String>,
    /// Hops a response may take.
    pub http_put_response_hop_limit: i64,
    /// `required` or `optional`.
    pub http_tokens: String,
}

/// A network interface to make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NetworkInterfaceSpec {
    /// Network card.
    pub network_card_index: i32,
    /// Device on the card.
    pub device_index: i32,
    /// `interface`, `efa`, `efa-only`; none = not set.
    pub interface_type: Option<String>,
    /// Security group ids.
    pub groups: Vec<String>,
    /// Whether it gets a public address; none = the subnet decides.
    pub associate_public_ip_address: Option<bool>,
    /// Number of /28 prefixes; none = none.
    pub ipv4_prefix_count: Option<i32>,
    /// Number of /80 prefixes; none = none.
    pub ipv6_prefix_count: Option<i32>,
    /// Whether the first IPv6 address is the primary one.
    pub primary_ipv6: Option<bool>,
    /// IPv6 addresses.
    pub ipv6_address_count: Option<i32>,
    /// Idle seconds of established TCP connections, UDP streams, single UDP exchanges.
    pub connection_tracking: Option<(Option<i32>, Option<i32>, Option<i32>)>,
}

/// Tags for resources of one type.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TagSpecification {
    /// `instance`, `volume`, `fleet`, `network-interface`, `spot-instances-request`.
    pub resource_type: String,
    /// Tags.
    pub tags: Tags,
}
