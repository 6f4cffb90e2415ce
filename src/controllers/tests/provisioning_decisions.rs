//! The pure decisions around a plan: pools to views, planned nodes to claims, guesses at claims under way, limits.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // Panicking is how a test fails.

use std::collections::BTreeMap;
use std::sync::Arc;

use karpenter_api::kinds::RawQuantity;
use karpenter_api::{NodeClaim, NodePool};
use karpenter_cloud::NodeClassKind;
use karpenter_controllers::provisioning::{claim, inflight, limits, pools};
use karpenter_model::plan::{PlannedNode, PricedOffering};
use karpenter_model::{
    InstanceType, LabelRegistry, NodeView, Offering, Operator, PodKey, Requirement, Requirements,
    ResourceList,
};
use rstest::rstest;
use serde_json::{Value, json};

const KIND: NodeClassKind = NodeClassKind {
    group: "test.karpenter.sh",
    version: "v1",
    kind: "TestNodeClass",
    plural: "testnodeclasses",
};

fn pool(patch: Value) -> NodePool {
    let mut object = json!({
        "apiVersion": "karpenter.sh/v1", "kind": "NodePool",
        "metadata": {"name": "default", "uid": "pool-uid", "generation": 1, "annotations": {"karpenter.sh/nodepool-hash": "123"}},
        "spec": {
            "weight": 7,
            "limits": {"cpu": "100"},
            "template": {
                "metadata": {"labels": {"team": "a"}, "annotations": {"note": "kept"}},
                "spec": {
                    "nodeClassRef": {"group": "test.karpenter.sh", "kind": "TestNodeClass", "name": "plain"},
                    "requirements": [
                        {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot", "on-demand"]},
                        {"key": "example.com/tier", "operator": "In", "values": ["gold", "silver"]},
                    ],
                    "taints": [{"key": "dedicated", "value": "a", "effect": "NoSchedule"}],
                    "startupTaints": [{"key": "agent-missing", "effect": "NoExecute"}],
                    "expireAfter": "720h", "terminationGracePeriod": "48h",
                }
            },
        },
        "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "Ready", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
    });
    merge(&mut object, patch);
    serde_json::from_value(object).unwrap()
}

fn merge(into: &mut Value, patch: Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (k, v) in patch {
                if v.is_null() {
                    into.remove(&k);
                } else {
                    merge(into.entry(k).or_insert(Value::Null), v);
                }
            }
        }
        (into, patch) => *into = patch,
    }
}

fn resources(pairs: &[(&str, &str)]) -> ResourceList {
    ResourceList::from_raw(&raw(pairs)).unwrap()
}

fn raw(pairs: &[(&str, &str)]) -> BTreeMap<String, RawQuantity> {
    let pair = |(k, v): &(&str, &str)| ((*k).to_owned(), RawQuantity((*v).to_owned()));
    pairs.iter().map(pair).collect()
}

/// A type of `cpu` cores, in zones a and b, spot at 0.3 a core and on-demand at 1.
fn machine(name: &str, cpu: i32) -> Arc<InstanceType> {
    let price = |per_core: f64| f64::from(cpu) * per_core;
    let offerings = vec![
        Offering::new("a", "on-demand", price(1.0)),
        Offering::new("b", "on-demand", price(1.0)),
        Offering::new("b", "spot", price(0.3)),
    ];
    let requirements = [
        Requirement::is_in("node.kubernetes.io/instance-type", [name]),
        Requirement::is_in("kubernetes.io/arch", ["amd64"]),
        Requirement::is_in("topology.kubernetes.io/zone", ["a", "b"]),
        Requirement::is_in("karpenter.sh/capacity-type", ["spot", "on-demand"]),
    ];
    let cpu = cpu.to_string();
    Arc::new(InstanceType::new(
        name,
        requirements.into_iter().collect(),
        offerings,
        resources(&[("cpu", &cpu), ("memory", "8Gi"), ("pods", "20")]),
        karpenter_model::instance::Overhead::default(),
    ))
}

fn planned(requirements: Requirements) -> PlannedNode {
    PlannedNode {
        pool: "default".into(),
        pods: vec![PodKey {
            namespace: "default".into(),
            name: "web".into(),
        }],
        requirements,
        instance_types: vec!["small".into(), "large".into()],
        capacity_types: vec!["spot".into()],
        requests: resources(&[("cpu", "1500m"), ("memory", "1Gi"), ("pods", "2")]),
        min_values_relaxed: false,
        cheapest: PricedOffering {
            instance_type: "small".into(),
            zone: "b".into(),
            capacity_type: "spot".into(),
            price: 0.6,
        },
        runner_up: None,
        funnel: vec![],
    }
}

#[test]
fn a_claim_carries_the_pool_the_plan_and_nothing_of_the_simulation() {
    let registry = LabelRegistry::default();
    let view = pools::pool_view(&pool(json!({})), vec![], ResourceList::new(), &registry).unwrap();
    let mut requirements = view.requirements.clone();
    requirements.add(Requirement::is_in("karpenter.sh/registered", ["true"]));
    requirements.add(Requirement::is_in(
        "kubernetes.io/hostname",
        ["placeholder-1"],
    ));
    let mut types = Requirement::exists("node.kubernetes.io/instance-type");
    types.min_values = Some(2);
    requirements.add(types);
    requirements.add(Requirement::new("example.com/slots", Operator::Gt, ["3"]).unwrap());
    let claim = claim::node_claim(&planned(requirements), &view, &registry);
    insta::assert_json_snapshot!(claim);
}

/// The pool is edited between the solve and the creation: the claim is of the pool that was planned with, and drifts.
#[test]
fn case_53_a_claim_carries_the_hash_of_the_pool_that_was_planned_with() {
    let registry = LabelRegistry::default();
    let view =
        |pool: &NodePool| pools::pool_view(pool, vec![], ResourceList::new(), &registry).unwrap();
    let before = view(&pool(json!({})));
    let edit = json!({"spec": {"template": {"metadata": {"labels": {"team": "b"}}}}});
    let after = view(&pool(edit));
    let hash = "karpenter.sh/nodepool-hash";
    assert_ne!(before.annotations[hash], after.annotations[hash]);
    let claim = claim::node_claim(&planned(before.requirements.clone()), &before, &registry);
    let annotations = claim.metadata.annotations.unwrap();
    assert_eq!(annotations[hash], before.annotations[hash]);
}

#[test]
fn a_lowered_min_values_is_told_and_no_capacity_type_is_made_up() {
    let registry = LabelRegistry::default();
    let view = pools::pool_view(&pool(json!({})), vec![], ResourceList::new(), &registry).unwrap();
    let mut node = planned(view.requirements.clone());
    node.min_values_relaxed = true;
    node.capacity_types = vec![];
    let claim = claim::node_claim(&node, &view, &registry);
    let annotations = claim.metadata.annotations.unwrap();
    assert_eq!(
        annotations["karpenter.sh/nodeclaim-min-values-relaxed"],
        "true"
    );
    let capacity = claim
        .spec
        .requirements
        .iter()
        .find(|r| r.key == "karpenter.sh/capacity-type");
    assert_eq!(capacity.unwrap().values, ["on-demand", "spot"]);
}

#[rstest]
#[case::usable(json!({}), None)]
#[case::other_provider(json!({"spec": {"template": {"spec": {"nodeClassRef": {"group": "karpenter.k8s.aws"}}}}}), Some(pools::Unusable::Unmanaged))]
#[case::fixed_size(json!({"spec": {"replicas": 2}}), Some(pools::Unusable::Static))]
#[case::not_ready(json!({"status": {"conditions": []}}), Some(pools::Unusable::NotReady))]
#[case::deleting(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}), Some(pools::Unusable::Deleting))]
fn which_pools_are_bought_from(#[case] patch: Value, #[case] expected: Option<pools::Unusable>) {
    assert_eq!(pools::unusable(&pool(patch), &KIND), expected);
}

#[test]
fn a_pool_view_folds_template_labels_into_the_requirements() {
    let registry = LabelRegistry::default();
    let view = pools::pool_view(&pool(json!({})), vec![], ResourceList::new(), &registry).unwrap();
    assert_eq!(
        view.requirements.to_string(),
        "example.com/tier In [gold silver], karpenter.sh/capacity-type In [on-demand spot], \
         karpenter.sh/nodepool In [default], team In [a], test.karpenter.sh/testnodeclass In [plain]"
    );
    assert_eq!(view.weight, 7);
    assert_eq!(view.limits.unwrap(), resources(&[("cpu", "100")]));
}

#[test]
fn a_requirement_that_makes_no_sense_names_pool_and_key() {
    let bad = json!({"spec": {"template": {"spec": {"requirements": [{"key": "a", "operator": "Gt", "values": ["x"]}]}}}});
    let error = pools::pool_view(
        &pool(bad),
        vec![],
        ResourceList::new(),
        &LabelRegistry::default(),
    )
    .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("default") && text.contains('a') && text.contains('x'),
        "{text}"
    );
}

#[rstest]
#[case::no_limits(None, &[("cpu", "500")], None)]
#[case::at_the_limit(Some(&[("cpu", "10")][..]), &[("cpu", "10")], None)]
#[case::over(Some(&[("cpu", "10")][..]), &[("cpu", "10001m")], Some("cpu 10001m of 10"))]
#[case::none_allowed(Some(&[("nodes", "0")][..]), &[("nodes", "1")], Some("nodes 1 of 0"))]
#[case::another_resource(Some(&[("memory", "1Gi")][..]), &[("cpu", "10")], None)]
fn limits_are_looked_at_again(
    #[case] limit: Option<&[(&str, &str)]>,
    #[case] usage: &[(&str, &str)],
    #[case] expected: Option<&str>,
) {
    let limit = limit.map(raw);
    let got = limits::exceeded(limit.as_ref(), &resources(usage)).unwrap();
    assert_eq!(got.as_deref(), expected);
}

#[test]
fn limits_that_cannot_be_read_are_an_error() {
    assert!(limits::exceeded(Some(&raw(&[("cpu", "many")])), &ResourceList::new()).is_err());
}

/// An unlaunched claim that asks for `requirements`, and its view as the state gives it.
fn under_way(requirements: Value, cpu: &str) -> (NodeView, NodeClaim) {
    let claim: NodeClaim = serde_json::from_value(json!({
        "metadata": {"name": "default-x", "labels": {"team": "a"}},
        "spec": {"requirements": requirements, "resources": {"requests": {"cpu": cpu}},
            "nodeClassRef": {"group": "g", "kind": "k", "name": "n"}},
    }))
    .unwrap();
    let view = NodeView {
        name: "default-x".into(),
        node_claim: Some("default-x".into()),
        labels: claim.metadata.labels.clone().unwrap(),
        allocatable: resources(&[("cpu", cpu)]),
        available: resources(&[("cpu", cpu)]),
        managed: true,
        ..NodeView::default()
    };
    (view, claim)
}

#[rstest]
#[case::cheapest_that_fits(json!([]), "1", Some(("small", "b", "spot", "2")))]
#[case::capacity_type_asked(json!([{"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]}]), "1", Some(("small", "a", "on-demand", "2")))]
#[case::zone_asked(json!([{"key": "topology.kubernetes.io/zone", "operator": "NotIn", "values": ["b"]}]), "1", Some(("small", "a", "on-demand", "2")))]
#[case::too_big_for_small(json!([]), "3", Some(("large", "b", "spot", "8")))]
#[case::type_listed(json!([{"key": "node.kubernetes.io/instance-type", "operator": "In", "values": ["large"]}]), "1", Some(("large", "b", "spot", "8")))]
#[case::nothing_fits(json!([]), "64", None)]
fn the_guess_at_a_claim_is_its_cheapest_offering(
    #[case] asked: Value,
    #[case] cpu: &str,
    #[case] expected: Option<(&str, &str, &str, &str)>,
) {
    let types = [machine("large", 8), machine("small", 2)];
    let (view, claim) = under_way(asked, cpu);
    let guess = inflight::guess(&view, &claim, &types, &LabelRegistry::default());
    match expected {
        None => assert_eq!(guess.allocatable, view.allocatable),
        Some((name, zone, capacity_type, cores)) => {
            let label = |key: &str| guess.labels.get(key).map(String::as_str);
            assert_eq!(label("node.kubernetes.io/instance-type"), Some(name));
            assert_eq!(label("topology.kubernetes.io/zone"), Some(zone));
            assert_eq!(label("karpenter.sh/capacity-type"), Some(capacity_type));
            assert_eq!(label("team"), Some("a"), "the claim's own labels stay");
            assert_eq!(
                guess.allocatable,
                resources(&[("cpu", cores), ("memory", "8Gi"), ("pods", "20")])
            );
        }
    }
}

#[test]
fn a_claim_under_way_counts_with_the_most_it_may_become() {
    let types = [machine("large", 8), machine("small", 2)];
    let (_, any) = under_way(json!([]), "1");
    let most = inflight::largest(&any, &types, &LabelRegistry::default()).unwrap();
    assert_eq!(
        most,
        resources(&[
            ("cpu", "8"),
            ("memory", "8Gi"),
            ("pods", "20"),
            ("nodes", "1")
        ])
    );
    let small =
        json!([{"key": "node.kubernetes.io/instance-type", "operator": "In", "values": ["small"]}]);
    let (_, one) = under_way(small, "1");
    let most = inflight::largest(&one, &types, &LabelRegistry::default()).unwrap();
    assert_eq!(most.get("cpu"), resources(&[("cpu", "2")]).get("cpu"));
    let (_, unknown) = under_way(
        json!([{"key": "node.kubernetes.io/instance-type", "operator": "In", "values": ["gone"]}]),
        "1",
    );
    assert!(inflight::largest(&unknown, &types, &LabelRegistry::default()).is_none());
}
