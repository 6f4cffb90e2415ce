//! However the events of a history are shuffled and repeated, the state ends up the same: what a fresh list gives.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // Panicking is how a test fails.

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::CSINode;
use karpenter_api::NodeClaim;
use karpenter_state::{Store, Watched};
use proptest::prelude::*;
use serde_json::{Value, json};

/// One write to the API server; its index in the history is its resourceVersion.
#[derive(Clone, Debug)]
enum Write {
    Pod {
        name: u8,
        on: Option<u8>,
        cpu: u8,
        phase: u8,
    },
    Node {
        name: u8,
        provider: u8,
        registered: bool,
        initialized: bool,
        cpu: u8,
        tainted: bool,
    },
    Claim {
        name: u8,
        provider: u8,
        pool: u8,
        cpu: u8,
        deleting: bool,
    },
    /// A claim that names the volume of its number, or none.
    VolumeClaim {
        name: u8,
        bound: bool,
    },
    Volume {
        name: u8,
        driver: u8,
    },
    CsiNode {
        name: u8,
        limit: u8,
    },
    Delete {
        kind: u8,
        name: u8,
    },
}

fn writes() -> impl Strategy<Value = Vec<Write>> {
    let n = 0..3u8;
    let one = prop_oneof![
        4 => (n.clone(), proptest::option::of(n.clone()), 1..4u8, 0..3u8)
            .prop_map(|(name, on, cpu, phase)| Write::Pod { name, on, cpu, phase }),
        3 => (n.clone(), 0..4u8, any::<bool>(), any::<bool>(), 4..16u8, any::<bool>()).prop_map(
            |(name, provider, registered, initialized, cpu, tainted)| Write::Node {
                name, provider, registered, initialized, cpu, tainted
            }
        ),
        3 => (n.clone(), 0..4u8, 0..2u8, 4..16u8, any::<bool>()).prop_map(
            |(name, provider, pool, cpu, deleting)| Write::Claim { name, provider, pool, cpu, deleting }
        ),
        2 => (n.clone(), any::<bool>())
            .prop_map(|(name, bound)| Write::VolumeClaim { name, bound }),
        2 => (n.clone(), 0..2u8).prop_map(|(name, driver)| Write::Volume { name, driver }),
        2 => (n.clone(), 0..3u8).prop_map(|(name, limit)| Write::CsiNode { name, limit }),
        2 => (0..6u8, n).prop_map(|(kind, name)| Write::Delete { kind, name }),
    ];
    proptest::collection::vec(one, 1..32)
}

/// Provider 0 is "none yet".
fn provider_id(provider: u8) -> String {
    if provider == 0 {
        String::new()
    } else {
        format!("fake:///{provider}")
    }
}

fn object(write: &Write, version: usize) -> (u8, Value) {
    let version = version.to_string();
    match write {
        Write::Pod {
            name,
            on,
            cpu,
            phase,
        } => (
            0,
            json!({
                "metadata": {"namespace": "default", "name": format!("pod-{name}"), "uid": format!("u{name}"), "resourceVersion": version},
                "spec": {"nodeName": on.map(|n| format!("node-{n}")),
                    "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": format!("data-{name}")}}],
                    "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu.to_string()}}}]},
                "status": {"phase": (["Pending", "Running", "Succeeded"][usize::from(*phase)])},
            }),
        ),
        Write::Node {
            name,
            provider,
            registered,
            initialized,
            cpu,
            tainted,
        } => (
            1,
            json!({
                "metadata": {"name": format!("node-{name}"), "resourceVersion": version, "labels": {
                    "karpenter.sh/registered": registered.to_string(),
                    "karpenter.sh/initialized": initialized.to_string(),
                    "node.kubernetes.io/instance-type": "m", "from": "node"}},
                "spec": {"providerID": provider_id(*provider),
                    "taints": if *tainted { json!([{"key": "t", "effect": "NoSchedule"}, {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]) } else { json!([]) }},
                "status": {"capacity": {"cpu": cpu.to_string(), "gpu": "0"}, "allocatable": {"cpu": cpu.to_string()}},
            }),
        ),
        Write::Claim {
            name,
            provider,
            pool,
            cpu,
            deleting,
        } => (
            2,
            json!({
                "metadata": {"name": format!("claim-{name}"), "resourceVersion": version,
                    "labels": {"karpenter.sh/nodepool": format!("pool-{pool}"), "from": "claim"},
                    "deletionTimestamp": deleting.then_some("2026-01-01T00:00:00Z")},
                "spec": {"resources": {"requests": {"cpu": "1"}}, "requirements": [], "nodeClassRef": {"group": "g", "kind": "k", "name": "n"}},
                "status": {"providerID": provider_id(*provider), "capacity": {"cpu": cpu.to_string(), "gpu": "2"}, "allocatable": {"cpu": cpu.to_string()}},
            }),
        ),
        Write::VolumeClaim { name, bound } => (
            3,
            json!({
                "metadata": {"namespace": "default", "name": format!("data-{name}"), "resourceVersion": version},
                "spec": {"volumeName": bound.then(|| format!("volume-{name}"))},
            }),
        ),
        Write::Volume { name, driver } => (
            4,
            json!({
                "metadata": {"name": format!("volume-{name}"), "resourceVersion": version},
                "spec": {"claimRef": {"namespace": "default", "name": format!("data-{name}")},
                    "csi": {"driver": format!("driver-{driver}"), "volumeHandle": "v"}},
            }),
        ),
        Write::CsiNode { name, limit } => (
            5,
            json!({
                "metadata": {"name": format!("node-{name}"), "resourceVersion": version},
                "spec": {"drivers": [{"name": "driver-0", "nodeID": "i", "allocatable": {"count": limit}}]},
            }),
        ),
        Write::Delete { kind, name } => {
            let names = ["pod", "node", "claim", "data", "volume", "node"];
            let namespaced = [0, 3].contains(kind);
            (
                *kind,
                json!({"metadata": {
                "name": format!("{}-{name}", names[usize::from(*kind)]),
                "namespace": namespaced.then_some("default"), "resourceVersion": version}, "spec": {"containers": [], "drivers": [], "nodeClassRef": {"group": "g", "kind": "k", "name": "n"}, "requirements": []}}),
            )
        }
    }
}

fn feed<T: Watched + serde::de::DeserializeOwned>(store: &Store, value: &Value, deleted: bool) {
    let object: T = serde_json::from_value(value.clone()).unwrap();
    if deleted {
        object.delete(store)
    } else {
        object.apply(store)
    }
}

fn apply(store: &Store, write: &Write, version: usize) {
    let (kind, value) = object(write, version);
    let deleted = matches!(write, Write::Delete { .. });
    match kind {
        0 => feed::<Pod>(store, &value, deleted),
        1 => feed::<Node>(store, &value, deleted),
        3 => feed::<PersistentVolumeClaim>(store, &value, deleted),
        4 => feed::<PersistentVolume>(store, &value, deleted),
        5 => feed::<CSINode>(store, &value, deleted),
        _ => feed::<NodeClaim>(store, &value, deleted),
    }
}

/// Everything decisions read, as text.
fn snapshot(store: &Store) -> String {
    let claims = ["claim-0", "claim-1", "claim-2"].map(|c| store.is_leaving(c));
    let pods = ["node-0", "node-1", "node-2"].map(|n| store.pods_on(n));
    let usage = ["pool-0", "pool-1"].map(|p| store.usage(p));
    format!(
        "{:#?}\n{claims:?}\n{pods:?}\n{usage:?}\n{:?}\n{:?}\n{:?}",
        store.node_views(),
        store.problem_nodes(&std::collections::BTreeSet::new()),
        store.leaving_nodes(),
        store.volume_limits(),
    )
}

/// The state a process has that starts after the history: lists, no events.
fn listed(history: &[Write]) -> Store {
    let mut latest: std::collections::BTreeMap<(u8, String), (bool, Value)> =
        std::collections::BTreeMap::new();
    for (i, write) in history.iter().enumerate() {
        let (kind, value) = object(write, i + 1);
        let name = value["metadata"]["name"].as_str().unwrap().to_owned();
        latest.insert((kind, name), (matches!(write, Write::Delete { .. }), value));
    }
    let of = |kind: u8| -> Vec<Value> {
        latest
            .iter()
            .filter(|((k, _), (gone, _))| *k == kind && !gone)
            .map(|(_, (_, v))| v.clone())
            .collect()
    };
    fn typed<T: serde::de::DeserializeOwned>(all: Vec<Value>) -> Vec<T> {
        all.into_iter()
            .map(|v| serde_json::from_value(v).unwrap())
            .collect()
    }
    let store = Store::default();
    let version = (history.len() + 1).to_string();
    store.reset_node_claims(typed(of(2)), &version);
    store.reset_nodes(typed(of(1)), &version);
    store.reset_pods(typed(of(0)), &version);
    store.reset_csi_nodes(typed(of(5)), &version);
    store.reset_volume_claims(typed(of(3)), &version);
    store.reset_volumes(typed(of(4)), &version);
    store
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_order_of_events_gives_the_same_state(
        (history, order) in writes().prop_flat_map(|w| {
            let indices: Vec<usize> = (0..w.len()).chain(0..w.len() / 2).collect();
            (Just(w), Just(indices).prop_shuffle())
        }),
        look_every in 1..5usize,
    ) {
        let in_order = Store::default();
        for (i, write) in history.iter().enumerate() {
            apply(&in_order, write, i + 1);
        }
        let shuffled = Store::default();
        for (n, i) in order.iter().enumerate() {
            apply(&shuffled, &history[*i], i + 1);
            if n % look_every == 0 {
                // Views are kept between looks: a look in between must not freeze anything.
                let _ = shuffled.node_views();
            }
        }
        let fresh = snapshot(&listed(&history));
        prop_assert_eq!(&snapshot(&in_order), &fresh);
        prop_assert_eq!(&snapshot(&shuffled), &fresh);
    }
}
