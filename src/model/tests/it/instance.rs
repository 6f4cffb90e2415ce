//! Instance types by example: allocatable, order by price, worst launch price (`scheduling.md` §3, §9).

use std::sync::Arc;

use karpenter_api::Quantity;
use karpenter_model::instance::{Overhead, by_price};
use karpenter_model::{
    InstanceType, LabelRegistry, Offering, Requirement, Requirements, ResourceList,
};

fn list(entries: &[(&str, &str)]) -> ResourceList {
    entries
        .iter()
        .map(|(name, amount)| (*name, amount.parse::<Quantity>().unwrap()))
        .collect()
}

fn priced(name: &str, offerings: Vec<Offering>) -> Arc<InstanceType> {
    Arc::new(InstanceType::new(
        name,
        Requirements::new(),
        offerings,
        ResourceList::new(),
        Overhead::default(),
    ))
}

fn only(key: &str, value: &str) -> Requirements {
    [Requirement::is_in(key, [value])].into_iter().collect()
}

const CAPACITY_TYPE: &str = "karpenter.sh/capacity-type";

#[test]
fn allocatable_is_capacity_less_overhead_and_hugepages_and_never_negative() {
    let overhead = Overhead {
        kube_reserved: list(&[
            ("cpu", "100m"),
            ("memory", "1Gi"),
            ("ephemeral-storage", "5Gi"),
        ]),
        system_reserved: list(&[("cpu", "50m")]),
        eviction_threshold: list(&[("memory", "100Mi")]),
    };
    let capacity = list(&[
        ("cpu", "4"),
        ("memory", "16Gi"),
        ("ephemeral-storage", "1Gi"),
        ("hugepages-2Mi", "4Gi"),
        ("pods", "58"),
    ]);
    let t = InstanceType::new("t", Requirements::new(), vec![], capacity, overhead);
    let raw: Vec<String> = t
        .allocatable
        .to_raw()
        .into_iter()
        .map(|(k, v)| format!("{k} {}", v.0))
        .collect();
    assert_eq!(
        raw,
        [
            "cpu 3850m",
            "ephemeral-storage 0",
            "hugepages-2Mi 4Gi",
            "memory 11164Mi",
            "pods 58"
        ]
    );
}

/// Case 16: offerings that the requirements exclude do not influence the order.
#[test]
fn case_16_only_compatible_offerings_count_for_the_order() {
    let a = priced(
        "a",
        vec![
            Offering::new("z", "on-demand", 1.0),
            Offering::new("z", "spot", 0.2),
        ],
    );
    let b = priced(
        "b",
        vec![
            Offering::new("z", "on-demand", 1.3),
            Offering::new("z", "spot", 0.1),
        ],
    );
    let labels = LabelRegistry::default();
    let order = |r: &Requirements| -> Vec<String> {
        by_price([&a, &b], r, &labels)
            .iter()
            .map(|(t, o)| format!("{} {}", t.name, o.price))
            .collect()
    };
    assert_eq!(order(&only(CAPACITY_TYPE, "on-demand")), ["a 1", "b 1.3"]);
    assert_eq!(order(&Requirements::new()), ["b 0.1", "a 0.2"]);
}

#[test]
fn offers_that_cannot_be_had_or_make_no_sense_are_none() {
    let mut gone = Offering::new("z", "spot", 0.1);
    gone.available = false;
    let t = priced(
        "t",
        vec![
            gone,
            Offering::new("z", "spot", f64::NAN),
            Offering::new("z", "spot", -1.0),
            Offering::new("z", "spot", f64::INFINITY),
            Offering::new("z", "on-demand", 1.0),
        ],
    );
    let labels = LabelRegistry::default();
    assert_eq!(
        t.cheapest(&Requirements::new(), &labels).unwrap().price,
        1.0
    );
    assert!(t.cheapest(&only(CAPACITY_TYPE, "spot"), &labels).is_none());
}

#[test]
fn worst_launch_price_is_the_dearest_of_the_first_capacity_type_there_is() {
    let t = priced(
        "t",
        vec![
            Offering::new("a", "on-demand", 1.0),
            Offering::new("b", "on-demand", 1.2),
            Offering::new("a", "spot", 0.3),
            Offering::new("b", "spot", 0.4),
        ],
    );
    let labels = LabelRegistry::default();
    let worst = |r: &Requirements| t.worst_launch_price(r, &labels);
    assert_eq!(worst(&Requirements::new()), Some(0.4));
    assert_eq!(worst(&only(CAPACITY_TYPE, "on-demand")), Some(1.2));
    assert_eq!(worst(&only("topology.kubernetes.io/zone", "a")), Some(0.3));
    assert_eq!(worst(&only("topology.kubernetes.io/zone", "c")), None);
}

#[test]
fn fitting_and_lists() {
    let total = list(&[("cpu", "2"), ("memory", "1Gi")]);
    assert!(list(&[("cpu", "2"), ("example.com/gpu", "0")]).fits(&total));
    assert!(!list(&[("example.com/gpu", "1")]).fits(&total));
    assert!(!list(&[("cpu", "1")]).fits(&list(&[("cpu", "2"), ("memory", "-1")])));
    let (a, b) = (
        list(&[("cpu", "1"), ("memory", "3Gi")]),
        list(&[("cpu", "2")]),
    );
    assert_eq!(
        ResourceList::max([&a, &b]),
        list(&[("cpu", "2"), ("memory", "3Gi")])
    );
    assert_eq!(ResourceList::min([&a, &b]), list(&[("cpu", "1")]));
    assert_eq!(b.exceeding(&a).collect::<Vec<_>>(), ["cpu"]);
}
