//! Node overlays: which types and offerings they speak of, who is heard, what is copied (`scheduling.md` §12).

use std::sync::Arc;

use karpenter_api::{NodeOverlay, labels};
use karpenter_model::instance::Overhead;
use karpenter_model::overlay::{Outcome, Refusal, Shelf, evaluate};
use karpenter_model::{
    InstanceType, LabelRegistry, Offering, Requirement, Requirements, ResourceList,
};
use rstest::rstest;
use serde_json::{Value, json};

fn list(value: &Value) -> ResourceList {
    ResourceList::from_raw(&serde_json::from_value(value.clone()).unwrap()).unwrap()
}

fn sold(name: &str, arch: &str, price: f64) -> Arc<InstanceType> {
    let mut offerings = vec![
        Offering::new("zone-a", labels::CAPACITY_SPOT, price / 2.0),
        Offering::new("zone-a", labels::CAPACITY_ON_DEMAND, price),
        Offering::new("zone-b", labels::CAPACITY_ON_DEMAND, price),
    ];
    // Prices of what is sold out count as well: it may be back any time.
    offerings[2].available = false;
    let requirements = [
        Requirement::is_in(labels::INSTANCE_TYPE, [name]),
        Requirement::is_in(labels::ARCH, [arch]),
        Requirement::is_in(labels::ZONE, ["zone-a", "zone-b"]),
        Requirement::is_in(labels::CAPACITY_TYPE, ["spot", "on-demand"]),
        Requirement::does_not_exist("example.com/gpu-name"),
    ];
    Arc::new(InstanceType::new(
        name,
        requirements.into_iter().collect(),
        offerings,
        list(&json!({ "cpu": "4", "memory": "16Gi", "pods": "50" })),
        Overhead::default(),
    ))
}

fn shelf(pool: &str, types: &Arc<Vec<Arc<InstanceType>>>) -> Shelf {
    let labels: Requirements = [
        Requirement::is_in(labels::NODEPOOL, [pool]),
        Requirement::is_in("team", [format!("team-{pool}")]),
    ]
    .into_iter()
    .collect();
    Shelf {
        pool: pool.into(),
        labels,
        types: types.clone(),
    }
}

fn catalogue() -> Arc<Vec<Arc<InstanceType>>> {
    Arc::new(vec![sold("small", "amd64", 1.0), sold("arm", "arm64", 2.0)])
}

fn shelves() -> Vec<Shelf> {
    let types = catalogue();
    vec![shelf("p", &types), shelf("q", &types)]
}

fn overlay(name: &str, spec: Value) -> NodeOverlay {
    serde_json::from_value(json!({ "metadata": { "name": name }, "spec": spec })).unwrap()
}

fn apply(overlays: &[NodeOverlay], shelves: &[Shelf]) -> Outcome {
    evaluate(overlays, shelves, &LabelRegistry::default())
}

/// Prices of a shelf by type, those of an overlay with a star.
fn prices(outcome: &Outcome, shelf: usize) -> String {
    let of = |t: &Arc<InstanceType>| {
        let all = t.offerings.iter();
        let all: Vec<String> = all
            .map(|o| format!("{}{}", o.price, if o.overlaid { "*" } else { "" }))
            .collect();
        format!("{} {}", t.name, all.join(" "))
    };
    let all: Vec<String> = outcome.types[shelf].iter().map(of).collect();
    all.join("; ")
}

fn verdict(outcome: &Outcome, name: &str) -> String {
    match &outcome.verdicts[name] {
        Ok(()) => "valid".to_owned(),
        Err(refusal) => format!("{}: {}", refusal.reason(), refusal.message()),
    }
}

#[rstest]
#[case::all(json!([]), "small 3* 3* 3*; arm 3* 3* 3*")]
#[case::a_type(json!([["node.kubernetes.io/instance-type", "In", ["arm"]]]), "small 0.5 1 1; arm 3* 3* 3*")]
#[case::offerings(json!([["karpenter.sh/capacity-type", "In", ["spot"]]]), "small 3* 1 1; arm 3* 2 2")]
#[case::sold_out_ones_too(json!([["topology.kubernetes.io/zone", "In", ["zone-b"]]]), "small 0.5 1 3*; arm 1 2 3*")]
#[case::alias(json!([["beta.kubernetes.io/arch", "NotIn", ["amd64"]]]), "small 0.5 1 1; arm 3* 3* 3*")]
#[case::a_pool(json!([["karpenter.sh/nodepool", "In", ["q"]]]), "small 0.5 1 1; arm 1 2 2")]
#[case::a_label_of_the_template(json!([["team", "In", ["team-p"]]]), "small 3* 3* 3*; arm 3* 3* 3*")]
#[case::a_label_that_nothing_has(json!([["colour", "In", ["red"]]]), "small 0.5 1 1; arm 1 2 2")]
#[case::a_label_that_nothing_may_have(json!([["colour", "NotIn", ["red"]]]), "small 3* 3* 3*; arm 3* 3* 3*")]
#[case::what_no_type_has(json!([["example.com/gpu-name", "Exists", []]]), "small 0.5 1 1; arm 1 2 2")]
#[case::two_keys(json!([["karpenter.sh/capacity-type", "In", ["spot"]], ["topology.kubernetes.io/zone", "In", ["zone-b"]]]), "small 0.5 1 1; arm 1 2 2")]
fn an_overlay_speaks_of_what_it_matches(#[case] requirements: Value, #[case] expected: &str) {
    let requirements: Vec<Value> = requirements
        .as_array()
        .unwrap()
        .iter()
        .map(|r| json!({ "key": r[0], "operator": r[1], "values": r[2] }))
        .collect();
    let spec = json!({ "requirements": requirements, "price": "3" });
    let shelves = shelves();
    let outcome = apply(&[overlay("o", spec)], &shelves);
    assert_eq!(verdict(&outcome, "o"), "valid");
    assert_eq!(prices(&outcome, 0), expected);
}

#[rstest]
#[case::set("price", "0.25", "small 0.25* 0.25* 0.25*")]
#[case::more("priceAdjustment", "+0.5", "small 1* 1.5* 1.5*")]
#[case::less("priceAdjustment", "-0.75", "small 0* 0.25* 0.25*")]
#[case::half("priceAdjustment", "-50%", "small 0.25* 0.5* 0.5*")]
fn a_price_is_replaced_or_adjusted(
    #[case] field: &str,
    #[case] text: &str,
    #[case] expected: &str,
) {
    let spec = json!({ "requirements": [{ "key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"] }], field: text });
    let outcome = apply(&[overlay("o", spec)], &shelves());
    assert!(
        prices(&outcome, 0).starts_with(expected),
        "{}",
        prices(&outcome, 0)
    );
}

#[test]
fn resources_are_added_and_huge_pages_come_out_of_memory() {
    let capacity = json!({ "smarter-devices/fuse": "20", "hugepages-2Mi": "1Gi" });
    let spec = json!({ "requirements": [{ "key": "kubernetes.io/arch", "operator": "In", "values": ["arm64"] }], "capacity": capacity });
    let shelves = shelves();
    let outcome = apply(&[overlay("o", spec)], &shelves);
    let arm = &outcome.types[0][1];
    assert!(arm.overlaid);
    assert_eq!(arm.capacity, {
        let mut all = list(&capacity);
        all.add(&shelves[0].types[1].capacity);
        all
    });
    assert_eq!(arm.allocatable.get("smarter-devices/fuse").units(), 20);
    assert_eq!(arm.allocatable.get("memory"), "15Gi".parse().unwrap());
    assert!(arm.offerings.iter().all(|o| !o.overlaid && o.price > 0.0));
    assert!(
        Arc::ptr_eq(&outcome.types[0][0], &shelves[0].types[0]),
        "untouched, not copied"
    );
}

#[test]
fn the_heavier_is_heard_and_of_one_weight_the_other_is_refused_whole() {
    let all = json!([]);
    let only_arm = json!([{ "key": "kubernetes.io/arch", "operator": "In", "values": ["arm64"] }]);
    let overlays = [
        overlay(
            "heavy",
            json!({ "requirements": only_arm, "price": "9", "weight": 10 }),
        ),
        overlay(
            "z-light",
            json!({ "requirements": all, "price": "7", "weight": 5 }),
        ),
        overlay(
            "a-light",
            json!({ "requirements": only_arm, "price": "5", "weight": 5, "capacity": { "a/b": "1" } }),
        ),
    ];
    let outcome = apply(&overlays, &shelves());
    assert_eq!(prices(&outcome, 0), "small 7* 7* 7*; arm 9* 9* 9*");
    assert_eq!(verdict(&outcome, "heavy"), "valid");
    assert_eq!(verdict(&outcome, "z-light"), "valid");
    assert_eq!(
        verdict(&outcome, "a-light"),
        "Conflict: NodeOverlay \"z-light\" of the same weight 5 sets the price of arm for NodePool \"p\" already; expected another weight or other requirements"
    );
    assert!(
        !outcome.types[0][1].capacity.contains("a/b"),
        "all or nothing"
    );
}

/// Upstream compares with the latest capacity overlay only, and misses the third.
#[test]
fn a_resource_named_twice_is_a_conflict_whatever_came_between() {
    let with = |name: &str, resource: &str| {
        overlay(
            name,
            json!({ "requirements": [], "capacity": { resource: "1" } }),
        )
    };
    let overlays = [with("c", "a/gpu"), with("b", "a/fuse"), with("a", "a/gpu")];
    let outcome = apply(&overlays, &shelves());
    assert_eq!(verdict(&outcome, "c"), "valid");
    assert_eq!(verdict(&outcome, "b"), "valid");
    assert!(
        verdict(&outcome, "a")
            .starts_with("Conflict: NodeOverlay \"c\" of the same weight 0 sets a/gpu of small"),
        "{}",
        verdict(&outcome, "a")
    );
}

#[test]
fn a_conflict_in_one_pool_counts_in_all() {
    let in_q = json!([{ "key": "karpenter.sh/nodepool", "operator": "In", "values": ["q"] }]);
    let overlays = [
        overlay("z", json!({ "requirements": in_q, "price": "7" })),
        overlay("a", json!({ "requirements": [], "price": "5" })),
    ];
    let outcome = apply(&overlays, &shelves());
    assert!(
        verdict(&outcome, "a").starts_with("Conflict"),
        "{}",
        verdict(&outcome, "a")
    );
    assert_eq!(prices(&outcome, 0), "small 0.5 1 1; arm 1 2 2");
    assert_eq!(prices(&outcome, 1), "small 7* 7* 7*; arm 7* 7* 7*");
}

#[test]
fn overlays_that_do_not_meet_do_not_conflict() {
    let of =
        |arch: &str| json!([{ "key": "kubernetes.io/arch", "operator": "In", "values": [arch] }]);
    let overlays = [
        overlay("a", json!({ "requirements": of("amd64"), "price": "7" })),
        overlay("b", json!({ "requirements": of("arm64"), "price": "5" })),
        overlay(
            "c",
            json!({ "requirements": of("arm64"), "capacity": { "a/b": "1" } }),
        ),
    ];
    let outcome = apply(&overlays, &shelves());
    assert!(outcome.verdicts.values().all(Result::is_ok));
    assert_eq!(prices(&outcome, 0), "small 7* 7* 7*; arm 5* 5* 5*");
}

#[test]
fn what_cannot_be_read_changes_nothing_and_the_others_count() {
    let overlays = [
        overlay(
            "bad",
            json!({ "requirements": [{ "key": "a", "operator": "Gt", "values": ["x"] }], "price": "0", "weight": 9 }),
        ),
        overlay(
            "native",
            json!({ "requirements": [], "capacity": { "memory": "1Ti" } }),
        ),
        overlay(
            "good",
            json!({ "requirements": [], "priceAdjustment": "+100%" }),
        ),
    ];
    let outcome = apply(&overlays, &shelves());
    assert!(
        verdict(&outcome, "bad").starts_with("RuntimeValidation: spec.requirements[0]: a Gt"),
        "{}",
        verdict(&outcome, "bad")
    );
    assert!(matches!(
        outcome.verdicts["native"],
        Err(Refusal::RuntimeValidation(_))
    ));
    assert_eq!(prices(&outcome, 0), "small 1* 2* 2*; arm 2* 4* 4*");
}

#[test]
fn pools_that_see_the_same_share_it_and_without_overlays_nothing_is_copied() {
    let shelves = shelves();
    let outcome = apply(&[], &shelves);
    assert!(Arc::ptr_eq(&outcome.types[0], &shelves[0].types));
    let all = overlay("o", json!({ "requirements": [], "price": "1" }));
    let outcome = apply(&[all], &shelves);
    assert!(Arc::ptr_eq(&outcome.types[0], &outcome.types[1]));
    let one = overlay(
        "o",
        json!({ "requirements": [{ "key": "karpenter.sh/nodepool", "operator": "In", "values": ["q"] }], "price": "1" }),
    );
    let outcome = apply(&[one], &shelves);
    assert!(Arc::ptr_eq(&outcome.types[0], &shelves[0].types));
    assert!(!Arc::ptr_eq(&outcome.types[1], &shelves[1].types));
}
