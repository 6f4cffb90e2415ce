//! Prices: spot by type and zone, on-demand by type.

use std::sync::Arc;

use jiff::Timestamp;

/// A spot price at a time.
#[derive(Clone, Debug, PartialEq)]
pub struct SpotPrice {
    /// Instance type.
    pub instance_type: Arc<str>,
    /// Zone name.
    pub zone: Arc<str>,
    /// US dollars per hour.
    pub usd_per_hour: f64,
    /// Since when.
    pub timestamp: Timestamp,
}

/// Which half of the price list is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tenancy {
    /// Shared hardware, product family "Compute Instance".
    Shared,
    /// Dedicated hardware, product family "Compute Instance (bare metal)".
    DedicatedBareMetal,
}

/// An on-demand price of the list.
#[derive(Clone, Debug, PartialEq)]
pub struct OnDemandPrice {
    /// Instance type.
    pub instance_type: Arc<str>,
    /// Price per hour in the region's currency (US dollars outside `cn-*`).
    pub usd_per_hour: f64,
}
