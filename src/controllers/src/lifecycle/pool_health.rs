//! `nodepool.registrationhealth`: keeps condition NodeRegistrationHealthy of a NodePool in step with how its
//! machines fare (`lifecycle-and-disruption.md` §3 "NP registration health").

use std::sync::Arc;

use async_trait::async_trait;
use karpenter_api::{NodeClaim, NodePool};
use karpenter_runtime::metrics::Metrics;
use karpenter_runtime::runner::ReconcileError;
use karpenter_runtime::{Action, Key, Reconciler};

use super::health::{Health, Verdict};
use super::objects::{condition, conditions, label};
use super::status::{self, Status};
use super::write;
use crate::Context;

/// Notes that a claim registered (`timeout` none) or ran out of time, and says so on its pool if that changes what
/// is known of it. Claims of other pools of the same name, or of none, do not count.
pub(crate) async fn record(
    ctx: &Context,
    health: &Health,
    claim: &NodeClaim,
    timeout: Option<&'static str>,
) -> Result<(), ReconcileError> {
    let Some(pool) = label(&claim.metadata, karpenter_api::labels::NODEPOOL)
        .and_then(|name| ctx.state.node_pool(name))
    else {
        return Ok(());
    };
    let uid = pool.metadata.uid.clone().unwrap_or_default();
    let mut owners = claim.metadata.owner_references.iter().flatten();
    if !owners.any(|o| o.uid == uid) {
        return Ok(());
    }
    let claim_uid = claim.metadata.uid.as_deref().unwrap_or_default();
    let verdict = health.record(&uid, claim_uid, timeout.is_none());
    let failed = match timeout {
        Some("launch_timeout") => condition(&claim.status.conditions, conditions::LAUNCHED)
            .map_or_else(registration_failed, |c| {
                Status::failed(&c.reason, &c.message)
            }),
        _ => registration_failed(),
    };
    let status = match verdict {
        Verdict::Unknown => return Ok(()),
        Verdict::Healthy => Status::True,
        Verdict::Unhealthy => failed,
    };
    say(ctx, &pool, status).await
}

fn registration_failed() -> Status {
    Status::failed("RegistrationFailed", "Failed to register node")
}

/// Writes the condition if its status is another one.
async fn say(ctx: &Context, pool: &NodePool, status: Status) -> Result<(), ReconcileError> {
    let held = condition(
        &pool.status.conditions,
        conditions::NODE_REGISTRATION_HEALTHY,
    );
    if held.is_some_and(|c| c.status == status.as_str()) {
        return Ok(());
    }
    let mut wanted = pool.clone();
    status::set_aside(
        &mut wanted,
        conditions::NODE_REGISTRATION_HEALTHY,
        status,
        ctx.clock.wall(),
    );
    write::pool_status(ctx, pool, &wanted).await?;
    Ok(())
}

/// The reconciler: what happens to a pool's health without a machine coming or failing.
pub(crate) struct PoolHealth {
    pub(crate) ctx: Context,
    pub(crate) health: Arc<Health>,
}

#[async_trait]
impl Reconciler for PoolHealth {
    fn name(&self) -> &'static str {
        "nodepool.registrationhealth"
    }
    fn group_kind(&self) -> (&'static str, &'static str) {
        ("karpenter.sh", "NodePool")
    }
    fn metrics(&self) -> Option<&Metrics> {
        Some(&self.ctx.metrics)
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let Some(pool) = self.ctx.state.node_pool(&key.name) else {
            let uids: Vec<String> = (self.ctx.state.node_pools().iter())
                .filter_map(|p| p.metadata.uid.clone())
                .collect();
            self.health.keep_only(&uids);
            return Ok(Action::AwaitChange);
        };
        let reference = &pool.spec.template.spec.node_class_ref;
        let Some(class) = self.ctx.state.node_class(&reference.name) else {
            return Ok(Action::AwaitChange);
        };
        let uid = pool.metadata.uid.as_deref().unwrap_or_default();
        match judge(&pool, class.metadata.generation) {
            Judgement::Stands {
                healthy: Some(healthy),
            } => self.health.rehydrate(uid, healthy),
            Judgement::Stands { healthy: None } => {}
            Judgement::Outdated => {
                self.health.reset(uid);
                let mut wanted = (*pool).clone();
                wanted.status.node_class_observed_generation = class.metadata.generation;
                status::set_aside(
                    &mut wanted,
                    conditions::NODE_REGISTRATION_HEALTHY,
                    Status::unknown(
                        "AwaitingReconciliation",
                        "object is awaiting reconciliation",
                    ),
                    self.ctx.clock.wall(),
                );
                write::pool_status(&self.ctx, &pool, &wanted).await?;
            }
        }
        Ok(Action::AwaitChange)
    }
}

/// What the condition on a pool is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judgement {
    /// It is about the pool and the NodeClass as they are.
    Stands {
        /// What it says; none = not known.
        healthy: Option<bool>,
    },
    /// It is about an earlier pool or NodeClass, or there is none.
    Outdated,
}

fn judge(pool: &NodePool, class_generation: Option<i64>) -> Judgement {
    let Some(held) = condition(
        &pool.status.conditions,
        conditions::NODE_REGISTRATION_HEALTHY,
    ) else {
        return Judgement::Outdated;
    };
    if held.observed_generation != pool.metadata.generation
        || pool.status.node_class_observed_generation != class_generation
    {
        return Judgement::Outdated;
    }
    Judgement::Stands {
        healthy: match held.status.as_str() {
            "True" => Some(true),
            "False" => Some(false),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn held(status: &str, generation: i64) -> Value {
        json!([{
            "type": "NodeRegistrationHealthy", "status": status, "observedGeneration": generation,
            "reason": "r", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"
        }])
    }

    #[rstest]
    #[case::never_judged(json!([]), 4, Judgement::Outdated)]
    #[case::pool_changed(held("True", 1), 4, Judgement::Outdated)]
    #[case::class_changed(held("True", 2), 3, Judgement::Outdated)]
    #[case::healthy(held("True", 2), 4, Judgement::Stands { healthy: Some(true) })]
    #[case::unhealthy(held("False", 2), 4, Judgement::Stands { healthy: Some(false) })]
    #[case::unknown(held("Unknown", 2), 4, Judgement::Stands { healthy: None })]
    fn a_judgement_is_about_one_generation(
        #[case] conditions: Value,
        #[case] class_seen: i64,
        #[case] expected: Judgement,
    ) {
        let pool: NodePool = serde_json::from_value(json!({
            "metadata": {"name": "p", "generation": 2},
            "status": {"conditions": conditions, "nodeClassObservedGeneration": class_seen}
        }))
        .expect("a pool");
        assert_eq!(judge(&pool, Some(4)), expected);
    }
}
