//! Subnets and security groups.

use crate::Tags;

/// A subnet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subnet {
    /// `subnet-...`.
    pub id: String,
    /// Zone name.
    pub zone: String,
    /// Zone id, such as `use1-az1`.
    pub zone_id: String,
    /// Free addresses.
    pub available_ips: u32,
    /// Tags.
    pub tags: Tags,
}

/// A security group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecurityGroup {
    /// `sg-...`.
    pub id: String,
    /// Group name.
    pub name: String,
    /// Tags.
    pub tags: Tags,
}
