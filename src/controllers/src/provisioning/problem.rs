//! Builds the question of one provisioning run from the state and the catalogue.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use jiff::Timestamp;
use karpenter_api::NodePool;
use karpenter_cloud::CloudProvider;
use karpenter_model::disruption::Pdb;
use karpenter_model::{
    InstanceType, LabelRegistry, NodeView, Pod, PodRefusal, PoolView, Problem, ResourceList,
    SolveOptions,
};
use karpenter_runtime::Settings;
use karpenter_state::Store;

use super::chunks::Chunks;
use super::{inflight, pools};
use crate::Context;

/// Work units of one run: far more than any batch needs, so that only a runaway is cut off (upstream cuts at 60 s).
const SOLVE_WORK_BUDGET: u64 = 200_000_000;

/// The pods of a run.
#[derive(Debug, Default)]
pub(crate) struct Pods {
    /// Waiting for a node.
    pub(crate) pending: Vec<Arc<Pod>>,
    /// On nodes that leave.
    pub(crate) leaving: Vec<Arc<Pod>>,
    /// Left out, and why.
    pub(crate) refused: Vec<(Arc<Pod>, PodRefusal)>,
    /// Chunks of capacity buffers, which exist in plans only.
    pub(crate) chunks: Chunks,
}

impl Pods {
    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.leaving.is_empty() && self.chunks.pods.is_empty()
    }
    /// Those that exist.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pending.iter().chain(&self.leaving)
    }
}

/// Collects the pods to plan for: those that wait and those whose node leaves, without those that a claim under way
/// was made for.
pub(crate) fn collect(state: &Store, registry: &LabelRegistry, now: Timestamp) -> Pods {
    let mut pods = Pods::default();
    for pod in state.for_planning(state.unplanned_pods(), registry) {
        match pod.refusal(registry) {
            None => pods.pending.push(pod),
            Some(why) => pods.refused.push((pod, why)),
        }
    }
    let mut on_leaving_nodes = Vec::new();
    leaving(state, now, |pod| {
        on_leaving_nodes.push(pod.clone());
        ControlFlow::Continue(())
    });
    pods.leaving = state.for_planning(on_leaving_nodes, registry);
    pods.chunks = Chunks::collect(state, registry);
    pods
}

/// Shows `look` the pods on nodes that leave which will need a place elsewhere and have none planned, until it has seen
/// enough: those of DaemonSets will not need one, those that a budget holds not now.
pub(super) fn leaving(
    state: &Store,
    now: Timestamp,
    mut look: impl FnMut(&Arc<Pod>) -> ControlFlow<()>,
) {
    let mut budgets: BTreeMap<Arc<str>, Vec<Pdb>> = BTreeMap::new();
    let nodes = state.leaving_nodes();
    let pods = nodes.iter().flat_map(|view| &view.pods);
    for pod in pods.filter(|p| p.node_name.is_some()) {
        let namespace = &pod.key.namespace;
        let here = budgets.entry(namespace.clone()).or_insert_with(|| {
            let raw = state.budgets_in(namespace);
            raw.iter().map(|b| Pdb::from_k8s(b)).collect()
        });
        if state.planned_claim(&pod.key).is_none()
            && pod.is_currently_reschedulable(here.iter(), now)
            && look(pod).is_break()
        {
            return;
        }
    }
}

/// A pool with what its provider sells for it.
pub(crate) struct Stocked {
    pub(crate) pool: Arc<NodePool>,
    pub(crate) types: Arc<Vec<Arc<InstanceType>>>,
    /// Whether pods may be planned onto new machines of it; of a static pool only claims under way are guessed at.
    pub(crate) buys: bool,
}

/// Asks the provider what each usable pool can buy; a pool whose answer is an error is left out and reported.
pub(crate) async fn stock(ctx: &Context) -> (Vec<Stocked>, bool) {
    let (mut stocked, mut failed) = (Vec::new(), false);
    for pool in ctx.state.node_pools() {
        let name = pool.metadata.name.as_deref().unwrap_or_default();
        let why = pools::unusable(&pool, &ctx.provider.node_class);
        let launching = || {
            let claims = ctx.state.active_claims(name);
            claims.iter().any(|c| c.status.provider_id.is_empty())
        };
        let guessed = why == Some(pools::Unusable::Static) && launching();
        if let Some(why) = why.filter(|_| !guessed) {
            if why == pools::Unusable::NotReady {
                tracing::debug!(NodePool = %name, "ignoring nodepool, not ready");
            }
            continue;
        }
        match ctx.provider.cloud.instance_types(&pool).await {
            Ok(types) if types.is_empty() => {
                tracing::info!(
                    NodePool = %name,
                    "skipping, no resolved instance types found"
                );
            }
            Ok(types) => {
                let mut named = BTreeSet::new();
                if let Some(twice) = types.iter().find(|t| !named.insert(&t.name)) {
                    tracing::warn!(
                        NodePool = %name,
                        "instance-type" = %twice.name,
                        "instance type is listed twice, the first one counts"
                    );
                }
                stocked.push(Stocked {
                    pool,
                    types,
                    buys: !guessed,
                });
            }
            Err(error) => {
                failed = true;
                count_error(ctx, &*ctx.provider.cloud, &error);
                tracing::error!(
                    NodePool = %name,
                    error = %error,
                    "skipping, unable to resolve instance types"
                );
            }
        }
    }
    (stocked, failed)
}

fn count_error(ctx: &Context, cloud: &dyn CloudProvider, error: &karpenter_cloud::CloudError) {
    ctx.metrics.inc(
        "karpenter_cloudprovider_errors_total",
        &[
            ("controller", super::CONTROLLER),
            ("method", "GetInstanceTypes"),
            ("provider", cloud.name()),
            ("error", error.metric_label()),
        ],
    );
}

/// Nodes and claims that may take pods. Claims without a machine are guessed at with the types of their pools.
pub(crate) fn nodes(
    state: &Store,
    stocked: &[Stocked],
    registry: &LabelRegistry,
) -> Vec<Arc<NodeView>> {
    let nodes = state.problem_nodes(&BTreeSet::new());
    nodes
        .into_iter()
        .map(|view| match claim_and_types(state, &view, stocked) {
            Some((claim, types)) => Arc::new(inflight::guess(&view, &claim, types, registry)),
            None => view,
        })
        .collect()
}

/// Of an unlaunched claim's view: the claim and the types of its pool.
fn claim_and_types<'a>(
    state: &Store,
    view: &NodeView,
    stocked: &'a [Stocked],
) -> Option<(Arc<karpenter_api::NodeClaim>, &'a [Arc<InstanceType>])> {
    if !inflight::is_unlaunched(view) {
        return None;
    }
    let claim = state.node_claim(view.node_claim.as_deref()?)?;
    let types = stocked
        .iter()
        .find(|s| s.pool.metadata.name.as_deref() == view.node_pool.as_deref())
        .map_or(&[][..], |s| &s.types);
    Some((claim, types))
}

/// The pools as the solver sees them. Claims without a machine count with the most that they may come to hold; machines
/// that are marked for a command (`marked`) count until they are told to go: they stay if it is given up.
pub(crate) fn pool_views(
    state: &Store,
    nodes: &[Arc<NodeView>],
    marked: &[Arc<NodeView>],
    stocked: &[Stocked],
    registry: &LabelRegistry,
) -> Vec<Arc<PoolView>> {
    let mut usage: BTreeMap<Arc<str>, ResourceList> = BTreeMap::new();
    for view in nodes.iter().chain(marked) {
        let Some(pool) = &view.node_pool else {
            continue;
        };
        let most = claim_and_types(state, view, stocked)
            .and_then(|(claim, types)| inflight::largest(&claim, types, registry));
        usage
            .entry(pool.clone())
            .or_default()
            .add(&most.unwrap_or_else(|| view.capacity.clone()));
    }
    let mut views = Vec::new();
    for Stocked { pool, types, .. } in stocked.iter().filter(|s| s.buys) {
        let name = pool.metadata.name.as_deref().unwrap_or_default();
        let used = usage.get(name).cloned().unwrap_or_default();
        match pools::pool_view(pool, types.to_vec(), used, registry) {
            Ok(view) => views.push(Arc::new(view)),
            Err(error) => {
                tracing::error!(NodePool = %name, error = %error, "ignoring nodepool, invalid");
            }
        }
    }
    views
}

/// Puts the question together.
pub(crate) fn build(
    ctx: &Context,
    pods: &Pods,
    nodes: Vec<Arc<NodeView>>,
    pools: Vec<Arc<PoolView>>,
) -> Problem {
    Problem {
        pods: pods.all().chain(&pods.chunks.pods).cloned().collect(),
        nodes,
        pools,
        daemons: ctx.state.daemons(),
        volume_limits: ctx.state.volume_limits(),
        namespaces: ctx.state.namespaces(),
        labels: ctx.provider.labels.clone(),
        options: SolveOptions {
            threads: ctx.threads(),
            ..options(&ctx.settings)
        },
    }
}

pub(crate) fn options(settings: &Settings) -> SolveOptions {
    SolveOptions {
        respect_preferences: settings.respect_preferences,
        best_effort_min_values: settings.best_effort_min_values,
        ignore_dra: settings.ignore_dra_requests,
        reserved_capacity: settings.feature_gates.reserved_capacity,
        fewest_machines: false,
        node_cost: settings.node_cost,
        work_budget: SOLVE_WORK_BUDGET,
        threads: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_nobody_touched_plan_as_the_solver_does_by_itself() {
        let ours = options(&Settings::default());
        let expected = SolveOptions {
            work_budget: SOLVE_WORK_BUDGET,
            ..SolveOptions::default()
        };
        assert_eq!(ours, expected);
    }
}
