//! `nodeclaim.garbagecollection`: claims whose machine has vanished behind our back
//! (`lifecycle-and-disruption.md` §3.1). The cloud is only asked while some claim's Node is missing or not ready: a
//! ready kubelet proves its machine.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use karpenter_api::NodeClaim;
use karpenter_cloud::Machine;
use karpenter_runtime::runner::{ReconcileError, Rounds};
use karpenter_state::Kind;
use tokio::task::JoinHandle;

use crate::Context;
use crate::lifecycle::objects::{
    conditions, is_deleting, is_managed_claim, is_ready, is_true, name,
};
use crate::lifecycle::write;

/// Name in logs and metrics.
const CONTROLLER: &str = "nodeclaim.garbagecollection";

/// How often the cloud is asked, and how long after the start for the first time.
const INTERVAL: Duration = Duration::from_secs(120);

/// Shortest time between two searches for claims to suspect.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Starts the loop.
pub(crate) fn start(ctx: &Context) -> JoinHandle<()> {
    let ctx = ctx.clone();
    tokio::spawn(async move {
        let stop = ctx.stop.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = run(&ctx) => {}
        }
    })
}

async fn run(ctx: &Context) {
    let mut changes = ctx.state.subscribe();
    ctx.state.wait_synced().await;
    let mut next = ctx.clock.now() + INTERVAL;
    let mut rounds = Rounds::new(CONTROLLER, &ctx.rng);
    loop {
        while suspects(ctx).is_empty() {
            // Only what becomes of claims and nodes can raise a suspicion.
            loop {
                match changes.recv().await {
                    None => return,
                    Some(c) if matches!(c.kind, Kind::Node | Kind::NodeClaim) => break,
                    Some(_) => {}
                }
            }
            // A burst of changes is looked at once.
            ctx.clock.sleep(LOOK_INTERVAL).await;
            while changes.try_recv().is_ok() {}
        }
        let now = ctx.clock.now();
        while next < now {
            next += INTERVAL;
        }
        tokio::time::sleep_until(next).await;
        next += INTERVAL;
        let round = async {
            if let Err(error) = collect(ctx).await {
                tracing::error!(error = %error, "Reconciler error");
            }
        };
        rounds.begin().run(round).await;
        while changes.try_recv().is_ok() {}
    }
}

/// Claims whose Node does not prove that their machine is there.
fn suspects(ctx: &Context) -> Vec<Arc<NodeClaim>> {
    let kind = &ctx.provider.node_class;
    let mut all = ctx.state.node_claims();
    all.retain(|claim| {
        is_managed_claim(claim, kind)
            && !is_deleting(&claim.metadata)
            && is_true(&claim.status.conditions, conditions::REGISTERED)
            && !ctx
                .state
                .nodes_by_provider_id(&claim.status.provider_id)
                .iter()
                .any(|n| is_ready(n))
    });
    all
}

/// Those of `claims` that none of the machines is.
fn without_machine(claims: Vec<Arc<NodeClaim>>, machines: &[Machine]) -> Vec<Arc<NodeClaim>> {
    let there: BTreeSet<&str> = machines
        .iter()
        .filter(|m| !m.terminating)
        .map(|m| m.provider_id.as_str())
        .collect();
    let mut claims = claims;
    claims.retain(|c| !there.contains(c.status.provider_id.as_str()));
    claims
}

async fn collect(ctx: &Context) -> Result<(), ReconcileError> {
    if suspects(ctx).is_empty() {
        return Ok(());
    }
    let machines = ctx.provider.cloud.list().await;
    let machines = machines.map_err(|e| ReconcileError::Retry(Box::new(e)))?;
    // Asked again: a Node may have become ready while the cloud was thinking.
    for claim in without_machine(suspects(ctx), &machines) {
        if write::disrupt_claim(ctx, &claim, "garbage_collected").await? {
            tracing::info!(
                NodeClaim = name(&claim.metadata),
                "provider-id" = %claim.status.provider_id,
                "garbage collecting nodeclaim with no cloudprovider representation"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(id: &str) -> Arc<NodeClaim> {
        let mut claim = NodeClaim::default();
        claim.status.provider_id = id.into();
        Arc::new(claim)
    }

    fn machine(id: &str, terminating: bool) -> Machine {
        Machine {
            provider_id: id.into(),
            terminating,
            ..Machine::default()
        }
    }

    #[test]
    fn machines_that_end_do_not_count_as_there() {
        let claims = vec![claim("a"), claim("b"), claim("c")];
        let machines = [machine("a", false), machine("b", true)];
        let gone: Vec<String> = without_machine(claims, &machines)
            .iter()
            .map(|c| c.status.provider_id.clone())
            .collect();
        assert_eq!(gone, ["b", "c"]);
    }
}
