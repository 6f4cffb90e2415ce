//! What a simulation plans on (`lifecycle-and-disruption.md` §6.5): the question of a provisioning run, in parts, so
//! that it can be asked again without some of the nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use karpenter_model::disruption::Pdb;
use karpenter_model::storage::VolumeLimits;
use karpenter_model::{
    LabelRegistry, Namespaces, NodeView, Plan, Pod, PodKey, PoolView, Problem, ResourceList,
    SolveOptions,
};
use karpenter_solver::Cluster;

use super::candidate::Candidate;
use super::method::Replacement;
use super::snapshot::{Facts, Pool};
use crate::provisioning::meter::Meter;
use crate::provisioning::{pools as pool_views, problem};

/// Pods named in a refusal.
const PODS_NAMED: usize = 5;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ground {
    /// Pods that wait for a node.
    pending: Vec<Arc<Pod>>,
    /// Pods on nodes that leave.
    leaving: Vec<Arc<Pod>>,
    /// Chunks of capacity buffers: wherever pods are to go, there has to be room for them too.
    chunks: Vec<Arc<Pod>>,
    /// The chunks that have room on nodes that could take a pod now, and the claim behind that node.
    seated: BTreeMap<PodKey, Arc<str>>,
    /// Nodes and claims that stay.
    nodes: Vec<Arc<NodeView>>,
    /// The same made ready for simulations, each of which then costs what its own pods cost.
    cluster: Arc<Cluster>,
    /// Positions of nodes, by claim.
    by_claim: BTreeMap<Arc<str>, Vec<usize>>,
    /// Nodes of ours that are not initialized, by name, with their claims.
    starting: BTreeMap<Arc<str>, Arc<str>>,
    /// Nodes of ours that are ready and have no pod that would come back elsewhere, by name, with their claims.
    idle: BTreeMap<Arc<str>, Arc<str>>,
    /// Pools to buy from; their usage is that of all `nodes` and of those `marked`.
    pub(crate) pools: Vec<Arc<PoolView>>,
    /// Other commands' candidates that wait for their replacements.
    marked: Vec<Arc<NodeView>>,
    daemons: Vec<Arc<Pod>>,
    volume_limits: Arc<BTreeMap<Arc<str>, VolumeLimits>>,
    namespaces: Arc<Namespaces>,
    pub(crate) labels: Arc<LabelRegistry>,
    options: SolveOptions,
    /// What simulations are measured by.
    meter: Option<Meter>,
}

/// What becomes of the pods of candidates when those are gone.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Machines that would have to be bought.
    pub(crate) replacements: Vec<Replacement>,
    /// Why pods would have no place; empty if all have one.
    pub(crate) failures: Vec<String>,
    /// The same of chunks of capacity buffers that have room now.
    pub(crate) buffer_failures: Vec<String>,
    /// The pods, chunks left aside, that would have no place.
    pub(crate) stuck: Vec<PodKey>,
    /// Claims of nodes without a pod of their own that candidates' pods would go to.
    pub(crate) onto_idle: Vec<Arc<str>>,
}

/// How candidates' resources count against limits of pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limits {
    /// The candidates run on until their replacements are there, and count.
    Hold,
    /// The candidates, and those of other commands, are as good as gone.
    Ignore,
}

/// On what terms replacements are planned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) limits: Limits,
    /// Whether as few machines as will do are wanted, be they dearer together.
    pub(crate) fewest_machines: bool,
}

impl Ground {
    /// Of the cluster as it is.
    pub(crate) fn new(
        facts: Facts<'_>,
        pools: &BTreeMap<Arc<str>, Pool>,
        meter: Option<&Meter>,
        now: Timestamp,
    ) -> Self {
        let registry = facts.labels;
        let pods = problem::collect(facts.state, registry, now);
        let stocked: Vec<problem::Stocked> = pools
            .values()
            .filter_map(|p| {
                let why = pool_views::unusable(&p.pool, facts.node_class);
                let is_static = why == Some(pool_views::Unusable::Static);
                (why.is_none() || is_static).then(|| problem::Stocked {
                    pool: p.pool.clone(),
                    types: Arc::new(p.types.values().cloned().collect()),
                    buys: !is_static,
                })
            })
            .collect();
        let nodes = problem::nodes(facts.state, &stocked, registry);
        let marked = facts.state.marked_nodes();
        let views = problem::pool_views(facts.state, &nodes, &marked, &stocked, registry);
        let mut by_claim: BTreeMap<Arc<str>, Vec<usize>> = BTreeMap::new();
        for (at, node) in nodes.iter().enumerate() {
            if let Some(claim) = &node.node_claim {
                by_claim.entry(claim.clone()).or_default().push(at);
            }
        }
        let starting = nodes.iter().filter(|n| n.managed && !n.initialized);
        let idle = nodes
            .iter()
            .filter(|n| n.managed && n.initialized && !n.pods.iter().any(|p| p.is_reschedulable()));
        let mut ground = Self {
            cluster: Arc::new(Cluster::new(&nodes).knowing(facts.wares)),
            by_claim,
            starting: starting
                .map(|n| (n.name.clone(), n.node_claim.clone().unwrap_or_default()))
                .collect(),
            idle: idle
                .filter_map(|n| Some((n.name.clone(), n.node_claim.clone()?)))
                .collect(),
            pending: pods.pending,
            leaving: pods.leaving,
            chunks: pods.chunks.pods,
            seated: BTreeMap::new(),
            nodes,
            pools: views,
            marked,
            daemons: facts.state.daemons(),
            volume_limits: facts.state.volume_limits(),
            namespaces: facts.state.namespaces(),
            labels: registry.clone(),
            options: problem::options(facts.settings),
            meter: meter.cloned(),
        };
        ground.seat();
        ground
    }

    /// Finds out where the chunks have room as things are.
    fn seat(&mut self) {
        if self.chunks.is_empty() {
            return;
        }
        let plan = self.plan(Timestamp::UNIX_EPOCH);
        let chunks: BTreeSet<&PodKey> = self.chunks.iter().map(|p| &p.key).collect();
        let ready: BTreeMap<&str, &Arc<str>> = self
            .nodes
            .iter()
            .filter(|n| n.initialized)
            .map(|n| (&*n.name, n.node_claim.as_ref().unwrap_or(&n.name)))
            .collect();
        let mut seated = BTreeMap::new();
        for placement in &plan.existing {
            if let Some(claim) = ready.get(&*placement.node) {
                let here = placement.pods.iter().filter(|p| chunks.contains(p));
                seated.extend(here.map(|p| (p.clone(), (*claim).clone())));
            }
        }
        self.seated = seated;
    }

    /// How many chunks of capacity buffers have room on each node, by claim.
    pub(crate) fn buffer_pods(&self) -> BTreeMap<Arc<str>, usize> {
        let mut counts = BTreeMap::new();
        for claim in self.seated.values() {
            *counts.entry(claim.clone()).or_default() += 1;
        }
        counts
    }

    /// Plans for the pods that wait, as the cluster is.
    pub(crate) fn plan(&self, now: Timestamp) -> Plan {
        let problem = self.problem(&[], &BTreeMap::new(), Limits::Hold, now);
        karpenter_solver::solve_without(&problem, &self.cluster, &[])
    }

    /// Plans as if `candidates` were gone.
    pub(crate) fn without(
        &self,
        candidates: &[&Candidate],
        pdbs: &BTreeMap<Arc<str>, Vec<Pdb>>,
        terms: Terms,
        now: Timestamp,
    ) -> Outcome {
        let mut problem = self.problem(candidates, pdbs, terms.limits, now);
        problem.options.fewest_machines = terms.fewest_machines;
        let gone: Vec<usize> = self.positions(candidates).collect();
        let solve = || karpenter_solver::solve_without(&problem, &self.cluster, &gone);
        let plan = match &self.meter {
            Some(meter) => meter.timed(problem.pods.len(), solve),
            None => solve(),
        };
        let (failures, buffer_failures) = self.failures(&plan);
        Outcome {
            failures,
            buffer_failures,
            replacements: self.replacements(&plan),
            onto_idle: self.onto_idle(&plan, candidates),
            stuck: plan.unschedulable.into_iter().map(|u| u.pod).collect(),
        }
    }

    /// Where candidates' nodes are.
    fn positions(&self, candidates: &[&Candidate]) -> impl Iterator<Item = usize> {
        let nodes = candidates.iter().filter_map(|c| self.by_claim.get(&c.name));
        nodes.flatten().copied()
    }

    /// The question, nodes apart.
    fn problem(
        &self,
        candidates: &[&Candidate],
        pdbs: &BTreeMap<Arc<str>, Vec<Pdb>>,
        limits: Limits,
        now: Timestamp,
    ) -> Problem {
        let moved = candidates.iter().flat_map(|c| &c.pods).filter(|p| {
            let here = pdbs.get(&p.key.namespace).into_iter().flatten();
            p.is_currently_reschedulable(here, now)
        });
        let mut freed: BTreeMap<&Arc<str>, ResourceList> = BTreeMap::new();
        if limits == Limits::Ignore {
            let own = self.positions(candidates);
            let own = own.filter_map(|at| self.nodes.get(at));
            for node in own.chain(&self.marked) {
                if let Some(pool) = &node.node_pool {
                    freed.entry(pool).or_default().add(&node.capacity);
                }
            }
        }
        let pools = self.pools.iter().map(|pool| match freed.get(&pool.name) {
            None => pool.clone(),
            Some(freed) => {
                let mut view = (**pool).clone();
                view.usage.subtract(freed);
                Arc::new(view)
            }
        });
        Problem {
            pods: self
                .pending
                .iter()
                .chain(&self.leaving)
                .chain(moved)
                .chain(&self.chunks)
                .cloned()
                .collect(),
            nodes: Vec::new(),
            pools: pools.collect(),
            daemons: self.daemons.clone(),
            volume_limits: self.volume_limits.clone(),
            namespaces: self.namespaces.clone(),
            labels: self.labels.clone(),
            options: self.options,
        }
    }

    /// Why pods, and why chunks of buffers, that have a place now would have none. Pods that wait anyway do not count.
    fn failures(&self, plan: &Plan) -> (Vec<String>, Vec<String>) {
        let standing = self
            .chunks
            .iter()
            .filter(|p| !self.seated.contains_key(&p.key));
        let waiting: BTreeSet<&PodKey> = self
            .pending
            .iter()
            .chain(standing)
            .map(|p| &p.key)
            .collect();
        let leaving: BTreeSet<&PodKey> = self.leaving.iter().map(|p| &p.key).collect();
        let excused = |p: &PodKey| waiting.contains(p) || leaving.contains(p);
        let (mut failures, mut of_buffers) = (Vec::new(), Vec::new());
        let mut fails = |pod: &PodKey, text: String| {
            if self.seated.contains_key(pod) {
                of_buffers.push(text);
            } else {
                failures.push(text);
            }
        };
        for u in plan
            .unschedulable
            .iter()
            .filter(|u| !waiting.contains(&u.pod))
        {
            fails(&u.pod, format!("{} => {}", u.pod, u.reason));
        }
        for placement in &plan.existing {
            let node = &placement.node;
            let Some(claim) = self.starting.get(node) else {
                continue;
            };
            for pod in placement.pods.iter().filter(|p| !excused(p)) {
                fails(
                    pod,
                    format!(
                        "{pod} => would schedule against uninitialized nodeclaim/{claim}, node/{node}"
                    ),
                );
            }
        }
        if plan.cut_off {
            failures.push("the plan was cut off before every pod was looked at".to_owned());
        }
        (failures, of_buffers)
    }

    fn onto_idle(&self, plan: &Plan, candidates: &[&Candidate]) -> Vec<Arc<str>> {
        if self.idle.is_empty() {
            return Vec::new();
        }
        let pods = candidates.iter().flat_map(|c| &c.pods);
        let moved: BTreeSet<&PodKey> = pods.map(|p| &p.key).collect();
        let taken = plan.existing.iter().filter_map(|placement| {
            let claim = self.idle.get(&placement.node)?;
            placement
                .pods
                .iter()
                .any(|p| moved.contains(p))
                .then(|| claim.clone())
        });
        taken.collect()
    }

    fn replacements(&self, plan: &Plan) -> Vec<Replacement> {
        let pool = |name: &str| self.pools.iter().find(|p| &*p.name == name);
        plan.new_nodes
            .iter()
            .filter_map(|planned| {
                Some(Replacement {
                    pool: pool(&planned.pool)?.clone(),
                    planned: planned.clone(),
                    from_template: false,
                })
            })
            .collect()
    }
}

/// What keeps pods from moving, as one sentence.
pub(crate) fn sentence(failures: &[String]) -> String {
    let named: Vec<&str> = failures
        .iter()
        .take(PODS_NAMED)
        .map(String::as_str)
        .collect();
    let others = failures.len().saturating_sub(named.len());
    let mut text = format!("not all pods would schedule, {}", named.join(" "));
    if others > 0 {
        text.push_str(&format!(" and {others} other(s)"));
    }
    text
}
