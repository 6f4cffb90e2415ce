//! What a step can make go wrong: at the cloud, with machines, and between the controller and the API server.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema::{NodeSelector, Span};

/// A fault of the cloud; several fields may be set.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CloudFault {
    /// Capacity that cannot be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity_out: Option<OfferingSelector>,
    /// Capacity that can be had again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity_back: Option<OfferingSelector>,
    /// A price that changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<PriceChange>,
    /// Spot interruption of the machines behind these nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interrupt: Option<NodeSelector>,
    /// A call that is throttled (`RequestLimitExceeded`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttle: Option<CallFault>,
    /// A call that fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<CallFault>,
    /// A call that happens but whose answer is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_response: Option<CallFault>,
}

/// Offerings; an empty list means all.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct OfferingSelector {
    /// Instance types; a trailing `*` matches a prefix.
    #[serde(default)]
    pub instance_types: Vec<String>,
    /// Zones.
    #[serde(default)]
    pub zones: Vec<String>,
    /// Capacity types.
    #[serde(default)]
    pub capacity_types: Vec<String>,
    /// For how long; none = until it is taken back.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub duration: Option<Span>,
}

/// New prices of offerings; an empty list means all.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PriceChange {
    /// Instance types; a trailing `*` matches a prefix.
    #[serde(default)]
    pub instance_types: Vec<String>,
    /// Zones.
    #[serde(default)]
    pub zones: Vec<String>,
    /// Capacity types.
    #[serde(default)]
    pub capacity_types: Vec<String>,
    /// New price is the old one times this (≥ 0).
    pub factor: f64,
}

/// A call that misbehaves.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CallFault {
    /// EC2 action, such as `CreateFleet`.
    pub call: String,
    /// How often; none = once, or for as long as `for` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// For how long.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub duration: Option<Span>,
    /// AWS error code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Error message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// How often requests of the controller go wrong, each in a thousand of those that can; drawn from the seed.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ApiFaults {
    /// Requests that take up to two seconds.
    #[serde(default)]
    pub delayed: u32,
    /// Updates and patches refused with 409.
    #[serde(default)]
    pub conflicts: u32,
    /// Requests refused with 429 and `Retry-After: 1`.
    #[serde(default)]
    pub throttled: u32,
    /// Requests answered with 500 that had no effect.
    #[serde(default)]
    pub failed_before: u32,
    /// Writes that took effect and are answered with 500 all the same.
    #[serde(default)]
    pub failed_after: u32,
    /// Watches that end within a minute.
    #[serde(default)]
    pub watches_dropped: u32,
    /// Watches whose events come up to five seconds late.
    #[serde(default)]
    pub watches_late: u32,
    /// Watches that fall silent within a minute, and break off up to two minutes later.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub watches_stalled: u32,
    /// Lists that show what was there up to ten seconds ago.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lists_stale: u32,
    /// Writes of the cluster's own components (loops, kubelets) that go wrong: as many are refused with 409, fail with
    /// 500 before they take effect, and fail after.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub inside: u32,
    /// Seconds that the API server's clock is ahead of the controller's; negative: behind.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub clock_ahead_seconds: i32,
}

fn is_zero<N: Default + PartialEq>(n: &N) -> bool {
    *n == N::default()
}

/// A fault of machines; several fields may be set.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct MachineFault {
    /// Machines launched from now on never join.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub never_boots: Option<bool>,
    /// Machines launched from now on join this much later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub boots_late: Option<Span>,
    /// These nodes turn NotReady.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_ready: Option<NodeSelector>,
    /// These nodes turn Ready again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<NodeSelector>,
    /// The machines behind these nodes vanish.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dies: Option<NodeSelector>,
    /// Readiness and liveness probes of pods that have them fail now and then, for seconds to minutes, until it is `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probes_fail: Option<bool>,
}
