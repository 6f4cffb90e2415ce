//! Conversion: the tutorial as people have it, and every row of the tables by itself.

use rstest::rstest;
use serde_json::{Value, json};

use super::{Converted, convert, is_old};

fn pool(name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "karpenter.sh/v1beta1", "kind": "NodePool", "metadata": { "name": name }, "spec": spec })
}

/// A pool of class `default` with this kubelet block.
fn pool_with_kubelet(name: &str, kubelet: &Value) -> Value {
    let template = json!({ "spec": { "requirements": [], "nodeClassRef": { "name": "default" }, "kubelet": kubelet } });
    pool(name, json!({ "template": template }))
}

fn class(name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "karpenter.k8s.aws/v1beta1", "kind": "EC2NodeClass", "metadata": { "name": name }, "spec": spec })
}

/// What a single document converts to, with its warnings.
fn one(doc: Value) -> (Value, Vec<String>) {
    let Converted {
        mut docs,
        warnings,
        errors,
    } = convert(vec![doc]);
    assert_eq!(errors, []);
    assert_eq!(docs.len(), 1);
    let warnings = warnings.iter().map(ToString::to_string).collect();
    (docs.remove(0), warnings)
}

fn error_of(doc: Value) -> String {
    let out = convert(vec![doc]);
    assert_eq!(out.docs, Vec::<Value>::new(), "what fails is not put out");
    assert_eq!(out.errors.len(), 1);
    out.errors[0].to_string()
}

fn with_disruption(disruption: Value) -> Value {
    let template = json!({ "spec": { "requirements": [], "nodeClassRef": { "name": "c" } } });
    pool(
        "p",
        json!({ "template": template, "disruption": disruption }),
    )
}

#[test]
fn the_tutorial() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/manifests");
    let text = std::fs::read_to_string(format!("{root}/tutorial-v1beta1.yaml")).unwrap();
    let docs: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let deployment = docs[2].clone();
    assert!(is_old(&docs[0]) && is_old(&docs[1]) && !is_old(&docs[2]));
    let out = convert(docs);
    assert_eq!(out.docs[2], deployment, "other kinds pass unchanged");
    assert_eq!(out.warnings, []);
    assert_eq!(out.errors, []);
    insta::assert_yaml_snapshot!("tutorial_v1", &out.docs[..2]);
}

#[test]
fn a_second_conversion_changes_nothing() {
    let once = convert(vec![
        pool_with_kubelet("a", &json!({ "maxPods": 10 })),
        pool_with_kubelet("b", &json!({ "maxPods": 20 })),
        class("default", json!({ "amiFamily": "Bottlerocket" })),
    ]);
    let twice = convert(once.docs.clone());
    assert_eq!(twice.docs, once.docs);
    assert_eq!((twice.warnings, twice.errors), (vec![], vec![]));
}

#[rstest]
#[case::no_block(Value::Null, json!({ "consolidateAfter": "0s" }), Value::Null)]
#[case::default_policy(
    json!({ "expireAfter": "24h" }),
    json!({ "consolidationPolicy": "WhenEmptyOrUnderutilized", "consolidateAfter": "0s" }),
    json!("24h")
)]
#[case::underutilized(
    json!({ "consolidationPolicy": "WhenUnderutilized", "budgets": [{ "nodes": "5", "schedule": "@daily", "duration": "1h" }] }),
    json!({
        "consolidationPolicy": "WhenEmptyOrUnderutilized", "consolidateAfter": "0s",
        "budgets": [{ "nodes": "5", "schedule": "@daily", "duration": "1h" }],
    }),
    Value::Null
)]
#[case::never_stays(
    json!({ "consolidationPolicy": "WhenUnderutilized", "consolidateAfter": "Never", "expireAfter": "Never" }),
    json!({ "consolidationPolicy": "WhenEmptyOrUnderutilized", "consolidateAfter": "Never" }),
    json!("Never")
)]
#[case::empty(
    json!({ "consolidationPolicy": "WhenEmpty", "consolidateAfter": "30s" }),
    json!({ "consolidationPolicy": "WhenEmpty", "consolidateAfter": "30s" }),
    Value::Null
)]
fn disruption(#[case] old: Value, #[case] new: Value, #[case] expire_after: Value) {
    let (pool, warnings) = one(with_disruption(old));
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(pool["spec"]["disruption"], new);
    assert_eq!(
        pool["spec"]["template"]["spec"]["expireAfter"],
        expire_after
    );
}

#[rstest]
#[case(json!({ "consolidationPolicy": "WhenEmpty" }), "missing beside WhenEmpty")]
#[case(json!({ "consolidateAfter": "5m" }), "\"5m\" was not allowed beside WhenUnderutilized")]
fn disruption_that_v1beta1_refused(#[case] old: Value, #[case] warning: &str) {
    let (pool, warnings) = one(with_disruption(old));
    assert_eq!(pool["spec"]["disruption"]["consolidateAfter"], "0s");
    let field = "NodePool/p: spec.disruption.consolidateAfter: ";
    assert!(
        warnings[0].starts_with(field) && warnings[0].contains(warning),
        "{warnings:?}"
    );
}

#[rstest]
#[case::short(json!({ "name": "c" }), "karpenter.k8s.aws", "EC2NodeClass")]
#[case::long(json!({ "apiVersion": "karpenter.k8s.aws/v1beta1", "kind": "EC2NodeClass", "name": "c" }), "karpenter.k8s.aws", "EC2NodeClass")]
#[case::other(json!({ "apiVersion": "karpenter.azure.com/v1alpha2", "kind": "AKSNodeClass", "name": "c" }), "karpenter.azure.com", "AKSNodeClass")]
#[case::new(json!({ "group": "karpenter.kwok.sh", "kind": "KWOKNodeClass", "name": "c" }), "karpenter.kwok.sh", "KWOKNodeClass")]
fn node_class_refs(#[case] old: Value, #[case] group: &str, #[case] kind: &str) {
    let (pool, _) = one(pool(
        "p",
        json!({ "template": { "spec": { "nodeClassRef": old } } }),
    ));
    let new = json!({ "group": group, "kind": kind, "name": "c" });
    assert_eq!(pool["spec"]["template"]["spec"]["nodeClassRef"], new);
}

#[test]
fn everything_else_of_a_pool_stays() {
    let template = json!({
        "metadata": { "labels": { "team": "a" }, "annotations": { "karpenter.sh/managed-by": "x" } },
        "spec": {
            "nodeClassRef": { "name": "c" },
            "requirements": [{ "key": "k", "operator": "Exists", "minValues": 2 }],
            "taints": [
                { "key": "karpenter.sh/disruption", "value": "disrupting", "effect": "NoSchedule" },
                { "key": "t", "value": "v", "effect": "NoExecute" },
            ],
            "resources": { "requests": { "cpu": "1" } },
        },
    });
    let mut old = pool(
        "p",
        json!({ "template": template, "limits": { "cpu": 10 }, "weight": 3 }),
    );
    old["metadata"]["annotations"] = json!({
        "karpenter.sh/node-termination-timestamp": "2024-01-01T00:00:00Z",
        "compatibility.karpenter.sh/v1beta1-nodeclass-reference": "{}",
        "mine": "stays",
    });
    let (new, warnings) = one(old);
    assert_eq!(
        warnings,
        ["NodePool/p: spec.template.spec.resources: dropped: pools have none in v1"]
    );
    assert_eq!(
        new,
        json!({
            "apiVersion": "karpenter.sh/v1",
            "kind": "NodePool",
            "metadata": { "name": "p", "annotations": {
                "karpenter.sh/nodeclaim-termination-timestamp": "2024-01-01T00:00:00Z",
                "mine": "stays",
            } },
            "spec": {
                "template": {
                    "metadata": { "labels": { "team": "a" } },
                    "spec": {
                        "nodeClassRef": { "group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "c" },
                        "requirements": [{ "key": "k", "operator": "Exists", "minValues": 2 }],
                        "taints": [
                            { "key": "karpenter.sh/disrupted", "effect": "NoSchedule" },
                            { "key": "t", "value": "v", "effect": "NoExecute" },
                        ],
                    },
                },
                "disruption": { "consolidateAfter": "0s" },
                "limits": { "cpu": 10 },
                "weight": 3,
            },
        })
    );
}

#[test]
fn a_kubelet_block_moves_to_the_class() {
    let out = convert(vec![
        pool_with_kubelet("a", &json!({ "maxPods": 10 })),
        pool_with_kubelet("b", &json!({ "maxPods": 10 })),
        class("default", json!({ "amiFamily": "AL2023" })),
    ]);
    assert_eq!((out.warnings, out.errors), (vec![], vec![]));
    assert_eq!(out.docs.len(), 3);
    assert_eq!(out.docs[2]["spec"]["kubelet"], json!({ "maxPods": 10 }));
    assert_eq!(out.docs[0]["spec"]["template"]["spec"].get("kubelet"), None);
}

#[test]
fn pools_with_different_kubelet_blocks_get_copies_of_the_class() {
    let out = convert(vec![
        class("default", json!({ "amiFamily": "AL2023" })),
        pool_with_kubelet("plain", &Value::Null),
        pool_with_kubelet("small", &json!({ "maxPods": 10 })),
        pool_with_kubelet("also-small", &json!({ "maxPods": 10 })),
        pool_with_kubelet("big", &json!({ "maxPods": 200 })),
        class("default-big", json!({ "amiFamily": "AL2023" })),
    ]);
    let seen: Vec<(&str, &Value, &Value)> = out
        .docs
        .iter()
        .map(|d| {
            (
                d["metadata"]["name"].as_str().unwrap(),
                &d["spec"]["kubelet"],
                &d["spec"]["template"]["spec"]["nodeClassRef"]["name"],
            )
        })
        .collect();
    let (none, small, big) = (
        &Value::Null,
        &json!({ "maxPods": 10 }),
        &json!({ "maxPods": 200 }),
    );
    assert_eq!(
        seen,
        [
            ("default", none, none),
            ("default-small", small, none),
            ("default-big-2", big, none),
            ("plain", none, &json!("default")),
            ("small", none, &json!("default-small")),
            ("also-small", none, &json!("default-small")),
            ("big", none, &json!("default-big-2")),
            ("default-big", none, none),
        ]
    );
    assert_eq!(out.warnings.len(), 3);
    assert!(out.warnings[0].to_string().starts_with(
        "NodePool/small: spec.template.spec.kubelet: differs from what others of class default want"
    ));
}

#[test]
fn a_v1_pool_keeps_the_class_it_uses_as_it_is() {
    let mut user = pool_with_kubelet("v1", &Value::Null);
    user["apiVersion"] = json!("karpenter.sh/v1");
    user["spec"]["template"]["spec"]["nodeClassRef"] =
        json!({ "group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default" });
    let out = convert(vec![
        class("default", json!({ "amiFamily": "AL2023" })),
        user.clone(),
        pool_with_kubelet("old", &json!({ "maxPods": 10 })),
    ]);
    assert_eq!(out.docs[0]["spec"].get("kubelet"), None);
    assert_eq!(out.docs[1]["metadata"]["name"], "default-old");
    assert_eq!(out.docs[2], user);
}

#[test]
fn a_kubelet_block_without_its_class_is_told_of() {
    let (pool, warnings) = one(pool_with_kubelet("p", &json!({ "maxPods": 10 })));
    assert_eq!(pool["spec"]["template"]["spec"].get("kubelet"), None);
    assert_eq!(
        warnings,
        [
            r#"NodePool/p: spec.template.spec.kubelet: dropped: class default is not among the documents; set its spec.kubelet to {"maxPods":10}"#
        ]
    );
}

#[rstest]
#[case("AL2", "al2@latest")]
#[case("AL2023", "al2023@latest")]
#[case("Bottlerocket", "bottlerocket@latest")]
#[case("Windows2019", "windows2019@latest")]
#[case("Windows2022", "windows2022@latest")]
fn a_family_without_terms_becomes_an_alias(#[case] family: &str, #[case] alias: &str) {
    let (new, warnings) = one(class(
        "c",
        json!({ "amiFamily": family, "amiSelectorTerms": [] }),
    ));
    assert_eq!(
        new["spec"],
        json!({ "amiSelectorTerms": [{ "alias": alias }] })
    );
    let al2 = warnings
        .iter()
        .any(|w| w.contains("refused for Kubernetes 1.33"));
    assert_eq!(al2, family == "AL2", "{warnings:?}");
}

#[rstest]
#[case("AL2023")]
#[case("Custom")]
#[case("AL2")]
fn a_family_with_terms_keeps_both(#[case] family: &str) {
    let spec = json!({ "amiFamily": family, "amiSelectorTerms": [{ "tags": { "a": "b" }, "owner": "self" }] });
    let (new, warnings) = one(class("c", spec.clone()));
    assert_eq!(new["spec"], spec);
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn an_annotation_may_pin_the_alias() {
    for (family, expected) in [
        ("AL2023", "al2023@v20240807"),
        ("Windows2022", "windows2022@latest"),
    ] {
        let mut old = class("c", json!({ "amiFamily": family }));
        let pin = "compatibility.karpenter.k8s.aws/v1-alias-version";
        old["metadata"]["annotations"] = json!({ pin: "v20240807" });
        let (new, warnings) = one(old);
        assert_eq!(new["spec"]["amiSelectorTerms"][0]["alias"], expected);
        assert_eq!(new["metadata"].get("annotations"), None);
        assert_eq!(warnings.len(), usize::from(family != "AL2023"));
    }
}

#[test]
fn ubuntu_boots_as_al2_did() {
    let terms = json!([{ "id": "ami-1" }]);
    let (new, warnings) = one(class(
        "c",
        json!({ "amiFamily": "Ubuntu", "amiSelectorTerms": terms }),
    ));
    let ebs = json!({ "encrypted": true, "volumeType": "gp3", "volumeSize": "20Gi" });
    assert_eq!(
        new["spec"],
        json!({
            "amiFamily": "AL2",
            "amiSelectorTerms": terms,
            "blockDeviceMappings": [{ "deviceName": "/dev/sda1", "rootVolume": true, "ebs": ebs }],
        })
    );
    assert_eq!(warnings.len(), 2);
    let volumes = json!([{ "deviceName": "/dev/sda1" }]);
    let spec =
        json!({ "amiFamily": "Ubuntu", "amiSelectorTerms": terms, "blockDeviceMappings": volumes });
    assert_eq!(
        one(class("c", spec)).0["spec"]["blockDeviceMappings"],
        volumes
    );
}

#[rstest]
#[case::absent(Value::Null, Value::Null)]
#[case::partial(json!({ "httpTokens": "optional" }), json!({ "httpTokens": "optional", "httpPutResponseHopLimit": 2 }))]
#[case::whole(json!({ "httpPutResponseHopLimit": 1 }), json!({ "httpPutResponseHopLimit": 1 }))]
fn metadata_options(#[case] old: Value, #[case] new: Value) {
    let mut spec = json!({ "amiFamily": "AL2023" });
    if !old.is_null() {
        spec["metadataOptions"] = old.clone();
    }
    let (class, warnings) = one(class("c", spec));
    assert_eq!(class["spec"]["metadataOptions"], new);
    assert_eq!(warnings.len(), usize::from(old != new));
}

#[test]
fn a_tag_that_v1_refuses_is_dropped() {
    let tags = json!({ "eks:eks-cluster-name": "demo", "team": "a" });
    let (new, warnings) = one(class("c", json!({ "amiFamily": "AL2023", "tags": tags })));
    assert_eq!(new["spec"]["tags"], json!({ "team": "a" }));
    assert!(warnings[0].starts_with("EC2NodeClass/c: spec.tags[eks:eks-cluster-name]: dropped"));
}

#[test]
fn claims_take_their_expiry_from_their_pool() {
    let claim = |pool: &str| {
        json!({
            "apiVersion": "karpenter.sh/v1beta1", "kind": "NodeClaim",
            "metadata": { "name": "n", "labels": { "karpenter.sh/nodepool": pool } },
            "spec": {
                "requirements": [], "nodeClassRef": { "name": "default" }, "kubelet": { "maxPods": 10 },
                "resources": { "requests": { "cpu": "1" } },
            },
        })
    };
    let mut p = pool_with_kubelet("p", &json!({ "maxPods": 10 }));
    p["spec"]["disruption"] = json!({ "expireAfter": "24h" });
    let out = convert(vec![
        claim("p"),
        p,
        class("default", json!({ "amiFamily": "AL2023" })),
        claim("q"),
    ]);
    assert_eq!(out.errors, []);
    assert_eq!(out.docs[0]["spec"]["expireAfter"], "24h");
    assert_eq!(
        out.docs[0]["spec"]["resources"],
        json!({ "requests": { "cpu": "1" } })
    );
    assert_eq!(out.docs[2]["spec"]["kubelet"], json!({ "maxPods": 10 }));
    assert_eq!(out.docs[3]["spec"].get("expireAfter"), None);
    assert_eq!(out.warnings.len(), 1);
}

#[test]
fn lists_are_taken_apart_and_strangers_pass() {
    let secret = json!({ "apiVersion": "v1", "kind": "Secret", "data": {} });
    let overlay =
        json!({ "apiVersion": "karpenter.sh/v1alpha1", "kind": "NodeOverlay", "spec": {} });
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": [secret, overlay, 7] });
    let out = convert(vec![list]);
    assert_eq!(out.docs, [secret, overlay, json!(7)]);
    assert_eq!((out.warnings, out.errors), (vec![], vec![]));
}

#[test]
fn tolerations_of_the_old_taint_are_told_of() {
    let tolerations = json!([{ "key": "karpenter.sh/disruption", "operator": "Exists" }]);
    let doc = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": { "name": "agent" },
        "spec": { "template": { "spec": { "tolerations": tolerations } } },
    });
    let (same, warnings) = one(doc.clone());
    assert_eq!(same, doc);
    assert!(
        warnings[0].starts_with("DaemonSet/agent: spec.template.spec.tolerations: "),
        "{warnings:?}"
    );
}

#[rstest]
#[case(json!({ "apiVersion": "karpenter.sh/v1alpha5", "kind": "Provisioner", "metadata": { "name": "default" } }), "Provisioner/default: apiVersion: karpenter.sh/v1alpha5 is older than v1beta1")]
#[case(json!({ "apiVersion": "karpenter.sh/v1alpha5", "kind": "Machine" }), "Machine/?: apiVersion: ")]
#[case(json!({ "apiVersion": "karpenter.k8s.aws/v1alpha1", "kind": "AWSNodeTemplate" }), "EC2NodeClass")]
#[case(json!({ "apiVersion": "karpenter.sh/v1beta1", "kind": "Provisioner" }), "expected NodePool, NodeClaim or EC2NodeClass")]
#[case(pool("p", json!({ "template": { "spec": {} } })), "NodePool/p: spec.template.spec.nodeClassRef: missing")]
#[case(pool("p", json!({ "template": { "spec": { "nodeClassRef": {} } } })), "nodeClassRef.name: missing")]
#[case(pool("p", json!({ "template": [] })), "spec.template: []; expected an object")]
#[case(with_disruption(json!({ "consolidationPolicy": "Sometimes" })), "\"Sometimes\"; expected WhenEmpty or WhenUnderutilized")]
#[case(with_disruption(json!("no")), "spec.disruption: \"no\"; expected an object")]
#[case(class("c", json!({ "amiFamily": "Ubuntu" })), "EC2NodeClass/c: spec.amiSelectorTerms: \"Ubuntu\" without")]
#[case(class("c", json!({ "amiFamily": "Custom" })), "\"Custom\" without amiSelectorTerms")]
#[case(class("c", json!({ "amiFamily": "Debian" })), "spec.amiFamily: \"Debian\"; expected one of AL2")]
#[case(class("c", json!({})), "spec.amiFamily: \"\"; expected one of AL2")]
fn refusals(#[case] doc: Value, #[case] expected: &str) {
    let message = error_of(doc);
    assert!(message.contains(expected), "{message}");
}
