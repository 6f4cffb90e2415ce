//! User data of the families, whole texts.

use super::*;

fn settings() -> Ec2Settings {
    Ec2Settings {
        cluster_name: "demo".into(),
        cluster_endpoint: "https://demo.example".into(),
        cluster_ca_bundle: "Y2E=".into(),
        cluster_cidr: "10.100.0.0/16".into(),
        ..Ec2Settings::default()
    }
}

fn text(family: Family, custom: Option<&str>) -> Result<String, UserDataError> {
    let settings = settings();
    let claim = BTreeMap::from(
        [
            ("karpenter.sh/nodepool", "default"),
            ("team", "a"),
            ("kubernetes.io/arch", "amd64"),
            ("topology.k8s.aws/zone-id", "use1-az1"),
            ("x.node-restriction.kubernetes.io/y", "z"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned())),
    );
    let dedicated = Taint {
        key: "dedicated".into(),
        value: Some("gpu".into()),
        effect: "NoSchedule".into(),
        ..Taint::default()
    };
    let inputs = Inputs {
        settings: &settings,
        family,
        labels: labels(&claim, "spot", family),
        taints: taints(&[dedicated], &[]),
        kubelet: Kubelet {
            max_pods: Some(29),
            cluster_dns: vec!["10.100.0.10".into()].into(),
            eviction_hard: BTreeMap::from([("memory.available".to_owned(), "5%".to_owned())])
                .into(),
            ..Kubelet::default()
        },
        raid0: family == Family::Al2023,
        custom,
    };
    let encoded = render(&inputs)?;
    Ok(String::from_utf8(STANDARD.decode(encoded).unwrap()).unwrap())
}

#[test]
fn al2023() {
    insta::assert_snapshot!(text(Family::Al2023, None).unwrap());
}

#[test]
fn al2() {
    insta::assert_snapshot!(text(Family::Al2, Some("echo hello")).unwrap());
}

#[test]
fn bottlerocket() {
    insta::assert_snapshot!(text(Family::Bottlerocket, None).unwrap());
}

#[test]
fn node_config_is_yaml() {
    let text = text(Family::Al2023, None).unwrap();
    let (_, part) = text
        .split_once("# Karpenter Generated NodeConfig\n")
        .unwrap();
    let (yaml, _) = part.split_once("\n--//--").unwrap();
    let value: serde_json::Value = serde_saphyr::from_str(yaml).unwrap();
    let kubelet = &value["spec"]["kubelet"];
    assert_eq!(kubelet["config"]["maxPods"], 29);
    assert_eq!(
        kubelet["config"]["registerWithTaints"][1]["key"],
        "karpenter.sh/unregistered"
    );
    assert_eq!(
        value["spec"]["instance"]["localStorage"]["strategy"],
        "RAID0"
    );
    assert!(
        kubelet["flags"][0]
            .as_str()
            .unwrap()
            .contains("karpenter.sh/capacity-type=spot")
    );
}

#[test]
fn custom_parts_go_first_whatever_their_form() {
    let yaml = text(Family::Al2023, Some("apiVersion: node.eks.aws/v1alpha1\n")).unwrap();
    assert_eq!(yaml.matches("application/node.eks.aws").count(), 2);
    let script = text(Family::Al2023, Some("#!/bin/sh\necho hi")).unwrap();
    assert!(script.find("echo hi") < script.find("NodeConfig"));
    let mime = "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"B\"\n\n--B\n\
                Content-Type: text/cloud-config\nX-Other: 1\n\nruncmd: []\n--B--\n";
    let merged = text(Family::Al2023, Some(mime)).unwrap();
    assert!(
        merged.contains("text/cloud-config\n\nruncmd: []"),
        "{merged}"
    );
    assert!(!merged.contains("X-Other"));
    let al2 = text(Family::Al2, Some(mime)).unwrap();
    assert!(al2.contains("X-Other: 1"));
}

#[test]
fn what_cannot_be_used_is_said_to_be_so() {
    let broken = "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=B\n\n--B\n\nx";
    let error = text(Family::Al2023, Some(broken)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "spec.userData: MIME: no closing boundary"
    );
    assert!(text(Family::Windows, None).is_err());
    assert_eq!(text(Family::Custom, Some("mine")).unwrap(), "mine");
}

#[test]
fn unregistered_is_not_added_twice() {
    let unregistered = karpenter_model::taints::unregistered_taint();
    assert_eq!(taints(&[], &[unregistered]).len(), 1);
}
