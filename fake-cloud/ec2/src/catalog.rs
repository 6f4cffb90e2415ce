//! The catalogue: the facts of all EC2 instance types and the on-demand price lists, from `fixtures/catalog`.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use karpenter_ec2_api::InstanceTypeInfo;
use karpenter_runtime::gzip::{self, GzipError};

/// Region whose price list stands in for regions without one, as in the provider.
pub const FALLBACK_REGION: &str = "us-east-1";

const TYPES: &[u8] = include_bytes!("../../../fixtures/catalog/ec2-instance-types.jsonl.gz");
const PRICES: &[u8] = include_bytes!("../../../fixtures/catalog/ec2-on-demand-prices.json.gz");

/// Strategies of placement groups; every type of the catalogue that names none supports all of them.
const STRATEGIES: [&str; 3] = ["cluster", "partition", "spread"];

/// Instance types by name, and on-demand prices by region and type in US dollars per hour.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// Types by name.
    pub types: BTreeMap<Arc<str>, Arc<InstanceTypeInfo>>,
    /// Prices by region, then type.
    pub prices: BTreeMap<String, BTreeMap<Arc<str>, f64>>,
}

/// Why a catalogue cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// It cannot be decompressed.
    #[error(transparent)]
    Gzip(#[from] GzipError),
    /// A line is not an instance type.
    #[error("instance type catalogue, line {line}: {problem}")]
    Line {
        /// Line number from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// The price list does not parse.
    #[error("on-demand price list: {0}")]
    Prices(String),
}

impl Catalog {
    /// The built-in catalogue, read once a process.
    #[must_use]
    pub fn builtin() -> Arc<Self> {
        static BUILTIN: OnceLock<Arc<Catalog>> = OnceLock::new();
        // The embedded bytes are checked by a test; a build without a readable catalogue simply has no types.
        BUILTIN
            .get_or_init(|| Arc::new(Self::read(TYPES, PRICES).unwrap_or_default()))
            .clone()
    }

    /// From gzipped JSON lines of types and a gzipped map of price lists.
    ///
    /// # Errors
    /// When either is truncated or holds something else.
    pub fn read(types: &[u8], prices: &[u8]) -> Result<Self, CatalogError> {
        let mut catalog = Self::default();
        let types = gzip::unpack(types, "instance type catalogue")?;
        let lines = types.split(|byte| *byte == b'\n');
        for (index, line) in lines.enumerate().filter(|(_, line)| !line.is_empty()) {
            let mut info: InstanceTypeInfo =
                serde_json::from_slice(line).map_err(|e| CatalogError::Line {
                    line: index + 1,
                    problem: e.to_string(),
                })?;
            if info.placement_strategies.is_empty() {
                info.placement_strategies = STRATEGIES.map(str::to_owned).to_vec();
            }
            catalog.types.insert(info.name.clone(), Arc::new(info));
        }
        let prices = gzip::unpack(prices, "on-demand price list")?;
        catalog.prices =
            serde_json::from_slice(&prices).map_err(|e| CatalogError::Prices(e.to_string()))?;
        Ok(catalog)
    }

    /// On-demand prices of `region`, or of the fall-back region.
    #[must_use]
    pub fn prices_of(&self, region: &str) -> Option<&BTreeMap<Arc<str>, f64>> {
        self.prices
            .get(region)
            .or_else(|| self.prices.get(FALLBACK_REGION))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_catalogue_is_whole() {
        let catalog = Catalog::read(TYPES, PRICES).unwrap();
        assert_eq!(catalog.types.len(), 1363);
        assert!(catalog.prices["us-east-1"].len() > 1300);
        let m5 = &catalog.types["m5.large"];
        assert_eq!((m5.vcpus, m5.memory_mib), (2, 8192));
        assert_eq!(m5.architectures, ["x86_64"]);
        let without_network: Vec<_> = catalog
            .types
            .values()
            .filter(|t| t.network_cards.iter().all(|c| c.max_interfaces == 0))
            .collect();
        assert!(without_network.is_empty(), "{without_network:?}");
    }

    #[test]
    fn truncated_gzip_is_an_error() {
        for (types, prices, named) in [
            (&TYPES[..TYPES.len() / 2], PRICES, "instance type catalogue"),
            (TYPES, &PRICES[..PRICES.len() / 2], "on-demand price list"),
        ] {
            let error = Catalog::read(types, prices).unwrap_err().to_string();
            let expected = format!("{named}: expected a whole gzip stream");
            assert!(error.starts_with(&expected), "{error}");
        }
    }

    #[test]
    fn a_region_without_a_list_falls_back() {
        let catalog = Catalog::builtin();
        assert_eq!(
            catalog.prices_of("eu-west-1"),
            catalog.prices_of(FALLBACK_REGION)
        );
        assert_ne!(
            catalog.prices_of("us-gov-west-1"),
            catalog.prices_of(FALLBACK_REGION)
        );
    }
}
