//! What machines cost: from the launch to the end of each claim, at the price of the launch.

use std::collections::BTreeMap;
use std::sync::Arc;

use karpenter_api::labels;
use karpenter_fake_kube::server::Change;
use serde_json::Value;

use crate::json::{condition, label, name};

/// Dollars per hour of (instance type, zone, capacity type) now; none when it is not sold.
pub type PriceLookup = Arc<dyn Fn(&str, &str, &str) -> Option<f64> + Send + Sync>;

/// Costs by NodePool.
#[derive(Debug, Default)]
pub struct Ledger {
    open: BTreeMap<String, Open>,
    spent: BTreeMap<String, f64>,
}

#[derive(Debug)]
struct Open {
    pool: String,
    since: f64,
    price: f64,
}

impl Ledger {
    /// Takes note of a change of a NodeClaim at second `at`.
    pub(super) fn claim(&mut self, at: f64, change: &Change, prices: &PriceLookup) {
        match change {
            Change::Added(claim) | Change::Modified(claim) => {
                if condition(claim, "Launched") == "True" && !self.open.contains_key(name(claim)) {
                    let price = prices(
                        label(claim, labels::INSTANCE_TYPE),
                        label(claim, labels::ZONE),
                        label(claim, labels::CAPACITY_TYPE),
                    );
                    self.open.insert(
                        name(claim).to_owned(),
                        Open {
                            pool: pool_of(claim),
                            since: at,
                            price: price.unwrap_or(0.0),
                        },
                    );
                }
            }
            Change::Deleted(claim) => {
                if let Some(open) = self.open.remove(name(claim)) {
                    self.settle(at, &open);
                }
            }
        }
    }

    fn settle(&mut self, at: f64, open: &Open) {
        *self.spent.entry(open.pool.clone()).or_default() +=
            open.price * (at - open.since) / 3600.0;
    }

    /// Settles what still runs at second `at`.
    pub(super) fn close(&mut self, at: f64) {
        let open = std::mem::take(&mut self.open);
        for (claim, mut entry) in open {
            self.settle(at, &entry);
            entry.since = at;
            self.open.insert(claim, entry);
        }
    }

    /// Dollars per hour of a running claim.
    #[must_use]
    pub fn price_of(&self, claim: &str) -> Option<f64> {
        self.open.get(claim).map(|o| o.price)
    }

    /// Dollars per hour of all that runs.
    #[must_use]
    pub fn per_hour(&self) -> f64 {
        self.open.values().map(|o| o.price).sum()
    }

    /// Dollars spent by NodePool up to second `at`.
    #[must_use]
    pub fn spent(&self, at: f64) -> BTreeMap<String, f64> {
        let mut spent = self.spent.clone();
        for open in self.open.values() {
            *spent.entry(open.pool.clone()).or_default() += open.price * (at - open.since) / 3600.0;
        }
        spent
    }
}

fn pool_of(claim: &Value) -> String {
    label(claim, labels::NODEPOOL).to_owned()
}
