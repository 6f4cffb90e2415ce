//! Rules that hold at every moment, watched from outside while a story is told.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use karpenter_api::budget::{Budgets, reason};
use karpenter_api::{NodePool, Quantity, labels};
use karpenter_fake_kube::server::{Change, Subscription, gr};
use serde_json::Value;

use super::evictions::Evictions;
use super::listen::{Announced, Ear};
use crate::json::{condition, condition_field, label, name, text};
use crate::world::World;

/// How long a machine may be paid for without a NodeClaim: garbage collection looks every two minutes, and a launch whose
/// answer was lost is found by the next.
const OWNERLESS_SECONDS: i64 = 600;
/// How long a NodeClaim may be without a Node: it is given fifteen minutes, and some to be taken away.
const UNREGISTERED_SECONDS: i64 = 20 * 60;
/// How far back a budget may have been read that a disruption kept to: it is thought over for fifteen seconds, marked
/// under the worst of weather, and what is seen of it lags.
const BUDGET_SECONDS: i64 = 60;
/// How long after a change of prices nothing is said about them.
const PRICE_SECONDS: i64 = 900;
/// Group of our kinds.
const GROUP: &str = "karpenter.sh";

/// What was bought: type, zone, capacity type.
pub type Offering = (String, String, String);

/// What is known of a NodeClaim.
#[derive(Clone, Debug, Default)]
struct Claim {
    pool: String,
    reason: String,
    initialized: bool,
    leaving: bool,
    registered: bool,
    terminating: bool,
    created: Option<Timestamp>,
    cpu_millis: i64,
    offering: Option<Offering>,
}

/// A command that was begun.
#[derive(Clone, Debug)]
pub struct Move {
    /// Second.
    pub at: f64,
    /// What was said.
    pub announced: Announced,
    /// What the candidates were.
    pub was: Vec<Offering>,
    /// What they cost, in dollars per hour.
    pub before: f64,
    /// What replacements became, as far as they were bought, and when.
    pub became: BTreeMap<String, (Offering, f64)>,
    /// What those cost.
    pub after: f64,
    /// When the last of the candidates was gone.
    pub gone: Option<f64>,
}

/// See the module.
pub struct Watch {
    claims: BTreeMap<String, Claim>,
    pools: BTreeMap<String, NodePool>,
    /// Number of changes seen; the order of things.
    order: u64,
    /// When claims were initialized first, and when they began to leave; claims that are gone, too.
    ready: BTreeMap<String, u64>,
    left: BTreeMap<String, u64>,
    /// What budgets allowed lately: when, pool, reason, how many.
    allowed: Vec<(Timestamp, String, &'static str, usize)>,
    /// Pools that ever had drift: replacements of it may exceed limits.
    drifted: BTreeSet<String>,
    ownerless: BTreeMap<String, Timestamp>,
    /// Begun commands, oldest first.
    pub moves: Vec<Move>,
    prices_changed: Option<Timestamp>,
    pool_changes: Subscription,
    claim_changes: Subscription,
    events: Subscription,
    evictions: Evictions,
    ear: Ear,
    /// Second in which a claim last came, went or was to go.
    pub last_change: f64,
    /// What was broken, each once.
    pub broken: Vec<String>,
}

impl Watch {
    /// Watches `world` from now on; `ear` hears its controller.
    #[must_use]
    pub fn new(world: &World, ear: Ear) -> Self {
        let api = &world.api;
        Self {
            claims: BTreeMap::new(),
            pools: BTreeMap::new(),
            order: 0,
            ready: BTreeMap::new(),
            left: BTreeMap::new(),
            allowed: Vec::new(),
            drifted: BTreeSet::new(),
            ownerless: BTreeMap::new(),
            moves: Vec::new(),
            prices_changed: None,
            pool_changes: api.subscribe(gr(GROUP, "nodepools")),
            claim_changes: api.subscribe(gr(GROUP, "nodeclaims")),
            events: api.subscribe(gr("", "events")),
            evictions: Evictions::new(api),
            ear,
            last_change: 0.0,
            broken: Vec::new(),
        }
    }

    /// Prices change now, by the story's own doing.
    pub fn prices_change(&mut self, world: &World) {
        self.prices_changed = Some(world.clock.wall());
    }

    /// Takes in what has happened since the last look: to be called every second or so.
    pub fn look(&mut self, world: &World) {
        let now = world.clock.wall();
        while let Some(change) = self.pool_changes.try_next() {
            self.pool(&change);
        }
        self.remember_budgets(now);
        for announced in self.ear.heard() {
            self.begun(world, announced);
        }
        while let Some(change) = self.claim_changes.try_next() {
            self.order += 1;
            self.claim(world, &change, now);
        }
        while let Some(change) = self.events.try_next() {
            self.event(world, &change);
        }
        for (rule, what) in self.evictions.look(&world.pod_deletes(), now) {
            self.breaks(world, rule, &what);
        }
        self.endless(world, now);
    }

    fn breaks(&mut self, world: &World, rule: &str, what: &str) {
        let text = format!("{rule}: {what}");
        if !self.broken.iter().any(|b| b.ends_with(&text)) {
            self.broken.push(format!("{:.3}s {text}", world.elapsed()));
        }
    }

    fn pool(&mut self, change: &Change) {
        match change {
            Change::Added(object) | Change::Modified(object) => {
                if let Ok(pool) = serde_json::from_value::<NodePool>(Value::clone(object)) {
                    self.pools.insert(name(object).to_owned(), pool);
                }
            }
            Change::Deleted(object) => {
                self.pools.remove(name(object));
            }
        }
    }

    /// Nodes of a pool that its budgets count.
    fn total(&self, pool: &str) -> usize {
        let all = self.claims.values();
        all.filter(|c| c.pool == pool && c.initialized && !c.terminating)
            .count()
    }

    fn remember_budgets(&mut self, now: Timestamp) {
        self.allowed
            .retain(|(at, ..)| now.duration_since(*at).as_secs() <= BUDGET_SECONDS);
        for (pool_name, pool) in &self.pools {
            let total = self.total(pool_name);
            for reason in reason::ALL {
                let allowed = Budgets::of(&pool.spec.disruption).allowed(reason, total, now);
                let same = |(_, p, r, a): &&mut (Timestamp, String, &'static str, usize)| {
                    p == pool_name && *r == reason && *a == allowed
                };
                match self.allowed.iter_mut().find(same) {
                    Some(known) => known.0 = now,
                    None => self.allowed.push((now, pool_name.clone(), reason, allowed)),
                }
            }
        }
    }

    fn claim(&mut self, world: &World, change: &Change, now: Timestamp) {
        let (Change::Added(object) | Change::Modified(object) | Change::Deleted(object)) = change;
        let claim_name = name(object).to_owned();
        if matches!(change, Change::Deleted(_)) {
            self.claims.remove(&claim_name);
            self.left.entry(claim_name.clone()).or_insert(self.order);
            self.last_change = world.elapsed();
            let at = world.elapsed();
            for m in &mut self.moves {
                if m.announced.candidates.contains(&claim_name) {
                    m.gone = Some(at);
                }
            }
            return;
        }
        let before = self.claims.get(&claim_name).cloned();
        let is = |kind| condition(object, kind) == "True";
        let why = condition_field(object, "DisruptionReason", "reason");
        let launched = is("Launched").then(|| {
            (
                label(object, labels::INSTANCE_TYPE).to_owned(),
                label(object, labels::ZONE).to_owned(),
                label(object, labels::CAPACITY_TYPE).to_owned(),
            )
        });
        let claim = Claim {
            pool: label(object, labels::NODEPOOL).to_owned(),
            reason: if is("DisruptionReason") { why } else { "" }.to_owned(),
            initialized: is("Initialized"),
            leaving: !text(object, "/metadata/deletionTimestamp").is_empty(),
            registered: is("Registered"),
            terminating: is("InstanceTerminating"),
            created: text(object, "/metadata/creationTimestamp").parse().ok(),
            cpu_millis: millis(text(object, "/status/capacity/cpu")),
            offering: launched,
        };
        if is("Drifted") {
            self.drifted.insert(claim.pool.clone());
        }
        if claim.initialized {
            self.ready.entry(claim_name.clone()).or_insert(self.order);
        }
        if claim.leaving {
            self.left.entry(claim_name.clone()).or_insert(self.order);
        }
        let was = before.clone().unwrap_or_default();
        if before.is_none() || claim.leaving != was.leaving || claim.reason != was.reason {
            self.last_change = world.elapsed();
        }
        if let (None, Some(offering)) = (&was.offering, &claim.offering) {
            self.bought(world, &claim_name, offering, now);
        }
        let marked = was.reason.is_empty() && !claim.reason.is_empty();
        let pool = claim.pool.clone();
        let reason = claim.reason.clone();
        self.claims.insert(claim_name, claim);
        if marked {
            self.keeps_budget(world, &pool, &reason);
        }
    }

    /// A claim of the pool has just been marked for disruption.
    fn keeps_budget(&mut self, world: &World, pool: &str, reason: &str) {
        let marked = |c: &&Claim| c.pool == pool && !c.reason.is_empty() && !c.terminating;
        let disrupting = self.claims.values().filter(marked).count();
        let allowed = self.allowed.iter();
        let allowed = allowed
            .filter(|(_, p, r, _)| p == pool && *r == reason)
            .map(|(.., n)| *n)
            .max();
        // What is looked at late was decided when the pool was as it has come to be by now.
        let at_least = self.pools.get(pool).map(|p| {
            let total = self.total(pool);
            Budgets::of(&p.spec.disruption).allowed(reason, total, world.clock.wall())
        });
        let allowed = allowed.max(at_least);
        if let Some(allowed) = allowed
            && disrupting > allowed
        {
            let what = format!("NodePool {pool}: {disrupting} at once for {reason}, of {allowed}");
            self.breaks(world, "budgets are kept", &what);
        }
    }

    fn begun(&mut self, world: &World, announced: Announced) {
        let was: Vec<Offering> = announced
            .candidates
            .iter()
            .filter_map(|c| self.claims.get(c)?.offering.clone())
            .collect();
        self.moves.push(Move {
            at: world.elapsed(),
            before: was.iter().map(|o| price(world, o)).sum(),
            was,
            announced,
            became: BTreeMap::new(),
            after: 0.0,
            gone: None,
        });
    }

    /// A claim has become a machine.
    fn bought(&mut self, world: &World, claim: &str, offering: &Offering, now: Timestamp) {
        let paid = price(world, offering);
        let calm = self
            .prices_changed
            .is_none_or(|at| now.duration_since(at).as_secs() > PRICE_SECONDS);
        let of = |m: &&mut Move| m.announced.replacements.iter().any(|r| r == claim);
        let Some(command) = self.moves.iter_mut().rev().find(of) else {
            return;
        };
        let became = (offering.clone(), world.elapsed());
        command.became.insert(claim.to_owned(), became);
        command.after += paid;
        let dearer = command.after >= command.before;
        let what = format!(
            "{}, bought at ${:.4}/h",
            command.announced.text, command.after
        );
        let known = command.was.len() == command.announced.candidates.len();
        if command.announced.reason() == reason::UNDERUTILIZED && dearer && calm && known {
            self.breaks(world, "consolidation never costs more", &what);
        }
    }

    fn event(&mut self, world: &World, change: &Change) {
        let (Change::Added(event) | Change::Modified(event)) = change else {
            return;
        };
        if text(event, "/reason") != "DisruptionTerminating"
            || text(event, "/involvedObject/kind") != "NodeClaim"
        {
            return;
        }
        let gone = text(event, "/involvedObject/name");
        let of = |m: &&Move| m.announced.candidates.iter().any(|c| c == gone);
        let Some(command) = self.moves.iter().rev().find(of) else {
            return;
        };
        let left = self.left.get(gone).copied().unwrap_or(u64::MAX);
        let early = |r: &&String| self.ready.get(*r).is_none_or(|ready| *ready > left);
        let missing: Vec<&String> = command
            .announced
            .replacements
            .iter()
            .filter(early)
            .collect();
        if !missing.is_empty() {
            let what = format!("{gone} left before {missing:?} was initialized");
            self.breaks(world, "replacements come first", &what);
        }
    }

    /// What lasts longer than it may.
    fn endless(&mut self, world: &World, now: Timestamp) {
        let age = |at: Option<Timestamp>| at.map_or(0, |at| now.duration_since(at).as_secs());
        let stuck = self
            .claims
            .iter()
            .find(|(_, c)| !c.registered && !c.leaving && age(c.created) > UNREGISTERED_SECONDS)
            .map(|(name, _)| name.clone());
        if let Some(stuck) = stuck {
            self.breaks(world, "every NodeClaim has an end", &stuck);
        }
        let owned: BTreeSet<String> = world
            .api
            .list(gr(GROUP, "nodeclaims"), None)
            .iter()
            .map(|c| text(c, "/status/providerID").to_owned())
            .collect();
        let machines = world.machines();
        let stray: BTreeSet<String> = machines
            .into_iter()
            .map(|m| m.provider_id)
            .filter(|id| !owned.contains(id))
            .collect();
        self.ownerless.retain(|id, _| stray.contains(id));
        for id in stray {
            let since = *self.ownerless.entry(id.clone()).or_insert(now);
            if now.duration_since(since).as_secs() > OWNERLESS_SECONDS {
                self.breaks(world, "every machine has an owner", &id);
            }
        }
        let mut over = Vec::new();
        for (pool_name, pool) in &self.pools {
            let Some(limit) = pool.spec.limits.as_ref().and_then(|l| l.get("cpu")) else {
                continue;
            };
            let limit = millis(&limit.0);
            // What leaves does not count towards limits, however long it takes: what replaces it may be there before.
            let of = |c: &&Claim| c.pool == *pool_name && !c.leaving;
            let used: i64 = self.claims.values().filter(of).map(|c| c.cpu_millis).sum();
            if used > limit && !self.drifted.contains(pool_name) {
                over.push(format!(
                    "NodePool {pool_name} has {used}m of cpu, of {limit}m"
                ));
            }
        }
        for what in over {
            self.breaks(world, "limits are kept", &what);
        }
    }
}

/// Thousandths of a core.
fn millis(text: &str) -> i64 {
    text.parse::<Quantity>().map_or(0, Quantity::millis)
}

/// Dollars per hour now; 0 where it is not sold any more.
#[must_use]
pub fn price(world: &World, offering: &Offering) -> f64 {
    let (instance_type, zone, capacity_type) = offering;
    world.price(instance_type, zone, capacity_type)
}
