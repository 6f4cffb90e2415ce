//! Carries a plan out: creates its claims and names the nodes it counts on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use karpenter_api::{NodeClaim, labels};
use karpenter_model::plan::PlannedNode;
use karpenter_model::{Plan, Pod, PodKey, PoolView, Problem, resources};
use kube::Api;
use kube::api::{ListParams, PostParams};

use super::{claim, events, limits};
use crate::Context;

/// Most claims created at a time.
const MAX_PARALLEL_CREATES: usize = 100;
/// Tries at finding out whether a claim was created when the API server did not say so, and the wait between them.
const READ_ATTEMPTS: u32 = 8;
const READ_WAIT: Duration = Duration::from_secs(1);
/// Instance types named in a log line; the others are counted.
const TYPES_NAMED: usize = 5;

/// The problem's pods by key.
type Pods<'a> = BTreeMap<&'a PodKey, &'a Pod>;

/// What became of a plan.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Nodes and claims that pods were planned onto.
    pub(super) nominated: Vec<Arc<str>>,
    /// Whether something could not be done that might be done later.
    pub(super) failed: bool,
}

/// Creates the plan's claims, enters them into the state, and tells pods where they are to go.
pub(super) async fn carry_out(ctx: &Context, problem: &Problem, plan: &Plan) -> Outcome {
    let mut outcome = Outcome::default();
    let pods: Pods<'_> = problem.pods.iter().map(|p| (&p.key, &**p)).collect();
    let creations: Vec<_> = plan
        .new_nodes
        .iter()
        .map(|planned| create(ctx, problem, &pods, planned))
        .collect();
    let results: Vec<bool> = futures::stream::iter(creations)
        .buffered(MAX_PARALLEL_CREATES)
        .collect()
        .await;
    outcome.failed = results.contains(&false);

    let claims: BTreeMap<&str, &Arc<str>> = problem
        .nodes
        .iter()
        .filter_map(|n| Some((&*n.name, n.node_claim.as_ref()?)))
        .collect();
    for placement in &plan.existing {
        let claim = claims.get(&*placement.node).copied().cloned();
        let is_claim_only = claim.as_ref() == Some(&placement.node);
        for key in &placement.pods {
            if let Some(pod) = pods.get(key).filter(|p| is_told(p)) {
                let node = (!is_claim_only).then_some(&*placement.node);
                ctx.events
                    .publish(events::nominated(pod, claim.as_deref(), node));
            }
        }
        // Room for a buffer is kept by counting its chunks, not by expecting pods.
        let is_expected = |key| pods.get(key).is_some_and(|p| !p.is_virtual());
        if placement.pods.iter().any(is_expected) {
            outcome.nominated.push(placement.node.clone());
            outcome.nominated.extend(claim.filter(|_| !is_claim_only));
        }
    }
    outcome
}

/// Whether a pod hears where it is to go. One that runs on a leaving node is told when it waits.
fn is_told(pod: &Pod) -> bool {
    pod.node_name.is_none() && !pod.is_virtual()
}

/// Creates one claim; false if that failed in a way that may pass.
async fn create(ctx: &Context, problem: &Problem, pods: &Pods<'_>, planned: &PlannedNode) -> bool {
    let Some(pool) = problem.pools.iter().find(|p| p.name == planned.pool) else {
        tracing::error!(NodePool = %planned.pool, "failed creating nodeclaim, plan names an unknown nodepool");
        return false;
    };
    if !within_limits(ctx, pool) {
        return false;
    }
    let Ok(name) = create_claim(ctx, pool, planned, None, "provisioned").await else {
        return false;
    };
    for key in &planned.pods {
        if let Some(pod) = pods.get(key).filter(|p| is_told(p)) {
            ctx.events
                .publish(events::nominated(pod, Some(&name), None));
        }
    }
    true
}

/// Creates the claim of a planned node and enters it into the state; its name, which is `named` or the server's choice.
/// An error is logged already.
pub(crate) async fn create_claim(
    ctx: &Context,
    pool: &PoolView,
    planned: &PlannedNode,
    named: Option<&str>,
    reason: &str,
) -> Result<Arc<str>, kube::Error> {
    let mut wanted = claim::node_claim(planned, pool, &ctx.provider.labels);
    if let Some(named) = named {
        wanted.metadata.name = Some(named.to_owned());
    }
    let created = post(ctx, pool, &wanted).await?;
    let name = created.metadata.name.clone().unwrap_or_default();
    ctx.events.publish(events::planned(&created, planned));
    ctx.state.apply_node_claim(created);
    ctx.state.plan(&name, planned.pods.iter().cloned());
    count(ctx, pool, reason, planned.min_values_relaxed);
    tracing::info!(
        NodePool = %pool.name,
        NodeClaim = %name,
        requests = %requests(planned),
        instance_types = %types(planned),
        why = %events::why_this(planned),
        "created nodeclaim"
    );
    Ok(name.into())
}

/// Creates a claim of a static pool, from its template alone, and enters it into the state; its name. An error is
/// logged already.
pub(crate) async fn create_static_claim(
    ctx: &Context,
    pool: &PoolView,
    reason: &str,
) -> Result<Arc<str>, kube::Error> {
    let wanted = claim::static_claim(pool, &ctx.provider.labels);
    let created = post(ctx, pool, &wanted).await?;
    let name = created.metadata.name.clone().unwrap_or_default();
    ctx.state.apply_node_claim(created);
    count(ctx, pool, reason, false);
    tracing::info!(NodePool = %pool.name, NodeClaim = %name, "created nodeclaim");
    Ok(name.into())
}

async fn post(
    ctx: &Context,
    pool: &PoolView,
    wanted: &NodeClaim,
) -> Result<NodeClaim, kube::Error> {
    // Names are the server's, so a creation repeated after a lost reply would buy twice: no retries below us.
    let api: Api<NodeClaim> = Api::all(ctx.client_no_retry.clone());
    let answer = api.create(&PostParams::default(), wanted).await;
    if let Err(error) = &answer {
        tracing::error!(NodePool = %pool.name, error = %error, "failed creating nodeclaim");
        // Who named it asks for it by its name.
        if wanted.metadata.name.is_none() && was_perhaps_done(error) {
            catch_up(ctx, &pool.name).await;
        }
    }
    answer
}

/// Whether a write that was answered with this error may have been done.
pub(crate) fn was_perhaps_done(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => !(400..500).contains(&status.code),
        _ => true,
    }
}

/// Enters a pool's claims into the state without waiting for the watch, which may lag behind: one that may have been created
/// would be one too many, and beyond the pool's limits, if another one were.
async fn catch_up(ctx: &Context, pool: &str) {
    for _ in 0..READ_ATTEMPTS {
        let Err(error) = read_claims(ctx, pool).await else {
            break;
        };
        tracing::debug!(NodePool = %pool, error = %error, "failed listing nodeclaims");
        ctx.clock.sleep(READ_WAIT).await;
    }
}

async fn read_claims(ctx: &Context, pool: &str) -> Result<(), kube::Error> {
    let api: Api<NodeClaim> = Api::all(ctx.client.clone());
    let of_pool = ListParams::default().labels(&format!("{}={pool}", labels::NODEPOOL));
    for claim in api.list(&of_pool).await?.items {
        ctx.state.apply_node_claim(claim);
    }
    Ok(())
}

/// Counts a claim that was created.
fn count(ctx: &Context, pool: &PoolView, reason: &str, relaxed: bool) {
    ctx.metrics.inc(
        "karpenter_nodeclaims_created_total",
        &[
            ("reason", reason),
            ("nodepool", &pool.name),
            ("min_values_relaxed", if relaxed { "true" } else { "false" }),
        ],
    );
}

/// The pool as it is now, not as it was when the plan was made.
fn within_limits(ctx: &Context, pool: &PoolView) -> bool {
    let Some(current) = ctx.state.node_pool(&pool.name) else {
        tracing::error!(NodePool = %pool.name, "failed creating nodeclaim, nodepool is gone");
        return false;
    };
    // Counting all machines of a pool for each that is bought is for pools with limits only.
    let Some(limits) = &current.spec.limits else {
        return true;
    };
    match limits::exceeded(Some(limits), &ctx.state.usage_with_marked(&pool.name)) {
        Ok(None) => true,
        Ok(Some(over)) => {
            tracing::error!(NodePool = %pool.name, limit = %over, "failed creating nodeclaim, nodepool is over its limits");
            false
        }
        Err(error) => {
            tracing::error!(NodePool = %pool.name, error = %error, "failed creating nodeclaim, limits cannot be read");
            false
        }
    }
}

/// Requests as a log line carries them.
fn requests(planned: &PlannedNode) -> String {
    let map: serde_json::Map<String, serde_json::Value> = planned
        .requests
        .iter()
        .map(|(name, amount)| (name.to_owned(), resources::text(name, amount).into()))
        .collect();
    serde_json::Value::Object(map).to_string()
}

/// The cheapest types by name, and how many others.
fn types(planned: &PlannedNode) -> String {
    let named: Vec<&str> = planned
        .instance_types
        .iter()
        .take(TYPES_NAMED)
        .map(|t| &**t)
        .collect();
    let others = planned.instance_types.len().saturating_sub(named.len());
    let mut text = named.join(", ");
    if others > 0 {
        text.push_str(&format!(" and {others} other(s)"));
    }
    text
}
