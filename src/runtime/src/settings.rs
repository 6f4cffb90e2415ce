//! The settings table: one row makes flag, environment variable, chart value, schema and docs line.

use std::time::Duration;

/// What an operator can set (`operations.md` §1). Providers keep theirs in `provider`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Shortest quiet time that closes a batch of pending pods.
    pub batch_idle_duration: Duration,
    /// Longest a batch stays open.
    pub batch_max_duration: Duration,
    /// `Respect` (true) or `Ignore`.
    pub respect_preferences: bool,
    /// `BestEffort` (true) or `Strict`.
    pub best_effort_min_values: bool,
    /// Whether pods with resource claims are refused.
    pub ignore_dra_requests: bool,
    /// Thousandths of a core the controller may use; scales concurrency.
    pub cpu_requests_millis: u32,
    /// Whether plans are checked by plan-check before they are carried out (findings are counted and logged).
    pub verify_plans: bool,
    /// Gates.
    pub feature_gates: FeatureGates,
    // INTERFACE: the runtime author adds the rest of the table (ports, leader election, log, kube client, ...).
}

/// Feature gates, with upstream's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // A set of switches is what feature gates are.
pub struct FeatureGates {
    /// Replace nodes whose conditions stay bad.
    pub node_repair: bool,
    /// Capacity reservations.
    pub reserved_capacity: bool,
    /// Replace spot by cheaper spot.
    pub spot_to_spot_consolidation: bool,
    /// NodeOverlay objects.
    pub node_overlay: bool,
    /// Static NodePools.
    pub static_capacity: bool,
    /// CapacityBuffer objects.
    pub capacity_buffer: bool,
}

impl Default for FeatureGates {
    fn default() -> Self {
        Self {
            node_repair: false,
            reserved_capacity: true,
            spot_to_spot_consolidation: false,
            node_overlay: false,
            static_capacity: false,
            capacity_buffer: false,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            batch_idle_duration: Duration::from_secs(1),
            batch_max_duration: Duration::from_secs(10),
            respect_preferences: true,
            best_effort_min_values: false,
            ignore_dra_requests: true,
            cpu_requests_millis: 1000,
            verify_plans: true,
            feature_gates: FeatureGates::default(),
        }
    }
}
