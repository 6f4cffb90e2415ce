//! Which nodes to look at together, where no prefix of an ordering will do: those whose pods the solver would put on
//! cheaper machines if it could begin anew. One plan for all of them says what each node's pods are worth, and who would
//! share machines; a bounded number of sets made of that is then looked at in earnest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use karpenter_model::{Pod, PodKey};
use karpenter_solver::abreast;

use super::allowance::Allowance;
use super::candidate::Candidate;
use super::consolidation::{self, Most};
use super::ground::{Limits, Terms};
use super::method::Replacement;
use super::multi::{KIND, Search};
use super::room;
use super::snapshot::Snapshot;

/// Most nodes that are planned anew at once.
pub(super) const WINDOW: usize = 100;
/// Sets that are looked at.
const MAX_SETS: usize = 6;
/// Nodes that are left out of a set one after the other because they are what would be bought.
const MAX_SPARED: usize = 3;
/// What a set has to promise for it to be looked at, as a share of its price: what moves cost is hardly less.
const LEAST_PROMISE: f64 = 0.01;

/// The best of the sets within `budgets`.
pub(super) fn search(snapshot: &Snapshot, window: &[Candidate], budgets: &Allowance) -> Search {
    if window.len() < 2 {
        return Search::default();
    }
    let sets = Dream::of(snapshot, window).sets(window, budgets);
    let ask = |set: &Vec<usize>| {
        let set = set.iter().filter_map(|at| window.get(*at)).collect();
        refine(snapshot, set)
    };
    let mut search = Search::default();
    for other in abreast(snapshot.threads, &sets, ask) {
        search.add(other);
    }
    search
}

/// Looks at a set, and again without a node that is what would be bought.
fn refine(snapshot: &Snapshot, mut set: Vec<&Candidate>) -> Search {
    for _ in 0..=MAX_SPARED {
        if set.len() < 2 {
            break;
        }
        match consolidation::compute(snapshot, &set, KIND, Most::AsManyAsGo) {
            Ok(command) => return Search::of(snapshot, command),
            Err(stays) => match stays.spare {
                Some(spare) => set.retain(|c| c.name != spare),
                None => break,
            },
        }
    }
    Search::default()
}

/// What would be bought if all nodes of a window were gone.
struct Dream {
    /// By node: what it costs beyond its pods' share of the machines.
    gains: Vec<f64>,
    /// By machine: the nodes whose pods it would hold.
    sources: Vec<BTreeSet<usize>>,
}

impl Dream {
    fn of(snapshot: &Snapshot, window: &[Candidate]) -> Self {
        let all: Vec<&Candidate> = window.iter().collect();
        // Nobody buys all of it at once: limits are looked at when there is something to buy.
        let terms = Terms {
            limits: Limits::Ignore,
            fewest_machines: false,
        };
        let ground = &snapshot.ground;
        let outcome = ground.without(&all, &snapshot.pdbs, terms, snapshot.taken);
        let mut owners: BTreeMap<&PodKey, (usize, &Arc<Pod>)> = BTreeMap::new();
        for (at, candidate) in window.iter().enumerate() {
            owners.extend(candidate.pods.iter().map(|p| (&p.key, (at, p))));
        }
        let mut gains: Vec<f64> = window.iter().map(|c| c.price).collect();
        // A node with a pod that could go nowhere stays.
        for (at, _) in outcome.stuck.iter().filter_map(|p| owners.get(p)) {
            if let Some(gain) = gains.get_mut(*at) {
                *gain = f64::NEG_INFINITY;
            }
        }
        let sources = outcome.replacements.iter().map(|machine| {
            let shares = shares(machine, &owners);
            for (at, share) in &shares {
                if let Some(gain) = gains.get_mut(*at) {
                    *gain -= share * machine.planned.cheapest.price;
                }
            }
            shares.into_keys().collect()
        });
        let sources = sources.collect();
        Self { gains, sources }
    }

    fn gain(&self, at: usize) -> f64 {
        self.gains.get(at).copied().unwrap_or(f64::NEG_INFINITY)
    }

    /// Sets of nodes that promise to be cheaper together, the most promising first.
    fn sets(&self, window: &[Candidate], budgets: &Allowance) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..window.len())
            .filter(|at| self.gain(*at) > 0.0)
            .collect();
        order.sort_by(|a, b| self.gain(*b).total_cmp(&self.gain(*a)).then(a.cmp(b)));
        // As many of some nodes as budgets let go, those that gain most first.
        let within = |wanted: &dyn Fn(usize) -> bool| {
            let mut budgets = budgets.clone();
            let may = |at: &usize| {
                let candidate = window.get(*at);
                wanted(*at) && candidate.is_some_and(|c| budgets.take(&c.pool_name))
            };
            order.iter().copied().filter(may).collect::<Vec<usize>>()
        };
        let all = within(&|_| true);
        let mut sets = vec![all.clone()];
        let mut half = all.len() / 2;
        while half >= 2 {
            sets.push(all.iter().copied().take(half).collect());
            half /= 2;
        }
        for group in self.sources.iter().chain(&self.groups()) {
            sets.push(within(&|at| group.contains(&at)));
        }
        let price = |at: &usize| window.get(*at).map_or(0.0, |c| c.price);
        let mut promising: Vec<(f64, Vec<usize>)> = sets
            .into_iter()
            .filter(|set| set.len() >= 2)
            .map(|set| (set.iter().map(|at| self.gain(*at)).sum(), set))
            .filter(|(gain, set): &(f64, _)| {
                *gain >= LEAST_PROMISE * set.iter().map(price).sum::<f64>()
            })
            .collect();
        promising.sort_by(|(a, x), (b, y)| b.total_cmp(a).then_with(|| x.cmp(y)));
        promising.dedup_by(|(_, x), (_, y)| x == y);
        promising.truncate(MAX_SETS);
        promising.into_iter().map(|(_, set)| set).collect()
    }

    /// Nodes whose pods would share machines, directly or through others.
    fn groups(&self) -> Vec<BTreeSet<usize>> {
        let mut groups: Vec<BTreeSet<usize>> = Vec::new();
        for source in &self.sources {
            let mut joined = source.clone();
            groups.retain(|group| {
                let apart = group.is_disjoint(&joined);
                if !apart {
                    joined.extend(group);
                }
                apart
            });
            groups.push(joined);
        }
        groups
    }
}

/// Each node's share of a machine, by what its pods take of it; one in all.
fn shares(
    machine: &Replacement,
    owners: &BTreeMap<&PodKey, (usize, &Arc<Pod>)>,
) -> BTreeMap<usize, f64> {
    let mut shares: BTreeMap<usize, f64> = BTreeMap::new();
    for (at, pod) in machine.planned.pods.iter().filter_map(|p| owners.get(p)) {
        *shares.entry(*at).or_default() += room::share(&pod.requests, &machine.planned.requests);
    }
    let sum: f64 = shares.values().sum();
    let even = 1.0 / shares.len().max(1) as f64;
    for share in shares.values_mut() {
        *share = if sum > 0.0 { *share / sum } else { even };
    }
    shares
}
