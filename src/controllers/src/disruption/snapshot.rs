//! What methods decide on: our machines with their pods, pools and prices, as they are at one moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use karpenter_api::{NodeClaim, NodePool};
use karpenter_cloud::NodeClassKind;
use karpenter_model::disruption::Pdb;
use karpenter_model::{InstanceType, LabelRegistry, Pod};
use karpenter_runtime::Settings;
use karpenter_solver::Wares;
use karpenter_state::{PoolCount, Store};

use super::ground::Ground;
use super::under_way::{Busy, Held};
use crate::Context;
use crate::lifecycle::objects::{is_managed_claim, name};
use crate::provisioning::meter::Meter;

/// A machine of ours.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// Name of the claim.
    pub(crate) name: Arc<str>,
    pub(crate) claim: Arc<NodeClaim>,
    /// Its Node, if exactly one has joined.
    pub(crate) node: Option<Arc<Node>>,
    /// Pods bound to it, ended ones too.
    pub(crate) pods: Vec<Arc<Pod>>,
    /// Whether it is on its way out.
    pub(crate) leaving: bool,
    /// Until when at most pods are expected on it, if any are.
    pub(crate) nominated_until: Option<Timestamp>,
    /// Whether a command about it is being carried out.
    pub(crate) queued: bool,
    /// What was to replace it failed of late.
    pub(crate) held: Option<Held>,
    /// Chunks of capacity buffers that have their room here.
    pub(crate) buffer_pods: usize,
}

/// A NodePool with what it could buy.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    pub(crate) pool: Arc<NodePool>,
    pub(crate) types: BTreeMap<Arc<str>, Arc<InstanceType>>,
    /// How its claims stand.
    pub(crate) count: PoolCount,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// In claim name order.
    pub(crate) members: Vec<Member>,
    pub(crate) pools: BTreeMap<Arc<str>, Pool>,
    /// By namespace.
    pub(crate) pdbs: BTreeMap<Arc<str>, Vec<Pdb>>,
    /// What a simulation plans on.
    pub(crate) ground: Ground,
    /// The same number: nothing has happened since that consolidation could act on.
    pub(crate) generation: u64,
    /// When it was taken.
    pub(crate) taken: Timestamp,
    /// Whether spot machines may be replaced by spot machines.
    pub(crate) spot_to_spot: bool,
    /// On how many threads it may be thought over.
    pub(crate) threads: usize,
}

impl Snapshot {
    /// The machine of a claim.
    pub(crate) fn member(&self, claim: &str) -> Option<&Member> {
        // They are in the order of their names.
        let found = self.members.binary_search_by(|m| (*m.name).cmp(claim));
        self.members.get(found.ok()?)
    }
}

/// What a cluster is looked at with: what is known of it, and nothing that could change it.
#[derive(Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) state: &'a Store,
    pub(crate) labels: &'a Arc<LabelRegistry>,
    pub(crate) node_class: &'a NodeClassKind,
    pub(crate) settings: &'a Settings,
    pub(crate) wares: &'a Wares,
}

impl<'a> Facts<'a> {
    fn of(ctx: &'a Context) -> Self {
        Self {
            state: &ctx.state,
            labels: &ctx.provider.labels,
            node_class: &ctx.provider.node_class,
            settings: &ctx.settings,
            wares: &ctx.wares,
        }
    }
}

/// Takes a snapshot; `busy` is what commands are about. A pool whose types cannot be told has none, which
/// keeps its nodes from being candidates.
pub(crate) async fn take(ctx: &Context, meter: &Meter, busy: &Busy) -> Snapshot {
    // Read first: what changes while the rest is read makes the next snapshot differ from this one.
    let generation = ctx.state.consolidation_generation();
    let mut types = BTreeMap::new();
    for pool in ctx.state.node_pools() {
        match ctx.provider.cloud.instance_types(&pool).await {
            Ok(sold) => {
                types.insert(name(&pool.metadata).into(), sold);
            }
            Err(error) => {
                let pool = name(&pool.metadata);
                tracing::error!(NodePool = pool, error = %error, "failed resolving instance types");
            }
        }
    }
    let now = ctx.clock.wall();
    let snapshot = assemble(Facts::of(ctx), &types, Some(meter), busy, now);
    Snapshot {
        generation,
        threads: ctx.threads(),
        ..snapshot
    }
}

/// The snapshot of what is known, with the types that are sold to each pool.
pub(crate) fn assemble(
    facts: Facts<'_>,
    types: &BTreeMap<Arc<str>, Arc<Vec<Arc<InstanceType>>>>,
    meter: Option<&Meter>,
    busy: &Busy,
    now: Timestamp,
) -> Snapshot {
    let state = facts.state;
    let generation = state.consolidation_generation();
    let mut pools = BTreeMap::new();
    for pool in state.node_pools() {
        let pool_name: Arc<str> = name(&pool.metadata).into();
        let sold = types.get(&pool_name).into_iter().flat_map(|t| t.iter());
        let types = sold.map(|t| (t.name.clone(), t.clone())).collect();
        let count = state.count_claims(&pool_name);
        pools.insert(pool_name, Pool { pool, types, count });
    }
    let window = nomination_window(facts.settings);
    let ground = Ground::new(facts, &pools, meter, now);
    let buffer_pods = ground.buffer_pods();
    let mut members = Vec::new();
    let mut pdbs: BTreeMap<Arc<str>, Vec<Pdb>> = BTreeMap::new();
    for claim in state.node_claims() {
        if !is_managed_claim(&claim, facts.node_class) {
            continue;
        }
        let mut nodes = state.nodes_by_provider_id(&claim.status.provider_id);
        let node = if nodes.len() == 1 { nodes.pop() } else { None };
        let node_name = node.as_ref().map(|n| name(&n.metadata).to_owned());
        let pods = node_name
            .as_deref()
            .map_or_else(Vec::new, |n| state.pods_on(n));
        let pods = state.for_planning(pods, facts.labels);
        for pod in &pods {
            let namespace = &pod.key.namespace;
            if !pdbs.contains_key(namespace) {
                let all = state.budgets_in(namespace);
                let all = all.iter().map(|b| Pdb::from_k8s(b)).collect();
                pdbs.insert(namespace.clone(), all);
            }
        }
        let claim_name: Arc<str> = name(&claim.metadata).into();
        let nominated = state.is_nominated(&claim_name, now)
            || node_name.is_some_and(|n| state.is_nominated(&n, now));
        members.push(Member {
            leaving: state.is_leaving(&claim_name),
            nominated_until: nominated.then(|| crate::lifecycle::objects::later(now, window)),
            queued: busy.queued.contains(&claim_name),
            held: busy.held.get(&claim_name).copied(),
            buffer_pods: buffer_pods.get(&claim_name).copied().unwrap_or_default(),
            name: claim_name,
            claim,
            node,
            pods,
        });
    }
    Snapshot {
        ground,
        members,
        pools,
        pdbs,
        generation,
        taken: now,
        spot_to_spot: facts.settings.feature_gates.spot_to_spot_consolidation,
        threads: 1,
    }
}

/// Longest a nomination made now lasts: twice the longest batch, at least ten seconds.
fn nomination_window(settings: &Settings) -> std::time::Duration {
    let batch = settings.batch_max_duration.saturating_mul(2);
    batch.max(std::time::Duration::from_secs(10))
}
