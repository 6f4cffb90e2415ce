//! What no API tells and upstream ships as tables too: network bandwidth, branch interfaces, and prices to start with.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use karpenter_runtime::gzip;
use serde::de::DeserializeOwned;

const LIMITS: &[u8] = include_bytes!("../../../fixtures/catalog/ec2-static-limits.json.gz");
const PRICES: &[u8] = include_bytes!("../../../fixtures/catalog/ec2-on-demand-prices.json.gz");

/// Region whose prices stand in for regions without a table.
const FALLBACK_REGION: &str = "us-east-1";

/// Static facts about a type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Network bandwidth, if known.
    pub(crate) bandwidth_mbps: Option<u64>,
    /// Branch interfaces for pods; zero where trunking is not supported.
    pub(crate) branch_interfaces: u32,
}

/// Limits of a type; nothing known of types that the table lacks.
pub(crate) fn of(instance_type: &str) -> Limits {
    static TABLE: OnceLock<BTreeMap<String, (Option<u64>, u32)>> = OnceLock::new();
    let table = TABLE.get_or_init(|| read(LIMITS));
    let (bandwidth_mbps, branch_interfaces) = table.get(instance_type).copied().unwrap_or_default();
    Limits {
        bandwidth_mbps,
        branch_interfaces,
    }
}

/// On-demand prices per hour to start with.
pub(crate) fn on_demand_prices(region: &str) -> BTreeMap<Arc<str>, f64> {
    static TABLE: OnceLock<BTreeMap<String, BTreeMap<Arc<str>, f64>>> = OnceLock::new();
    let table = TABLE.get_or_init(|| read(PRICES));
    let prices = table.get(region).or_else(|| table.get(FALLBACK_REGION));
    prices.cloned().unwrap_or_default()
}

/// The embedded files are checked by a test; a build with a broken one knows nothing.
fn read<T: DeserializeOwned + Default>(bytes: &[u8]) -> T {
    let text = gzip::unpack(bytes, "built-in table").ok();
    text.and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_can_be_read() {
        assert_eq!(
            of("m5.large"),
            Limits {
                bandwidth_mbps: Some(750),
                branch_interfaces: 9
            }
        );
        assert_eq!(of("nonesuch"), Limits::default());
        let prices = on_demand_prices("us-east-1");
        assert!((prices["m5.large"] - 0.096).abs() < 1e-9);
        assert_eq!(on_demand_prices("eu-west-1"), prices);
    }
}
