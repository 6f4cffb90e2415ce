//! The eviction subresource (policy/v1): a deletion that disruption budgets may refuse.

use serde_json::{Value, json};

use super::delete::{self, DeleteOptions};
use super::{State, Target};
use crate::error::{ApiError, Result};
use crate::meta::{self, at, text};
use crate::selectors;

/// Key of PodDisruptionBudgets in the store.
const BUDGETS: &str = "poddisruptionbudgets.policy";
/// A budget remembers at most this many evictions that the controller has not seen yet.
const DISRUPTED_PODS_MAX: usize = 2000;

/// Evicts a pod.
///
/// # Errors
/// 404; 409 on failed preconditions; 429 when a budget allows none; 500 when two budgets cover the pod.
pub fn evict(
    state: &mut State,
    target: &Target,
    name: &str,
    eviction: &Value,
    dry_run: bool,
) -> Result<()> {
    let kind = text(eviction, &["kind"]);
    if !matches!(kind, "" | "Eviction") {
        let version = text(eviction, &["apiVersion"]);
        let short = version.rsplit('/').next().unwrap_or(version);
        let why = format!(
            "no kind \"{kind}\" is registered for version \"{version}\" in scheme \"pkg/runtime/scheme.go:111\""
        );
        return Err(ApiError::unreadable(kind, short, "Eviction", why));
    }
    let named = meta::name(eviction);
    if !named.is_empty() && named != name {
        return Err(ApiError::bad_request(
            "name in URL does not match name in Eviction object",
        ));
    }
    let namespace = meta::namespace(eviction);
    if !namespace.is_empty() && namespace != target.namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let pod = state.require(target, name)?;
    let options = options(eviction, dry_run);
    // Pods that run nothing any more, or nothing yet, or are on their way out cost no availability.
    let phase = selectors::phase(&pod);
    if matches!(phase, "Succeeded" | "Failed" | "Pending") || meta::is_deleting(&pod) {
        let options = note(state, target, &pod, options);
        return delete::delete(state, target, name, &options).map(|_| ());
    }
    let budgets: Vec<_> = state
        .store
        .iter(BUDGETS, Some(&target.namespace), None)
        .filter(|b| selectors::object_selects(at(b, &["spec", "selector"]), &pod))
        .cloned()
        .collect();
    if budgets.len() > 1 {
        return Err(ApiError::bare(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
        ));
    }
    if let Some(budget) = budgets.first() {
        let ready = is_ready(&pod);
        let count = |field: &str| {
            at(budget, &["status", field])
                .and_then(Value::as_i64)
                .unwrap_or(0)
        };
        let always = text(budget, &["spec", "unhealthyPodEvictionPolicy"]) == "AlwaysAllow";
        let healthy_enough =
            count("currentHealthy") >= count("desiredHealthy") && count("desiredHealthy") > 0;
        // Pods that are not healthy anyway: as the budget's policy says.
        let free = !ready && (always || healthy_enough);
        if !free {
            spend(state, target, budget, name, options.dry_run)?;
        }
    }
    let options = note(state, target, &pod, options);
    delete::delete(state, target, name, &options).map(|_| ())
}

/// Writes into the pod why it goes, for whoever looks after it (a Job that does not count such failures, say).
/// What is left to check of the deletion's preconditions is returned.
fn note(state: &mut State, target: &Target, pod: &Value, options: DeleteOptions) -> DeleteOptions {
    let unmet = |wanted: &Option<String>, is: &str| wanted.as_deref().is_some_and(|w| w != is);
    if options.dry_run
        || unmet(&options.uid, meta::uid(pod))
        || unmet(&options.version, meta::version(pod))
    {
        return options;
    }
    let now = state.now();
    let mut new = pod.clone();
    super::binding::set_condition(
        meta::child(&mut new, "status"),
        json!({
            "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting", "lastProbeTime": null, "lastTransitionTime": now,
        }),
    );
    state
        .store
        .put(&target.key, &target.namespace, meta::name(pod), new);
    DeleteOptions {
        version: None,
        ..options
    }
}

fn is_ready(pod: &Value) -> bool {
    at(pod, &["status", "conditions"])
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .any(|c| text(c, &["type"]) == "Ready" && text(c, &["status"]) == "True")
}

fn options(eviction: &Value, dry_run: bool) -> DeleteOptions {
    let options = eviction.get("deleteOptions").unwrap_or(&Value::Null);
    let string = |path: &[&str]| at(options, path).and_then(Value::as_str).map(str::to_owned);
    let asked_dry = options
        .get("dryRun")
        .and_then(Value::as_array)
        .is_some_and(|l| !l.is_empty());
    DeleteOptions {
        grace_seconds: options.get("gracePeriodSeconds").and_then(Value::as_i64),
        uid: string(&["preconditions", "uid"]),
        version: string(&["preconditions", "resourceVersion"]),
        propagation: None,
        dry_run: dry_run || asked_dry,
    }
}

/// Takes one disruption from a budget, and notes the pod until the controller has counted it.
fn spend(
    state: &mut State,
    target: &Target,
    budget: &Value,
    pod: &str,
    dry_run: bool,
) -> Result<()> {
    let name = meta::name(budget);
    let status = |field: &str| at(budget, &["status", field]).and_then(Value::as_i64);
    if status("observedGeneration").unwrap_or(0)
        < at(budget, &["metadata", "generation"])
            .and_then(Value::as_i64)
            .unwrap_or(0)
    {
        let mut error = ApiError::disruption_budget(&format!(
            "The disruption budget {name} is still being processed by the server."
        ));
        if let Some(details) = error.details.as_object_mut() {
            details.insert("retryAfterSeconds".into(), 10.into());
        }
        return Err(error);
    }
    let allowed = status("disruptionsAllowed").unwrap_or(0);
    if allowed < 0 {
        let mut error = ApiError::internal("pdb disruptions allowed is negative");
        (error.code, error.reason) = (403, "Forbidden");
        return Err(error);
    }
    let disrupted = at(budget, &["status", "disruptedPods"])
        .and_then(Value::as_object)
        .map_or(0, serde_json::Map::len);
    if disrupted > DISRUPTED_PODS_MAX {
        let mut error = ApiError::internal(
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        );
        (error.code, error.reason) = (403, "Forbidden");
        return Err(error);
    }
    if allowed == 0 {
        return Err(ApiError::disruption_budget(&format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            status("desiredHealthy").unwrap_or(0),
            status("currentHealthy").unwrap_or(0),
        )));
    }
    if dry_run {
        return Ok(());
    }
    let now = state.now();
    let mut new = budget.clone();
    let status = meta::child(&mut new, "status");
    let left = allowed - 1;
    meta::as_map(status).insert("disruptionsAllowed".into(), left.into());
    if left == 0 {
        let generation = at(budget, &["metadata", "generation"])
            .cloned()
            .unwrap_or(Value::Null);
        super::binding::set_condition(
            status,
            json!({
                "type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods", "message": "",
                "observedGeneration": generation, "lastTransitionTime": now,
            }),
        );
    }
    meta::as_map(meta::child(status, "disruptedPods")).insert(pod.to_owned(), now.into());
    state.store.put(BUDGETS, &target.namespace, name, new);
    Ok(())
}
