//! The part of kube-scheduler's configuration that plans have to know: the topology spread that the cluster gives to
//! pods without one of their own (`--scheduler-config`).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use karpenter_api::validation::is_qualified_name;
use serde::{Deserialize, Serialize};

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Config {
    #[serde(default)]
    pod_topology_spread: PodTopologySpread,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PodTopologySpread {
    #[serde(default)]
    default_constraints: Vec<Constraint>,
}

/// As in Kubernetes, without what says which pods are meant: kube-scheduler finds that out for each pod.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Constraint {
    max_skew: i32,
    topology_key: String,
    when_unsatisfiable: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    min_domains: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node_affinity_policy: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node_taints_policy: Option<String>,
}

/// The default constraints of a configuration in YAML or JSON; empty text has none.
///
/// # Errors
/// What is wrong: where, what is there and what was expected.
pub fn default_constraints(text: &str) -> Result<Vec<TopologySpreadConstraint>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let config: Config = serde_saphyr::from_str(text).map_err(|e| {
        // What follows the first line is a picture of the place.
        let text = e.to_string();
        let first = text.lines().next().unwrap_or_default();
        first.trim_start_matches("error: ").to_owned()
    })?;
    let mut seen = BTreeSet::new();
    let mut out = Vec::new();
    let all = config.pod_topology_spread.default_constraints;
    for (at, constraint) in all.into_iter().enumerate() {
        check(&constraint, &mut seen)
            .map_err(|e| format!("podTopologySpread.defaultConstraints[{at}].{e}"))?;
        out.push(TopologySpreadConstraint {
            max_skew: constraint.max_skew,
            topology_key: constraint.topology_key,
            when_unsatisfiable: constraint.when_unsatisfiable,
            min_domains: constraint.min_domains,
            node_affinity_policy: constraint.node_affinity_policy,
            node_taints_policy: constraint.node_taints_policy,
            ..TopologySpreadConstraint::default()
        });
    }
    Ok(out)
}

fn check(constraint: &Constraint, seen: &mut BTreeSet<(String, String)>) -> Result<(), String> {
    if constraint.max_skew < 1 {
        return Err(format!(
            "maxSkew: expected a number of at least 1, got {}",
            constraint.max_skew
        ));
    }
    if !is_qualified_name(&constraint.topology_key) {
        return Err(format!(
            "topologyKey: expected the key of a label, got {:?}",
            constraint.topology_key
        ));
    }
    let required = constraint.when_unsatisfiable == "DoNotSchedule";
    if !required && constraint.when_unsatisfiable != "ScheduleAnyway" {
        return Err(format!(
            "whenUnsatisfiable: expected DoNotSchedule or ScheduleAnyway, got {:?}",
            constraint.when_unsatisfiable
        ));
    }
    if let Some(least) = constraint.min_domains
        && (least < 1 || !required)
    {
        return Err(format!(
            "minDomains: expected a number of at least 1, and only with DoNotSchedule, got {least}"
        ));
    }
    for (field, policy) in [
        ("nodeAffinityPolicy", &constraint.node_affinity_policy),
        ("nodeTaintsPolicy", &constraint.node_taints_policy),
    ] {
        if let Some(policy) = policy
            .as_deref()
            .filter(|p| !["Honor", "Ignore"].contains(p))
        {
            return Err(format!("{field}: expected Honor or Ignore, got {policy:?}"));
        }
    }
    let what = (
        constraint.topology_key.clone(),
        constraint.when_unsatisfiable.clone(),
    );
    if !seen.insert(what) {
        return Err(format!(
            "topologyKey: expected one constraint of {} over {}, got another",
            constraint.when_unsatisfiable, constraint.topology_key
        ));
    }
    Ok(())
}

/// The constraints as text that [`default_constraints`] reads; empty if there are none.
pub(super) fn show(constraints: &[TopologySpreadConstraint]) -> String {
    if constraints.is_empty() {
        return String::new();
    }
    let all = constraints.iter().map(|c| Constraint {
        max_skew: c.max_skew,
        topology_key: c.topology_key.clone(),
        when_unsatisfiable: c.when_unsatisfiable.clone(),
        min_domains: c.min_domains,
        node_affinity_policy: c.node_affinity_policy.clone(),
        node_taints_policy: c.node_taints_policy.clone(),
    });
    let config = Config {
        pod_topology_spread: PodTopologySpread {
            default_constraints: all.collect(),
        },
    };
    serde_json::to_string(&config).unwrap_or_default()
}
