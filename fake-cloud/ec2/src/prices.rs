//! Prices: on-demand from the lists, spot from a seeded model, both under the harness' price changes.
//!
//! The spot model, per type and zone: a base discount off the on-demand price, uniform in 58 to 77 percent, and a
//! slow walk around it. The walk has a knot every [`KNOT_HOURS`] hours, uniform in ±3 points, with straight lines
//! between; the price follows it in steps of an hour, as spot prices hold for a while. So the discount stays within
//! 55 to 80 percent. Every number is a pure function of seed, type, zone and hour: no state, no order of calls.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use karpenter_ec2_api::FleetTarget;
use karpenter_ec2_api::filter::wildcard_match;
use karpenter_runtime::RngTree;

/// Hours between knots of the walk.
pub const KNOT_HOURS: i64 = 12;
/// Least and greatest base discount, as fractions of the on-demand price.
const BASE_DISCOUNT: (f64, f64) = (0.58, 0.77);
/// How far the walk goes to either side.
const WALK: f64 = 0.03;
/// Spot prices come in steps of a hundredth of a cent.
const PRICE_STEP: f64 = 10_000.0;

/// Which pools are meant: wildcards on type and zone; absent = any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolMatch {
    /// Instance type, `*` and `?` allowed.
    pub instance_type: Option<String>,
    /// Zone name, `*` and `?` allowed.
    pub zone: Option<String>,
    /// Capacity type.
    pub capacity_type: Option<FleetTarget>,
}

impl PoolMatch {
    /// Whether the pool of this type, zone and capacity type is meant.
    #[must_use]
    pub fn matches(&self, instance_type: &str, zone: &str, capacity_type: FleetTarget) -> bool {
        let text = |pattern: &Option<String>, text: &str| {
            pattern.as_deref().is_none_or(|p| wildcard_match(p, text))
        };
        text(&self.instance_type, instance_type)
            && text(&self.zone, zone)
            && self.capacity_type.is_none_or(|c| c == capacity_type)
    }
}

/// Prices of one region.
#[derive(Debug)]
pub struct Prices {
    on_demand: BTreeMap<Arc<str>, f64>,
    rng: RngTree,
    factors: Vec<(PoolMatch, f64)>,
}

impl Prices {
    /// From a price list and the seed.
    #[must_use]
    pub fn new(on_demand: BTreeMap<Arc<str>, f64>, rng: &RngTree) -> Self {
        Self {
            on_demand,
            rng: rng.child("spot-prices", ""),
            factors: Vec::new(),
        }
    }

    /// From now on multiplies the prices of `pools` by `factor`, on top of earlier changes.
    pub fn change(&mut self, pools: PoolMatch, factor: f64) {
        self.factors.push((pools, factor));
    }

    /// Types that have a price, with their on-demand price per hour.
    pub fn on_demand_prices(&self) -> impl Iterator<Item = (&Arc<str>, f64)> {
        self.on_demand
            .iter()
            // On-demand prices do not differ by zone: only changes to all zones reach them.
            .map(|(t, p)| (t, self.changed(*p, t, "*", FleetTarget::OnDemand)))
    }

    /// On-demand price per hour of a type.
    #[must_use]
    pub fn on_demand(&self, instance_type: &str) -> Option<f64> {
        let list = self.on_demand.get(instance_type)?;
        Some(self.changed(*list, instance_type, "*", FleetTarget::OnDemand))
    }

    /// Spot price per hour of a type in a zone at a time.
    #[must_use]
    pub fn spot(&self, instance_type: &str, zone: &str, at: Timestamp) -> Option<f64> {
        let list = self.on_demand.get(instance_type)?;
        let pool = self.rng.child(instance_type, zone);
        let price = list * (1.0 - discount(&pool, hour(at)));
        let price = (price * PRICE_STEP).round().max(1.0) / PRICE_STEP;
        Some(self.changed(price, instance_type, zone, FleetTarget::Spot))
    }

    /// Price per hour of a pool.
    #[must_use]
    pub fn of(
        &self,
        instance_type: &str,
        zone: &str,
        capacity_type: FleetTarget,
        at: Timestamp,
    ) -> Option<f64> {
        match capacity_type {
            FleetTarget::OnDemand | FleetTarget::CapacityBlock | FleetTarget::ReservedCapacity => {
                self.on_demand(instance_type)
            }
            FleetTarget::Spot => self.spot(instance_type, zone, at),
        }
    }

    fn changed(&self, price: f64, instance_type: &str, zone: &str, kind: FleetTarget) -> f64 {
        self.factors
            .iter()
            .filter(|(pools, _)| pools.matches(instance_type, zone, kind))
            .fold(price, |price, (_, factor)| price * factor)
    }
}

/// Full hours since 1970.
fn hour(at: Timestamp) -> i64 {
    at.as_second().div_euclid(3600)
}

/// When the spot prices of `at` were set.
#[must_use]
pub fn spot_price_since(at: Timestamp) -> Timestamp {
    Timestamp::from_second(hour(at) * 3600).unwrap_or(at)
}

#[allow(clippy::cast_precision_loss)] // A share of twelve hours.
fn discount(pool: &RngTree, hour: i64) -> f64 {
    let (low, high) = BASE_DISCOUNT;
    let base = low + (high - low) * pool.rng().unit();
    let knot = hour.div_euclid(KNOT_HOURS);
    let share = hour.rem_euclid(KNOT_HOURS) as f64 / KNOT_HOURS as f64;
    let at = |knot: i64| (pool.child("knot", &knot.to_string()).rng().unit() - 0.5) * 2.0 * WALK;
    base + at(knot) * (1.0 - share) + at(knot + 1) * share
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prices(seed: u64) -> Prices {
        let list = BTreeMap::from([
            (Arc::from("m5.large"), 0.096),
            (Arc::from("c5.large"), 0.085),
        ]);
        Prices::new(list, &RngTree::new(seed))
    }

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + hours * 3600).unwrap()
    }

    #[test]
    fn spot_stays_within_the_documented_discounts_and_moves_slowly() {
        let prices = prices(1);
        let mut last: Option<f64> = None;
        let mut distinct = std::collections::BTreeSet::new();
        for h in 0..24 * 60 {
            let spot = prices.spot("m5.large", "us-east-1a", at(h)).unwrap();
            let discount = 1.0 - spot / 0.096;
            assert!((0.549..=0.801).contains(&discount), "hour {h}: {discount}");
            if let Some(last) = last {
                assert!(
                    (spot - last).abs() < 0.096 * 0.01,
                    "hour {h}: {last} -> {spot}"
                );
            }
            last = Some(spot);
            distinct.insert(spot.to_bits());
        }
        assert!(distinct.len() > 10, "it moves");
    }

    #[test]
    fn one_seed_one_price_and_zones_differ() {
        let spot = |seed, zone| prices(seed).spot("m5.large", zone, at(5));
        assert_eq!(spot(7, "us-east-1a"), spot(7, "us-east-1a"));
        assert_ne!(spot(7, "us-east-1a"), spot(7, "us-east-1b"));
        assert_ne!(spot(7, "us-east-1a"), spot(8, "us-east-1a"));
    }

    #[test]
    fn changes_hit_what_they_match() {
        let mut prices = prices(1);
        let before = prices.spot("m5.large", "us-east-1a", at(0)).unwrap();
        prices.change(
            PoolMatch {
                instance_type: Some("m5.*".into()),
                capacity_type: Some(FleetTarget::Spot),
                ..PoolMatch::default()
            },
            2.0,
        );
        assert_eq!(
            prices.spot("m5.large", "us-east-1a", at(0)),
            Some(before * 2.0)
        );
        assert_eq!(prices.on_demand("m5.large"), Some(0.096));
        assert_eq!(prices.spot("nonesuch", "us-east-1a", at(0)), None);
    }
}
