//! Prices (`aws-provider.md` §11): the built-in list until the first refresh, then what AWS says, merged over it.
//! Until the first spot refresh a type's spot price is its on-demand price in every zone; after it, a pool that AWS
//! names no price for has none.

use std::collections::BTreeMap;
use std::sync::Arc;

use karpenter_ec2_api::{Ec2, Ec2Error, Tenancy};
use karpenter_runtime::Clock;
use parking_lot::RwLock;

use crate::limits;

/// Products that count as Linux in the spot price history.
const PRODUCTS: [&str; 2] = ["Linux/UNIX", "Linux/UNIX (Amazon VPC)"];

/// Spot prices per hour by type, then zone.
type SpotPrices = BTreeMap<Arc<str>, BTreeMap<Arc<str>, f64>>;

/// Current prices of a region.
#[derive(Debug)]
pub(crate) struct Pricing {
    region: String,
    isolated_vpc: bool,
    prices: RwLock<Prices>,
}

#[derive(Debug, Default)]
struct Prices {
    on_demand: BTreeMap<Arc<str>, f64>,
    /// None until the first refresh.
    spot: Option<SpotPrices>,
    version: u64,
}

impl Pricing {
    pub(crate) fn new(region: &str, isolated_vpc: bool) -> Self {
        Self {
            region: region.to_owned(),
            isolated_vpc,
            prices: RwLock::new(Prices {
                on_demand: limits::on_demand_prices(region),
                ..Prices::default()
            }),
        }
    }

    /// Grows whenever a price changes.
    pub(crate) fn version(&self) -> u64 {
        self.prices.read().version
    }

    pub(crate) fn on_demand(&self, instance_type: &str) -> Option<f64> {
        self.prices.read().on_demand.get(instance_type).copied()
    }

    pub(crate) fn spot(&self, instance_type: &str, zone: &str) -> Option<f64> {
        let prices = self.prices.read();
        match &prices.spot {
            Some(spot) => spot.get(instance_type)?.get(zone).copied(),
            None => prices.on_demand.get(instance_type).copied(),
        }
    }

    /// Asks AWS; says whether anything changed. Each half that fails keeps its old data.
    ///
    /// # Errors
    /// The first failure, after both halves were tried.
    pub(crate) async fn refresh(&self, ec2: &dyn Ec2, clock: &Clock) -> Result<bool, Ec2Error> {
        let on_demand = self.refresh_on_demand(ec2).await;
        let spot = self.refresh_spot(ec2, clock).await;
        Ok(on_demand? | spot?)
    }

    async fn refresh_on_demand(&self, ec2: &dyn Ec2) -> Result<bool, Ec2Error> {
        if self.isolated_vpc || self.region.starts_with("us-gov-") {
            return Ok(false);
        }
        let mut fresh = Vec::new();
        for tenancy in [Tenancy::Shared, Tenancy::DedicatedBareMetal] {
            let listed = ec2.get_products(&self.region, tenancy).await?;
            if listed.is_empty() {
                return Err(Ec2Error::new(
                    "NoPrices",
                    format!("the price list of {} has no {tenancy:?} entry", self.region),
                ));
            }
            fresh.extend(listed);
        }
        let mut prices = self.prices.write();
        let mut changed = false;
        for price in fresh {
            if price.usd_per_hour > 0.0 && price.usd_per_hour.is_finite() {
                let old = prices
                    .on_demand
                    .insert(price.instance_type, price.usd_per_hour);
                changed |= old != Some(price.usd_per_hour);
            }
        }
        prices.version += u64::from(changed);
        Ok(changed)
    }

    async fn refresh_spot(&self, ec2: &dyn Ec2, clock: &Clock) -> Result<bool, Ec2Error> {
        let fresh = ec2
            .describe_spot_price_history(clock.wall(), &PRODUCTS)
            .await?;
        if fresh.is_empty() {
            return Err(Ec2Error::new("NoPrices", "the spot price history is empty"));
        }
        let mut prices = self.prices.write();
        let mut changed = prices.spot.is_none();
        let spot = prices.spot.get_or_insert_default();
        for price in fresh {
            if price.usd_per_hour.is_finite() {
                let zones = spot.entry(price.instance_type).or_default();
                let old = zones.insert(price.zone, price.usd_per_hour);
                changed |= old != Some(price.usd_per_hour);
            }
        }
        prices.version += u64::from(changed);
        Ok(changed)
    }
}
