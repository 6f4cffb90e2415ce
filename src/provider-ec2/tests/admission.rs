//! The definitions at work: the embedded API server defaults objects by them, admits what people write, and refuses
//! what Karpenter's own definitions refuse.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // A test may fail loudly.

use karpenter_api::NodePool;
use karpenter_fake_kube::{ApiServer, ServerOptions};
use karpenter_provider_ec2::nodeclass;
use karpenter_runtime::{Clock, RngTree};
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

struct World {
    server: ApiServer,
}

impl World {
    async fn new() -> Self {
        let world = Self {
            server: ApiServer::new(ServerOptions {
                clock: Clock::starting_at("2026-01-02T03:04:05Z".parse().unwrap()),
                rng: RngTree::new(1),
            }),
        };
        let mut definitions = karpenter_api::crd::core(&[nodeclass::label_domain()]);
        definitions.push(nodeclass::crd());
        for definition in definitions {
            world.create(definition).await.unwrap();
        }
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        world
    }

    /// Creates an object; what came of it, or the server's message.
    async fn create(&self, object: Value) -> Result<Value, String> {
        let text = |field: &str| object[field].as_str().unwrap().to_owned();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        let (group, version) = api_version.split_once('/').unwrap();
        let plural = match kind.strip_suffix('s') {
            Some(_) => format!("{}es", kind.to_lowercase()),
            None => format!("{}s", kind.to_lowercase()),
        };
        let resource = ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: api_version.clone(),
            kind,
            plural,
        };
        let api: Api<DynamicObject> = Api::all_with(self.server.client(), &resource);
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let created = api.create(&PostParams::default(), &object).await;
        created
            .map(|o| serde_json::to_value(o).unwrap())
            .map_err(|error| error.to_string())
    }
}

fn class(spec: Value) -> Value {
    json!({ "apiVersion": "karpenter.k8s.aws/v1", "kind": "EC2NodeClass", "metadata": { "name": "c" }, "spec": spec })
}

/// A good class with these fields besides.
fn class_with(more: Value) -> Value {
    let terms = json!([{ "tags": { "karpenter.sh/discovery": "demo" } }]);
    let mut spec = json!({
        "role": "r", "subnetSelectorTerms": terms, "securityGroupSelectorTerms": terms,
        "amiSelectorTerms": [{ "alias": "al2023@latest" }],
    });
    spec.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    class(spec)
}

fn pool_with(requirement: Value) -> Value {
    let class = json!({ "group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "c" });
    let template = json!({ "spec": { "nodeClassRef": class, "requirements": [requirement] } });
    json!({ "apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": { "name": "p" }, "spec": { "template": template } })
}

#[tokio::test(start_paused = true)]
async fn the_converted_tutorial_is_admitted_and_defaulted() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../fixtures/manifests/tutorial-v1beta1.yaml"
    );
    let text = std::fs::read_to_string(path).unwrap();
    let docs: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let converted = karpenter_api::convert::convert(docs).docs;
    let world = World::new().await;
    let pool = world.create(converted[0].clone()).await.unwrap();
    assert_eq!(
        pool["spec"]["disruption"]["budgets"],
        json!([{ "nodes": "10%" }])
    );
    let class = world.create(converted[1].clone()).await.unwrap();
    let options = &class["spec"]["metadataOptions"];
    assert_eq!(options["httpPutResponseHopLimit"], 1);
    assert_eq!(options["httpTokens"], "required");
}

/// One server for all cases: making it compiles every rule, which takes most of the time.
#[tokio::test(start_paused = true)]
async fn what_is_admitted() {
    let world = World::new().await;
    let cases = [
        ("plain", class_with(json!({}))),
        (
            "other_family_of_the_alias",
            class_with(json!({ "amiFamily": "Custom" })),
        ),
        (
            "kubelet",
            class_with(
                json!({ "kubelet": { "maxPods": 10, "evictionSoft": { "memory.available": "5%" }, "evictionSoftGracePeriod": { "memory.available": "1m" } } }),
            ),
        ),
        (
            "one_clean_term_lets_a_bad_one_through",
            class_with(
                json!({ "subnetSelectorTerms": [{ "id": "subnet-1" }, { "id": "subnet-2", "tags": { "a": "b" } }] }),
            ),
        ),
        (
            "key_of_the_provider",
            pool_with(
                json!({ "key": "karpenter.k8s.aws/instance-category", "operator": "In", "values": ["c"] }),
            ),
        ),
    ];
    for (name, mut object) in cases {
        object["metadata"]["name"] = json!(name.replace('_', "-"));
        let created = world.create(object).await;
        assert!(created.is_ok(), "{name}: {created:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_refused() {
    let world = World::new().await;
    let cases = [
        (
            "no_terms",
            class_with(json!({ "subnetSelectorTerms": [] })),
            "subnetSelectorTerms may not be empty",
        ),
        (
            "empty_term",
            class_with(json!({ "securityGroupSelectorTerms": [{}] })),
            "a term needs 'tags', 'id' or 'name'",
        ),
        (
            "both",
            class_with(json!({ "instanceProfile": "p" })),
            "exactly one of 'role' and 'instanceProfile'",
        ),
        (
            "alias_with_another",
            class_with(
                json!({ "amiSelectorTerms": [{ "alias": "al2@latest" }, { "id": "ami-1" }], "amiFamily": "AL2" }),
            ),
            "a term with 'alias' is the only term",
        ),
        (
            "wrong_family",
            class_with(json!({ "amiFamily": "Bottlerocket" })),
            "amiFamily can only be 'AL2023' or 'Custom'",
        ),
        (
            "no_family",
            class_with(json!({ "amiSelectorTerms": [{ "id": "ami-1" }] })),
            "amiFamily has to be set",
        ),
        (
            "unknown_alias",
            class_with(json!({ "amiSelectorTerms": [{ "alias": "debian@latest" }] })),
            "the family of an alias is al2",
        ),
        (
            "tag",
            class_with(json!({ "tags": { "kubernetes.io/cluster/demo": "owned" } })),
            "is Karpenter's own",
        ),
        (
            "volume",
            class_with(json!({ "blockDeviceMappings": [{ "ebs": { "volumeType": "gp3" } }] })),
            "'snapshotID' or 'volumeSize'",
        ),
        (
            "two_roots",
            class_with(
                json!({ "blockDeviceMappings": [{ "rootVolume": true }, { "rootVolume": true }] }),
            ),
            "at most one volume is the root",
        ),
        (
            "kubelet_key",
            class_with(json!({ "kubelet": { "kubeReserved": { "gpu": "1" } } })),
            "keys are cpu, memory",
        ),
        (
            "kubelet_grace",
            class_with(
                json!({ "kubelet": { "evictionSoft": { "memory.available": "5%" }, "evictionSoftGracePeriod": {} } }),
            ),
            "every signal of evictionSoft",
        ),
        (
            "interfaces",
            class_with(
                json!({ "networkInterfaces": [{ "networkCardIndex": 1, "deviceIndex": 0, "interfaceType": "interface" }] }),
            ),
            "card 0, device 0",
        ),
        (
            "hop_limit",
            class_with(json!({ "metadataOptions": { "httpPutResponseHopLimit": 65 } })),
            "65",
        ),
        (
            "strange_key",
            pool_with(json!({ "key": "karpenter.k8s.aws/instance-mood", "operator": "Exists" })),
            "karpenter.k8s.aws",
        ),
        (
            "hostname",
            pool_with(json!({ "key": "kubernetes.io/hostname", "operator": "Exists" })),
            "kubernetes.io/hostname",
        ),
        (
            "no_values",
            pool_with(json!({ "key": "a", "operator": "In", "values": [] })),
            "at least one value",
        ),
    ];
    for (name, object, expected) in cases {
        let message = world.create(object).await.unwrap_err();
        assert!(message.contains(expected), "{name}: {message}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_static_pool_is_scaled_and_stays_static() {
    let world = World::new().await;
    let named = |name: &str, more: Value| {
        let mut pool = pool_with(json!({ "key": "kubernetes.io/os", "operator": "Exists" }));
        pool["metadata"]["name"] = name.into();
        pool["spec"]
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        pool
    };
    for (more, why) in [
        (json!({ "replicas": 1, "weight": 5 }), "has no 'weight'"),
        (
            json!({ "replicas": 1, "limits": { "cpu": "8" } }),
            "limited by 'nodes' only",
        ),
        (
            json!({ "replicas": 1, "limits": { "nodes": "2", "cpu": "8" } }),
            "limited by 'nodes' only",
        ),
        (json!({ "replicas": -1 }), "spec.replicas"),
    ] {
        let error = world.create(named("bad", more)).await.unwrap_err();
        assert!(error.contains(why), "{error}");
    }
    let limited = json!({ "replicas": 2, "limits": { "nodes": "3" } });
    world.create(named("fixed", limited)).await.unwrap();
    world.create(named("free", json!({}))).await.unwrap();

    // What `kubectl scale nodepool` does.
    let pools: Api<NodePool> = Api::all(world.server.client());
    let (params, merge) = (PatchParams::default(), |patch: Value| Patch::Merge(patch));
    let five = merge(json!({ "spec": { "replicas": 5 } }));
    let scale = pools.patch_scale("fixed", &params, &five).await.unwrap();
    assert_eq!(scale.spec.and_then(|s| s.replicas), Some(5));
    assert_eq!(pools.get("fixed").await.unwrap().spec.replicas, Some(5));
    let four = merge(json!({ "status": { "nodes": 4 } }));
    pools.patch_status("fixed", &params, &four).await.unwrap();
    let scale = pools.get_scale("fixed").await.unwrap();
    assert_eq!(scale.status.map(|s| s.replicas), Some(4));

    for (name, replicas) in [("fixed", json!(null)), ("free", json!(1))] {
        let switched = merge(json!({ "spec": { "replicas": replicas } }));
        let error = pools.patch(name, &params, &switched).await.unwrap_err();
        assert!(error.to_string().contains("for life"), "{error}");
    }
}
