//! The engine: one EC2 account in one region, in memory. What the harness holds; the calls are in `calls`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use karpenter_ec2_api::error::Result;
use karpenter_ec2_api::{Ec2Error, FleetTarget, InstanceState};
use karpenter_runtime::{Clock, RngTree};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::account::Account;
use crate::catalog::Catalog;
use crate::events::InstanceEvent;
use crate::facts;
use crate::faults::{CallFault, Faults, PoolLimit, PoolRule, Verdict};
use crate::prices::{PoolMatch, Prices};
use crate::record::InstanceRecord;
use crate::region::{Zone, zones};
use crate::state::State;

/// Notice before a spot instance is taken back.
pub const SPOT_NOTICE: Duration = Duration::from_secs(120);
/// How long a caller waits for an answer that never comes.
pub const LOST_RESPONSE_WAIT: Duration = Duration::from_secs(60);

/// Settings of an engine.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Clock.
    pub clock: Clock,
    /// Randomness: account, ids, delays, spot prices.
    pub rng: RngTree,
    /// Cluster that the account was set up for: its subnets and groups carry `karpenter.sh/discovery=<cluster>`.
    pub cluster_name: String,
    /// Region.
    pub region: String,
    /// Number of zones, 1..=6.
    pub zones: usize,
    /// Instance types and prices.
    pub catalog: Arc<Catalog>,
}

impl EngineOptions {
    /// Three zones of `us-east-1` with the built-in catalogue.
    #[must_use]
    pub fn new(clock: Clock, rng: &RngTree, cluster_name: &str) -> Self {
        Self {
            clock,
            rng: rng.child("fake-ec2", ""),
            cluster_name: cluster_name.to_owned(),
            region: "us-east-1".to_owned(),
            zones: 3,
            catalog: Catalog::builtin(),
        }
    }
}

/// An EC2 account in memory; cheap to clone, all clones are one account. Implements [`karpenter_ec2_api::Ec2`].
#[derive(Clone, Debug)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) clock: Clock,
    pub(crate) rng: RngTree,
    pub(crate) region: String,
    pub(crate) zones: Vec<Zone>,
    pub(crate) catalog: Arc<Catalog>,
    /// Which zones offer a type.
    pub(crate) offered: BTreeMap<Arc<str>, Vec<Arc<str>>>,
    pub(crate) state: Mutex<State>,
}

impl Engine {
    /// A fresh account.
    #[must_use]
    pub fn new(options: EngineOptions) -> Self {
        let EngineOptions {
            clock,
            rng,
            cluster_name,
            region,
            zones: count,
            catalog,
        } = options;
        let zones = zones(&region, count);
        let list = catalog.prices_of(&region).cloned().unwrap_or_default();
        let zone_names: Vec<Arc<str>> = zones.iter().map(|z| Arc::from(z.name.as_str())).collect();
        let state = State {
            account: Account::seeded(&cluster_name, &zones, &rng, clock.wall()),
            prices: Prices::new(list, &rng),
            faults: Faults::default(),
            templates: BTreeMap::new(),
            records: Vec::new(),
            visible: BTreeMap::new(),
            subscribers: Vec::new(),
            calls: BTreeMap::new(),
            ids: rng.child("ids", "").rng(),
            delays: rng.child("delays", "").rng(),
            addresses: BTreeMap::new(),
            releases: 2,
        };
        Self {
            inner: Arc::new(Inner {
                offered: facts::offered(&catalog, &zone_names),
                clock,
                rng,
                region,
                zones,
                catalog,
                state: Mutex::new(state),
            }),
        }
    }

    /// Hears of instances from now on, those alive first as launched.
    #[must_use]
    pub fn subscribe(&self) -> mpsc::UnboundedReceiver<InstanceEvent> {
        let (send, receive) = mpsc::unbounded_channel();
        let now = self.inner.clock.wall();
        let mut state = self.inner.state.lock();
        for record in state.visible_records() {
            if record.end.is_some_and(|(told, _)| told <= now) {
                continue;
            }
            if let Some(launched) = facts::launched(&self.inner, record) {
                // The receiver is in our hands: it cannot be gone.
                let _ = send.send(InstanceEvent::Launched(launched));
            }
        }
        state.subscribers.push(send);
        receive
    }

    /// Names of the account's zones.
    #[must_use]
    pub fn zones(&self) -> &[Zone] {
        &self.inner.zones
    }

    /// Every instance there ever was, in order of launch.
    #[must_use]
    pub fn instances(&self) -> Vec<InstanceRecord> {
        self.inner.state.lock().records.clone()
    }

    /// Instances that are pending or running.
    #[must_use]
    pub fn live_instances(&self) -> Vec<InstanceRecord> {
        let now = self.inner.clock.wall();
        let state = self.inner.state.lock();
        state
            .visible_records()
            .filter(|r| {
                matches!(
                    r.state(now),
                    InstanceState::Pending | InstanceState::Running
                )
            })
            .cloned()
            .collect()
    }

    /// US dollars spent on machines from `since` to now.
    #[must_use]
    pub fn cost_usd_since(&self, since: Timestamp) -> f64 {
        let now = self.inner.clock.wall();
        let state = self.inner.state.lock();
        state.records.iter().map(|r| r.cost_usd(since, now)).sum()
    }

    /// US dollars per hour now.
    #[must_use]
    pub fn price_per_hour(&self) -> f64 {
        let now = self.inner.clock.wall();
        let state = self.inner.state.lock();
        state
            .visible_records()
            .filter(|r| r.end.is_none_or(|(told, _)| told > now))
            .map(|r| r.price_per_hour)
            .sum()
    }

    /// Price per hour of a pool now.
    #[must_use]
    pub fn price(&self, instance_type: &str, zone: &str, kind: FleetTarget) -> Option<f64> {
        let now = self.inner.clock.wall();
        self.inner
            .state
            .lock()
            .prices
            .of(instance_type, zone, kind, now)
    }

    /// How often each call was made.
    #[must_use]
    pub fn calls(&self) -> BTreeMap<&'static str, u64> {
        self.inner.state.lock().calls.clone()
    }

    /// Adds a fault of a call.
    pub fn fail_calls(&self, fault: CallFault) {
        self.inner.state.lock().faults.add_call(fault);
    }

    /// Limits pools; a rule for the same pools is replaced.
    pub fn limit_pools(&self, rule: PoolRule) {
        self.inner.state.lock().faults.add_pool(rule);
    }

    /// Takes all capacity of `pools` away, until `until` or for good.
    pub fn capacity_out(&self, pools: PoolMatch, until: Option<Timestamp>) {
        self.limit_pools(PoolRule {
            pools,
            limit: PoolLimit::Out,
            until,
            code: "InsufficientInstanceCapacity".to_owned(),
        });
    }

    /// Gives back what a rule for exactly these pools took away; the match of any pool gives back all.
    pub fn capacity_back(&self, pools: &PoolMatch) {
        self.inner.state.lock().faults.lift(pools);
    }

    /// Multiplies the prices of `pools` from now on.
    pub fn change_prices(&self, pools: PoolMatch, factor: f64) {
        self.inner.state.lock().prices.change(pools, factor);
    }

    /// Ends all call faults and pool limits. Prices stay.
    pub fn heal(&self) {
        self.inner.state.lock().faults.clear();
    }

    /// Edits the account: subnets, groups, images, parameters, roles, profiles.
    pub fn edit_account(&self, edit: impl FnOnce(&mut Account)) {
        edit(&mut self.inner.state.lock().account);
    }

    /// Publishes a new image of every family, as AWS does every few weeks.
    pub fn release_images(&self) {
        let now = self.inner.clock.wall();
        let mut state = self.inner.state.lock();
        let release = state.releases;
        state.releases += 1;
        let rng = self.inner.rng.child("release", &release.to_string());
        state.account.release_images(release, now, &rng);
    }

    /// Takes a spot instance back after the usual notice; one that is going already hears nothing more.
    ///
    /// # Errors
    /// `InvalidInstanceID.NotFound` when it is not a spot instance.
    pub fn interrupt(&self, id: &str) -> Result<()> {
        let spot = self
            .inner
            .state
            .lock()
            .record(id)
            .is_some_and(|r| r.capacity_type == FleetTarget::Spot);
        if !spot {
            return Err(Ec2Error::new(
                "InvalidInstanceID.NotFound",
                format!("{id} is not a spot instance"),
            ));
        }
        self.inner.end(id, SPOT_NOTICE);
        Ok(())
    }
}

impl Inner {
    /// Tells an instance to go after `notice` and lets the subscribers know in time; false if it is going already.
    pub(crate) fn end(self: &Arc<Self>, id: &str, notice: Duration) -> bool {
        let now = self.clock.wall();
        let mut state = self.state.lock();
        let shutdown = Duration::from_secs(25 + state.delays.below(20));
        let told = later(now, notice);
        let gone = later(told, shutdown);
        let Some(record) = state.record_mut(id) else {
            return false;
        };
        // What was to go later anyway (a spot instance under notice) may be told to go sooner.
        if record.end.is_some_and(|(earlier, _)| earlier <= told) {
            return false;
        }
        record.end = Some((told, gone));
        drop(state);
        self.announce_end(id.to_owned(), told, gone);
        true
    }

    fn announce_end(self: &Arc<Self>, id: String, told: Timestamp, gone: Timestamp) {
        let tell = |inner: &Self, event: InstanceEvent| inner.state.lock().tell(&event);
        if told <= self.clock.wall() {
            tell(self, InstanceEvent::Terminating { id: id.clone() });
        }
        let inner = self.clone();
        tokio::spawn(async move {
            if inner.clock.wall() < told {
                inner.clock.sleep_until_wall(told).await;
                if !inner.still_ends_at(&id, gone) {
                    return;
                }
                tell(&inner, InstanceEvent::Terminating { id: id.clone() });
            }
            inner.clock.sleep_until_wall(gone).await;
            if inner.still_ends_at(&id, gone) {
                tell(&inner, InstanceEvent::Terminated { id });
            }
        });
    }

    /// Whether nothing has brought the end forward since.
    fn still_ends_at(&self, id: &str, gone: Timestamp) -> bool {
        let state = self.state.lock();
        state
            .record(id)
            .and_then(|r| r.end)
            .is_some_and(|(_, g)| g == gone)
    }

    /// Counts a call and lets faults have their say.
    pub(crate) fn enter(&self, call: &'static str) -> Result<Verdict> {
        let now = self.clock.wall();
        let mut state = self.state.lock();
        *state.calls.entry(call).or_default() += 1;
        state.faults.on_call(call, now)
    }

    /// Hands an answer out, or loses it.
    pub(crate) async fn leave<T>(
        &self,
        call: &str,
        verdict: Verdict,
        answer: Result<T>,
    ) -> Result<T> {
        if verdict == Verdict::ProceedButLoseResponse {
            self.clock.sleep(LOST_RESPONSE_WAIT).await;
            return Err(Ec2Error::timeout(call));
        }
        answer
    }
}

pub(crate) fn later(at: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by)
        .ok()
        .and_then(|d| at.checked_add(d).ok())
        .unwrap_or(at)
}
