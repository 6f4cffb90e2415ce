//! What can be had now, and for how much: the seam through which a harness takes capacity away or moves prices.
//! Outlives the controller, as a cloud does.

use std::collections::BTreeMap;
use std::sync::Arc;

use karpenter_model::{InstanceType, Offering};
use parking_lot::RwLock;
use tokio::time::Instant;

/// Offerings; an empty list matches all, a trailing `*` a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OfferingPattern {
    /// Instance types.
    pub instance_types: Vec<String>,
    /// Zones.
    pub zones: Vec<String>,
    /// Capacity types.
    pub capacity_types: Vec<String>,
}

impl OfferingPattern {
    /// Whether the offering of an instance type is meant.
    #[must_use]
    pub fn matches(&self, instance_type: &str, offering: &Offering) -> bool {
        any(&self.instance_types, instance_type)
            && any(&self.zones, offering.zone())
            && any(&self.capacity_types, offering.capacity_type())
    }
}

fn any(patterns: &[String], value: &str) -> bool {
    patterns.is_empty()
        || patterns.iter().any(|p| {
            p.strip_suffix('*')
                .map_or(p == value, |prefix| value.starts_with(prefix))
        })
}

/// The state of the market; cheap to clone, all clones are one market.
#[derive(Clone, Debug, Default)]
pub struct Market {
    inner: Arc<RwLock<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    out: Vec<(OfferingPattern, Option<Instant>)>,
    factors: Vec<(OfferingPattern, f64)>,
    changes: u64,
}

impl Market {
    /// Takes capacity away, until `until` or until [`Market::capacity_back`].
    pub fn capacity_out(&self, pattern: OfferingPattern, until: Option<Instant>) {
        let mut inner = self.inner.write();
        inner.out.push((pattern, until));
        inner.changes += 1;
    }
    /// Gives back what an equal pattern took away; an empty pattern gives back all.
    pub fn capacity_back(&self, pattern: &OfferingPattern) {
        let mut inner = self.inner.write();
        inner
            .out
            .retain(|(p, _)| p != pattern && *pattern != OfferingPattern::default());
        inner.changes += 1;
    }
    /// Multiplies prices.
    pub fn scale_price(&self, pattern: OfferingPattern, factor: f64) {
        let mut inner = self.inner.write();
        inner.factors.push((pattern, factor));
        inner.changes += 1;
    }
    /// Whether an offering can be bought at `now`.
    #[must_use]
    pub fn has(&self, instance_type: &str, offering: &Offering, now: Instant) -> bool {
        let inner = self.inner.read();
        !inner
            .out
            .iter()
            .any(|(p, until)| until.is_none_or(|u| now < u) && p.matches(instance_type, offering))
    }
    /// The price of an offering now, US dollars per hour.
    #[must_use]
    pub fn price(&self, instance_type: &str, offering: &Offering) -> f64 {
        let inner = self.inner.read();
        inner
            .factors
            .iter()
            .filter(|(p, _)| p.matches(instance_type, offering))
            .fold(offering.price, |price, (_, f)| price * f)
    }
    /// Counts changes of price or capacity, so that caches know when to look again.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.inner.read().changes
    }

    /// The types at the market's prices, with the offerings in `unavailable` (type, zone, capacity type) marked so.
    #[must_use]
    pub fn apply(
        &self,
        types: &[Arc<InstanceType>],
        unavailable: &BTreeMap<OfferingKey, Instant>,
    ) -> Vec<Arc<InstanceType>> {
        if unavailable.is_empty() && self.inner.read().factors.is_empty() {
            return types.to_vec();
        }
        types
            .iter()
            .map(|t| {
                let mut changed = InstanceType::clone(t);
                for offering in &mut changed.offerings {
                    offering.price = self.price(&t.name, offering);
                    offering.available &=
                        !unavailable.contains_key(&OfferingKey::of(&t.name, offering));
                }
                Arc::new(changed)
            })
            .collect()
    }
}

/// Identity of an offering.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OfferingKey {
    /// Instance type.
    pub instance_type: String,
    /// Zone.
    pub zone: String,
    /// Capacity type.
    pub capacity_type: String,
}

impl OfferingKey {
    /// Of an offering of an instance type.
    #[must_use]
    pub fn of(instance_type: &str, offering: &Offering) -> Self {
        Self {
            instance_type: instance_type.to_owned(),
            zone: offering.zone().to_owned(),
            capacity_type: offering.capacity_type().to_owned(),
        }
    }
}
