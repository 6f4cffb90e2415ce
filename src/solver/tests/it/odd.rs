//! Input that no careful person would write: each is refused or left out by name, and everything else is planned as if it
//! were not there.

use std::sync::Arc;

use karpenter_api::labels as l;
use karpenter_model::{Offering, Plan};
use serde_json::json;

use crate::world::{
    affine, expression, ladder, list, machine, pod, pod_with, pods, pool, price, problem, reqs,
    show, solve,
};

fn reason(plan: &Plan, name: &str) -> String {
    let mut all = plan.unschedulable.iter();
    let found = all.find(|u| &*u.pod.name == name);
    found.map_or_else(
        || panic!("{name} was planned for: {}", show(plan)),
        |u| u.reason.clone(),
    )
}

/// An amount beyond every machine goes nowhere, with the amount in the reason; sums of such amounts do not wrap around.
#[test]
fn absurd_quantities_go_nowhere() {
    for absurd in ["1E", "9223372036854775807", "170141183460469231731"] {
        let mut all = pods("web", 2, "cpu=1 memory=1Gi");
        all.extend(pods("huge", 3, &format!("cpu=1 memory={absurd}")));
        let plan = solve(&problem(vec![pool("p", "", ladder())], all));
        assert_eq!(plan.unschedulable.len(), 3, "{}", show(&plan));
        assert!(
            reason(&plan, "huge-000").contains("memory"),
            "{}",
            show(&plan)
        );
    }
}

#[test]
fn a_thousand_affinity_terms_are_tried_and_hold_nobody_up() {
    let terms = (0..1000)
        .map(|i| {
            let value = if i == 999 {
                "amd64".to_owned()
            } else {
                format!("no-{i}")
            };
            json!({"matchExpressions": [{"key": l::ARCH, "operator": "In", "values": [value]}]})
        })
        .collect::<Vec<_>>();
    let spec = json!({"affinity": {"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}});
    let mut all = pods("web", 2, "cpu=1 memory=1Gi");
    all.push(pod_with("patient", "cpu=1 memory=1Gi", spec));
    let plan = solve(&problem(vec![pool("p", "", ladder())], all));
    assert!(plan.unschedulable.is_empty(), "{}", show(&plan));
}

#[test]
fn a_thousand_pod_affinity_terms_are_kept() {
    let terms: Vec<_> = (0..1000)
        .map(|i| {
            json!({"topologyKey": l::HOSTNAME,
                "labelSelector": {"matchLabels": {"app": format!("other-{i}")}}})
        })
        .collect();
    let spec = json!({"affinity": {"podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": terms}}});
    let plan = solve(&problem(
        vec![pool("p", "", ladder())],
        vec![
            pod_with("shy", "cpu=1 memory=1Gi", spec),
            pod("web", "cpu=1 memory=1Gi"),
        ],
    ));
    assert!(plan.unschedulable.is_empty(), "{}", show(&plan));
}

/// Two types of a name, one without offerings, one whose prices are no numbers: what can be bought is, and of two types of
/// a name the first, as a launch names the type only.
#[test]
fn odd_catalogues_sell_what_is_sound_in_them() {
    let mut broken = (*machine("broken", "cpu=4 memory=16Gi", 0.01)).clone();
    broken.offerings = vec![
        Offering::new("a", "spot", f64::NAN),
        Offering::new("a", "on-demand", -1.0),
        Offering::new("b", "spot", f64::INFINITY),
    ];
    let mut unsold = (*machine("unsold", "cpu=4 memory=16Gi", 0.01)).clone();
    unsold.offerings.clear();
    let types = vec![
        Arc::new(broken),
        Arc::new(unsold),
        machine("twice", "cpu=4 memory=16Gi", 0.2),
        machine("twice", "cpu=4 memory=16Gi", 0.1),
    ];
    let plan = solve(&problem(
        vec![pool("p", "", types)],
        pods("web", 2, "cpu=1 memory=1Gi"),
    ));
    assert_eq!(show(&plan), "new p twice a spot: 2 pods");
    assert!((price(&plan) - 0.2 / 3.0).abs() < 1e-9, "{}", price(&plan));
}

/// A pool that contradicts itself, names a zone that is not there, or whose limits are below zero: named, and the other
/// pool serves.
#[test]
fn odd_pools_are_named_and_the_others_serve() {
    let both = pool("both", "", ladder());
    let mut contradiction = both.clone();
    contradiction.name = "contradiction".into();
    contradiction.requirements.add_all(&reqs(
        "kubernetes.io/arch In arm64, kubernetes.io/arch In s390x",
    ));
    let nowhere = pool(
        "nowhere",
        "topology.kubernetes.io/zone In the-moon",
        ladder(),
    );
    let mut owing = pool("owing", "", ladder());
    owing.limits = Some(list("cpu=-5"));
    let mut plain = pool("plain", "", ladder());
    plain.weight = -1;
    let plan = solve(&problem(
        vec![contradiction, nowhere, owing, plain],
        pods("web", 1, "cpu=1 memory=1Gi"),
    ));
    assert!(show(&plan).starts_with("new plain "), "{}", show(&plan));
    let skipped: Vec<&str> = plan.skipped_pools.iter().map(|s| &*s.pool).collect();
    assert_eq!(skipped, ["nowhere", "contradiction"]);
}

#[test]
fn a_selector_that_kubernetes_would_refuse_means_nobody() {
    let spec = json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": l::ZONE,
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchExpressions": [{"key": "app", "operator": "Near", "values": ["x"]}]}}]});
    let all = vec![
        pod_with("odd", "cpu=1 memory=1Gi", spec),
        affine(
            "zoned",
            "cpu=1 memory=1Gi",
            vec![expression(l::ZONE, "In", &["b"])],
            vec![],
        ),
    ];
    let plan = solve(&problem(vec![pool("p", "", ladder())], all));
    assert!(plan.unschedulable.is_empty(), "{}", show(&plan));
}
