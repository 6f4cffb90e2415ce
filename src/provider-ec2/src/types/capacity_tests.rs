//! Capacity against published numbers and, case by case, against the rules.

use karpenter_ec2_api::NetworkCard;
use rstest::rstest;
use serde_json::Value;

use super::*;
use crate::limits;

const TUNING: Tuning = Tuning {
    vm_memory_overhead: 0.075,
    reserved_enis: 0,
};

fn al2023() -> ClassShape {
    ClassShape {
        family: Some(Family::Al2023),
        ..ClassShape::default()
    }
}

fn m5_large() -> InstanceTypeInfo {
    InstanceTypeInfo {
        name: "m5.large".into(),
        architectures: vec!["x86_64".into()],
        vcpus: 2,
        memory_mib: 8192,
        network_cards: vec![NetworkCard {
            index: 0,
            max_interfaces: 3,
        }],
        ipv4_per_interface: 10,
        ..InstanceTypeInfo::default()
    }
}

fn of(info: &InstanceTypeInfo, class: &ClassShape) -> (ResourceList, Overhead) {
    let capacity = capacity(info, limits::of(&info.name), class, TUNING);
    let overhead = overhead(info, class, &capacity);
    (capacity, overhead)
}

fn text(list: &ResourceList, name: &str) -> String {
    karpenter_model::resources::text(name, list.get(name))
}

#[test]
fn all_types_have_the_published_capacity_and_allocatable() {
    let shared = std::env::var("KARPENTER_SHARED")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared").to_owned());
    let path = format!("{shared}/data/ec2-instance-types.jsonl");
    let Ok(published) = std::fs::read_to_string(&path) else {
        eprintln!("SKIPPED: {path} is not there (set KARPENTER_SHARED)");
        return;
    };
    let catalog = karpenter_fake_ec2::Catalog::builtin();
    let mut checked = 0;
    for line in published.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let name = row["name"].as_str().unwrap();
        let (capacity, overhead) = of(&catalog.types[name], &al2023());
        let machine = karpenter_model::InstanceType::new(
            name,
            karpenter_model::Requirements::new(),
            Vec::new(),
            capacity,
            overhead,
        );
        for (published, ours) in [
            (&row["capacity"], &machine.capacity),
            (&row["allocatable"], &machine.allocatable),
        ] {
            for (resource, amount) in published.as_object().unwrap() {
                let amount: Quantity = amount.as_str().unwrap().parse().unwrap();
                let ours = ours.get(resource);
                // The published table writes ephemeral storage in whole Gi, rounded down.
                let same = if resource == "ephemeral-storage" {
                    ours.units() / GIB == amount.units() / GIB
                } else {
                    ours == amount
                };
                assert!(same, "{name} {resource}: {ours} instead of {amount}");
            }
            let extra: Vec<_> = ours
                .iter()
                // The interface table knows branch interfaces of 56 newer types that the published one lacks.
                .filter(|(n, q)| {
                    *q > Quantity::ZERO && published.get(n).is_none() && *n != r::POD_ENI
                })
                .collect();
            assert!(extra.is_empty(), "{name}: {extra:?}");
        }
        let reqs = crate::types::requirements::requirements(
            &catalog.types[name],
            limits::of(name),
            crate::types::requirements::Places {
                region: "us-east-1",
                zones: &[],
            },
        )
        .unwrap();
        for (key, value) in row["labels"].as_object().unwrap() {
            let value = value.as_str().unwrap();
            let single = reqs.get(key).and_then(|r| r.single());
            assert_eq!(single.map(|v| &**v), Some(value), "{name} {key}");
        }
        checked += 1;
    }
    assert!(checked >= 1355, "{checked}");
}

#[test]
fn a_sample_of_published_numbers() {
    let (capacity, overhead) = of(&m5_large(), &al2023());
    assert_eq!(text(&capacity, "memory"), "7577Mi");
    assert_eq!(text(&capacity, "pods"), "29");
    assert_eq!(text(&capacity, "ephemeral-storage"), "20Gi");
    assert_eq!(text(&overhead.kube_reserved, "cpu"), "70m");
    assert_eq!(text(&overhead.kube_reserved, "memory"), "574Mi");
    assert_eq!(text(&overhead.eviction_threshold, "memory"), "100Mi");
}

#[rstest]
#[case(1, 60)]
#[case(2, 70)]
#[case(4, 80)]
#[case(8, 90)]
#[case(192, 550)]
fn kubelet_cpu(#[case] vcpus: u32, #[case] want: i64) {
    assert_eq!(reserved_millicores(vcpus), want);
}

#[rstest]
#[case::told(Family::Al2023, Some(42), None, 0, 42)]
#[case::per_core(Family::Al2023, None, Some(4), 0, 8)]
#[case::bottlerocket_ignores_per_core(Family::Bottlerocket, None, Some(4), 0, 29)]
#[case::reserved_interface(Family::Al2023, None, None, 1, 20)]
#[case::all_reserved(Family::Al2023, None, None, 3, 0)]
#[case::windows(Family::Windows, None, None, 0, 110)]
fn pod_counts(
    #[case] family: Family,
    #[case] max_pods: Option<u32>,
    #[case] pods_per_core: Option<u32>,
    #[case] reserved: u32,
    #[case] want: u32,
) {
    let class = ClassShape {
        family: Some(family),
        max_pods,
        pods_per_core,
        ..ClassShape::default()
    };
    assert_eq!(pods(&m5_large(), &class, reserved), want);
}

#[test]
fn bottlerocket_reserves_memory_for_the_pods_it_is_told() {
    let class = |family| ClassShape {
        family: Some(family),
        max_pods: Some(10),
        ..ClassShape::default()
    };
    let (_, bottlerocket) = of(&m5_large(), &class(Family::Bottlerocket));
    assert_eq!(text(&bottlerocket.kube_reserved, "memory"), "365Mi");
    let (_, al2023) = of(&m5_large(), &class(Family::Al2023));
    assert_eq!(text(&al2023.kube_reserved, "memory"), "574Mi");
}

#[rstest]
#[case::root_volume(Family::Al2023, Some("100Gi"), &[], false, "100Gi")]
#[case::ephemeral_device(Family::Al2023, None, &[("/dev/xvda", "50Gi")], false, "50Gi")]
#[case::other_device(Family::Al2023, None, &[("/dev/sdb", "50Gi")], false, "20Gi")]
#[case::bottlerocket_data_volume(Family::Bottlerocket, None, &[("/dev/xvda", "9Gi"), ("/dev/xvdb", "30Gi")], false, "30Gi")]
#[case::custom_last(Family::Custom, None, &[("/dev/a", "1Gi"), ("/dev/b", "2Gi")], false, "2Gi")]
#[case::raid(Family::Al2023, Some("100Gi"), &[], true, "75G")]
fn storage_comes_from(
    #[case] family: Family,
    #[case] root: Option<&str>,
    #[case] volumes: &[(&str, &str)],
    #[case] raid0: bool,
    #[case] want: &str,
) {
    let class = ClassShape {
        family: Some(family),
        root_volume: root.map(|r| r.parse().unwrap()),
        volumes: volumes
            .iter()
            .map(|(d, s)| ((*d).to_owned(), Some(s.parse().unwrap())))
            .collect(),
        raid0,
        ..ClassShape::default()
    };
    let info = InstanceTypeInfo {
        local_nvme_gb: Some(75),
        ..m5_large()
    };
    assert_eq!(storage(&info, &class), want.parse::<Quantity>().unwrap());
}

#[rstest]
#[case("5%", Some("410Mi"))]
#[case("500Mi", Some("500Mi"))]
#[case("100%", Some("0"))]
#[case("0.5%", Some("41Mi"))]
#[case("x%", None)]
fn thresholds(#[case] written: &str, #[case] want: Option<&str>) {
    let got = parse_threshold(written, "8200Mi".parse().unwrap());
    assert_eq!(got, want.map(|w| w.parse().unwrap()));
}
