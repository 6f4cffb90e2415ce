//! `nodepool.readiness`: conditions ValidationSucceeded and NodeClassReady of a NodePool, and Ready, which stands on
//! the two (`api.md` §3.4). One reconcile sets both, so that a change costs one write.

use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::Timestamp;
use karpenter_api::NodePool;
use karpenter_api::budget::{BudgetError, Budgets};
use karpenter_api::validation;
use karpenter_model::LabelRegistry;
use karpenter_runtime::events::{DEFAULT_DEDUPE_WINDOW, Event, EventType};
use karpenter_runtime::metrics::Metrics;
use karpenter_runtime::runner::ReconcileError;
use karpenter_runtime::{Action, Key, Reconciler};
use kube::Resource as _;
use kube::core::DynamicObject;
use parking_lot::Mutex;

use crate::Context;
use crate::lifecycle::status::{self, Status};
use crate::lifecycle::write;

const VALIDATION_SUCCEEDED: &str = "ValidationSucceeded";
const NODE_CLASS_READY: &str = "NodeClassReady";
const READY: &str = "Ready";

pub(super) struct Readiness {
    ctx: Context,
    /// What was last said of each pool, so that it is said once.
    said: Mutex<BTreeMap<String, Vec<String>>>,
}

impl Readiness {
    pub(super) fn new(ctx: Context) -> Self {
        Self {
            ctx,
            said: Mutex::default(),
        }
    }

    /// Logs what somebody should look at although the pool is valid, and budgets that cannot be read.
    fn warn(&self, pool: &NodePool) {
        let name = pool.metadata.name.clone().unwrap_or_default();
        let found = validation::node_pool(pool, &*self.ctx.provider.labels);
        let budgets = Budgets::of(&pool.spec.disruption);
        let lines: Vec<String> = found
            .warnings
            .iter()
            .map(ToString::to_string)
            .chain(budgets.errors().iter().map(ToString::to_string))
            .collect();
        let mut said = self.said.lock();
        if said.get(&name) == Some(&lines) || (lines.is_empty() && !said.contains_key(&name)) {
            return;
        }
        for line in &lines {
            tracing::warn!(NodePool = %name, warning = %line, "nodepool is odd");
        }
        for error in budgets.errors() {
            self.ctx.events.publish(invalid_budget(pool, error));
        }
        said.insert(name, lines);
    }
}

#[async_trait]
impl Reconciler for Readiness {
    fn name(&self) -> &'static str {
        "nodepool.readiness"
    }
    fn group_kind(&self) -> (&'static str, &'static str) {
        ("karpenter.sh", "NodePool")
    }
    fn metrics(&self) -> Option<&Metrics> {
        Some(&self.ctx.metrics)
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let Some(pool) = self.ctx.state.node_pool(&key.name) else {
            return Ok(Action::AwaitChange);
        };
        if !super::is_managed(&pool, &self.ctx.provider.node_class) {
            return Ok(Action::AwaitChange);
        }
        self.warn(&pool);
        let class = &pool.spec.template.spec.node_class_ref.name;
        let class = self.ctx.state.node_class(class);
        let registry = &self.ctx.provider.labels;
        let wanted = judged(&pool, class.as_deref(), registry, self.ctx.clock.wall());
        write::pool_status(&self.ctx, &pool, &wanted).await?;
        Ok(Action::AwaitChange)
    }
}

/// That a budget cannot be read. The pool stays what it is: machines are bought, but none is given back until then.
fn invalid_budget(pool: &NodePool, error: &BudgetError) -> Event {
    let about = pool.object_ref(&());
    Event {
        kind: EventType::Warning,
        reason: "InvalidBudget",
        message: format!("{error}; no node is disrupted until it can be read"),
        dedupe: vec![about.uid.clone().unwrap_or_default(), error.to_string()],
        window: DEFAULT_DEDUPE_WINDOW,
        about,
    }
}

/// `pool` with its three conditions as they should be.
fn judged(
    pool: &NodePool,
    class: Option<&DynamicObject>,
    registry: &LabelRegistry,
    now: Timestamp,
) -> NodePool {
    let mut wanted = pool.clone();
    let found = validation::node_pool(pool, registry);
    let valid = found.message().map_or(Status::True, |problems| {
        Status::failed("NodePoolValidationFailed", &problems)
    });
    status::set_pool(&mut wanted, VALIDATION_SUCCEEDED, valid, now);
    status::set_pool(&mut wanted, NODE_CLASS_READY, class_status(class), now);
    wanted
}

/// What a NodeClass says of itself.
fn class_status(class: Option<&DynamicObject>) -> Status {
    let Some(class) = class else {
        return Status::failed("NodeClassNotFound", "NodeClass not found on cluster");
    };
    if class.metadata.deletion_timestamp.is_some() {
        return Status::failed("NodeClassTerminating", "NodeClass is terminating");
    }
    let unknown = || {
        Status::failed(
            "NodeClassReadinessUnknown",
            "NodeClass readiness is not known yet",
        )
    };
    let conditions = class.data.pointer("/status/conditions");
    let ready = conditions
        .and_then(|c| c.as_array())
        .into_iter()
        .flatten()
        .find(|c| text(c, "type") == READY);
    let Some(ready) = ready else {
        return unknown();
    };
    // A verdict on an earlier generation says nothing about this one.
    let observed = ready.get("observedGeneration").and_then(|g| g.as_i64());
    if observed.is_some_and(|o| Some(o) != class.metadata.generation) {
        return unknown();
    }
    match text(ready, "status") {
        "True" => Status::True,
        "False" => Status::failed(text(ready, "reason"), text(ready, "message")),
        _ => unknown(),
    }
}

fn text<'a>(object: &'a serde_json::Value, key: &str) -> &'a str {
    object.get(key).and_then(|v| v.as_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn class(status: Value, deleting: bool) -> DynamicObject {
        serde_json::from_value(json!({
            "metadata": {"name": "c", "generation": 3, "deletionTimestamp": deleting.then_some("2026-01-01T00:00:00Z")},
            "status": {"conditions": status},
        }))
        .unwrap()
    }

    fn ready(status: &str, observed: i64) -> Value {
        json!([{"type": "Ready", "status": status, "reason": "SubnetsNotFound", "message": "none", "observedGeneration": observed}])
    }

    #[rstest]
    #[case::missing(
        None,
        Status::failed("NodeClassNotFound", "NodeClass not found on cluster"),
        "False"
    )]
    #[case::deleting(
        Some(class(ready("True", 3), true)),
        Status::failed("NodeClassTerminating", "NodeClass is terminating"),
        "False"
    )]
    #[case::silent(Some(class(json!([]), false)), Status::failed("NodeClassReadinessUnknown", "NodeClass readiness is not known yet"), "False")]
    #[case::stale(
        Some(class(ready("True", 2), false)),
        Status::failed("NodeClassReadinessUnknown", "NodeClass readiness is not known yet"),
        "False"
    )]
    #[case::refused(
        Some(class(ready("False", 3), false)),
        Status::failed("SubnetsNotFound", "none"),
        "False"
    )]
    #[case::ready(Some(class(ready("True", 3), false)), Status::True, "True")]
    fn a_pool_is_as_ready_as_its_class(
        #[case] class: Option<DynamicObject>,
        #[case] expected: Status,
        #[case] root: &str,
    ) {
        assert_eq!(class_status(class.as_ref()), expected);
        let pool: NodePool =
            serde_json::from_value(json!({"metadata": {"name": "p", "generation": 2}})).unwrap();
        let judged = judged(
            &pool,
            class.as_ref(),
            &LabelRegistry::default(),
            Timestamp::UNIX_EPOCH,
        );
        let held = judged
            .status
            .conditions
            .iter()
            .find(|c| c.type_ == READY)
            .unwrap();
        assert_eq!(held.status, root);
        assert_eq!(held.observed_generation, Some(2));
        let again = super::judged(
            &judged,
            class.as_ref(),
            &LabelRegistry::default(),
            Timestamp::MAX,
        );
        assert_eq!(again, judged, "judging again changes nothing");
    }

    #[test]
    fn an_invalid_pool_is_not_ready_and_says_why() {
        let pool: NodePool = serde_json::from_value(json!({
            "metadata": {"name": "p", "generation": 1},
            "spec": {"template": {"spec": {"requirements": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["a"]}]}}},
        }))
        .unwrap();
        let judged = judged(
            &pool,
            Some(&class(ready("True", 3), false)),
            &LabelRegistry::default(),
            Timestamp::UNIX_EPOCH,
        );
        let of = |kind: &str| {
            judged
                .status
                .conditions
                .iter()
                .find(|c| c.type_ == kind)
                .cloned()
                .unwrap()
        };
        assert_eq!(of(VALIDATION_SUCCEEDED).reason, "NodePoolValidationFailed");
        assert!(
            of(VALIDATION_SUCCEEDED)
                .message
                .contains("kubernetes.io/hostname")
        );
        assert_eq!(of(READY).message, "ValidationSucceeded=False");
    }
}
