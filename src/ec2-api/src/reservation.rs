//! Capacity reservations: machines of one type in one zone that are paid for, whether they run or not.

use std::sync::Arc;

use jiff::Timestamp;

use crate::Tags;

/// `ReservationType` of reservations that last until they are given up.
pub const DEFAULT: &str = "default";
/// `ReservationType` of those that are bought for a time in advance, whose machines end with it.
pub const CAPACITY_BLOCK: &str = "capacity-block";
/// `MarketType` of machines out of capacity blocks.
pub const MARKET_BLOCK: &str = "capacity-block";
/// `MarketType` of machines out of other reservations that may take them back.
pub const MARKET_INTERRUPTIBLE: &str = "interruptible-capacity-reservation";

/// A capacity reservation as `DescribeCapacityReservations` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CapacityReservation {
    /// `cr-...`.
    pub id: String,
    /// Instance type.
    pub instance_type: Arc<str>,
    /// Zone name.
    pub zone: Arc<str>,
    /// Account that owns it.
    pub owner_id: String,
    /// `open` or `targeted`.
    pub instance_match_criteria: String,
    /// [`DEFAULT`], [`CAPACITY_BLOCK`], or empty for the former.
    pub reservation_type: String,
    /// Whether its machines may be taken back.
    pub interruptible: bool,
    /// When it ends; none = when it is given up.
    pub end_date: Option<Timestamp>,
    /// Machines that it has left.
    pub available_instance_count: u32,
    /// Tags.
    pub tags: Tags,
}

/// `CapacityReservationSpecification` of a launch template.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum ReservationUse {
    /// Not set: open reservations are used.
    #[default]
    Unset,
    /// `none`: reservations are kept out.
    Never,
    /// `capacity-reservations-only`, and this one.
    Only(String),
}
