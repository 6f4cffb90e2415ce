//! The cluster that is explained: read from files or from the API, fed to the same state that the controller keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{
    LimitRange, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, PodTemplate,
    ReplicationController, Service,
};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::{CSINode, StorageClass, VolumeAttachment};
use karpenter_api::convert::convert as to_v1;
use karpenter_api::{CapacityBuffer, NodeClaim, NodeOverlay, NodePool};
use karpenter_cloud::NodeClassKind;
use karpenter_controllers::explain::Cluster;
use karpenter_controllers::overlay::shelf;
use karpenter_e2e::json::text;
use karpenter_e2e::manifests;
use karpenter_model::InstanceType;
use karpenter_model::overlay::{self, Shelf};
use karpenter_runtime::Settings;
use karpenter_state::{Store, Watched};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::config::KubeConfigOptions;
use kube::{Client, Config};
use serde_json::Value;

use super::Args;
use crate::output::{self, Failure};
use crate::plan::input::{self, Asked};

const EC2: NodeClassKind = NodeClassKind {
    group: "karpenter.k8s.aws",
    version: "v1",
    kind: "EC2NodeClass",
    plural: "ec2nodeclasses",
};
const KWOK: NodeClassKind = NodeClassKind {
    group: "karpenter.kwok.sh",
    version: "v1alpha1",
    kind: "KWOKNodeClass",
    plural: "kwoknodeclasses",
};

/// Kinds that are asked of a cluster: group, version, kind, plural. Those that it does not serve are passed over.
const KINDS: [(&str, &str, &str, &str); 23] = [
    ("karpenter.sh", "v1", "NodePool", "nodepools"),
    ("karpenter.sh", "v1", "NodeClaim", "nodeclaims"),
    ("karpenter.sh", "v1alpha1", "NodeOverlay", "nodeoverlays"),
    (EC2.group, EC2.version, EC2.kind, EC2.plural),
    (KWOK.group, KWOK.version, KWOK.kind, KWOK.plural),
    (
        "autoscaling.x-k8s.io",
        "v1beta1",
        "CapacityBuffer",
        "capacitybuffers",
    ),
    ("", "v1", "Node", "nodes"),
    ("", "v1", "Pod", "pods"),
    ("", "v1", "PodTemplate", "podtemplates"),
    ("", "v1", "Namespace", "namespaces"),
    ("", "v1", "LimitRange", "limitranges"),
    ("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
    ("", "v1", "PersistentVolume", "persistentvolumes"),
    ("", "v1", "Service", "services"),
    ("", "v1", "ReplicationController", "replicationcontrollers"),
    ("apps", "v1", "DaemonSet", "daemonsets"),
    ("apps", "v1", "Deployment", "deployments"),
    ("apps", "v1", "ReplicaSet", "replicasets"),
    ("apps", "v1", "StatefulSet", "statefulsets"),
    (
        "policy",
        "v1",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
    ),
    ("storage.k8s.io", "v1", "StorageClass", "storageclasses"),
    ("storage.k8s.io", "v1", "CSINode", "csinodes"),
    (
        "storage.k8s.io",
        "v1",
        "VolumeAttachment",
        "volumeattachments",
    ),
];

/// Objects of files, those of before v1 as `convert` would rewrite them, and what could not be.
pub(super) fn of_files(files: &[PathBuf]) -> Result<(Vec<Value>, Vec<String>), Failure> {
    let mut objects = Vec::new();
    for file in files {
        objects.extend(manifests::read_objects(file)?);
    }
    let converted = to_v1(objects);
    let errors = converted.errors.iter().map(ToString::to_string);
    Ok((converted.docs, errors.collect()))
}

/// Objects of the cluster that the kubeconfig names.
pub(super) async fn live() -> Result<Vec<Value>, Failure> {
    let config = Config::from_kubeconfig(&KubeConfigOptions::default())
        .await
        .map_err(|e| format!("no cluster to ask: {e}; name files with -f instead"))?;
    let url = config.cluster_url.to_string();
    let client = Client::try_from(config).map_err(|e| format!("{url}: {e}"))?;
    let mut objects = Vec::new();
    for (group, version, kind, plural) in KINDS {
        let resource =
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        let listed = match api.list(&ListParams::default()).await {
            Ok(listed) => listed,
            Err(kube::Error::Api(status)) if status.code == 404 => continue,
            Err(e) => return Err(format!("{url}: listing {plural}: {e}").into()),
        };
        for object in listed.items {
            let mut value = serde_json::to_value(&object)?;
            if let Some(fields) = value.as_object_mut() {
                // Items of a list do not say what they are.
                fields.insert("apiVersion".to_owned(), resource.api_version.clone().into());
                fields.insert("kind".to_owned(), kind.into());
            }
            objects.push(value);
        }
    }
    Ok(objects)
}

/// The cluster that the objects make, and what is wrong with them.
pub(super) fn of_objects(
    args: &Args,
    objects: Vec<Value>,
    now: Timestamp,
) -> Result<(Cluster, Vec<String>), Failure> {
    let asked = Asked {
        catalog: args.catalog.as_deref(),
        instance_types: args.instance_types.as_deref(),
        best_effort_min_values: false,
    };
    let mut settings = Settings::default();
    if let Some(gates) = &args.feature_gates {
        // Of settings that are not about gates nothing is asked.
        let told = [
            "--provider=kwok".to_owned(),
            format!("--feature-gates={gates}"),
        ];
        settings = Settings::parse(told, &BTreeMap::new()).map_err(|all| {
            let each: Vec<String> = all.iter().map(ToString::to_string).collect();
            each.join("; ")
        })?;
    }
    let offer = input::offer(&asked, &objects)?;
    for warning in &offer.warnings {
        output::note(&format!("warning: {warning}"));
    }
    let mut errors = offer.errors.clone();
    let on_ec2 = |o: &Value| {
        text(o, "/spec/nodeClassRef/kind") == EC2.kind
            || text(o, "/spec/template/spec/nodeClassRef/kind") == EC2.kind
    };
    let class = if objects.iter().any(on_ec2) {
        EC2
    } else {
        KWOK
    };
    let state = Arc::new(Store::default());
    state.set_spread_defaults(input::spread_defaults(args.scheduler_config.as_deref())?);
    feed(&state, objects, &mut errors);
    let pools = state.node_pools();
    let shelves: Vec<Shelf> = pools
        .iter()
        .filter_map(|pool| {
            let name = pool.metadata.name.as_deref().unwrap_or_default();
            Some(shelf(pool, offer.types_of(name)?, &offer.labels))
        })
        .collect();
    let overlays = state.node_overlays();
    let seen = overlay::evaluate(overlays.iter().map(|o| &**o), &shelves, &offer.labels);
    for (name, verdict) in &seen.verdicts {
        if let Err(refusal) = verdict {
            let why = refusal.message();
            errors.push(format!("NodeOverlay {name}: {why}; explained without it"));
        }
    }
    let names = shelves.iter().map(|s| s.pool.clone());
    let types: BTreeMap<Arc<str>, Arc<Vec<Arc<InstanceType>>>> = names.zip(seen.types).collect();
    let cluster = Cluster::new(state, offer.labels, &class, &settings, &types, now);
    Ok((cluster, errors))
}

fn feed(state: &Store, objects: Vec<Value>, errors: &mut Vec<String>) {
    let mut ignored = BTreeSet::new();
    for mut object in objects {
        input::settle(&mut object);
        let kind = text(&object, "/kind").to_owned();
        match kind.as_str() {
            "Pod" => input::apply::<Pod>(object, state, errors),
            "Node" => input::apply::<Node>(object, state, errors),
            "NodeClaim" => input::apply::<NodeClaim>(object, state, errors),
            "NodePool" => input::apply::<NodePool>(object, state, errors),
            "NodeOverlay" => input::apply::<NodeOverlay>(object, state, errors),
            "CapacityBuffer" => input::apply::<CapacityBuffer>(object, state, errors),
            "PodTemplate" => input::apply::<PodTemplate>(object, state, errors),
            "Namespace" => input::apply::<Namespace>(object, state, errors),
            "LimitRange" => input::apply::<LimitRange>(object, state, errors),
            "PersistentVolumeClaim" => {
                input::apply::<PersistentVolumeClaim>(object, state, errors);
            }
            "PersistentVolume" => input::apply::<PersistentVolume>(object, state, errors),
            "Service" => input::apply::<Service>(object, state, errors),
            "ReplicationController" => {
                input::apply::<ReplicationController>(object, state, errors);
            }
            "DaemonSet" => input::apply::<DaemonSet>(object, state, errors),
            "Deployment" => input::apply::<Deployment>(object, state, errors),
            "ReplicaSet" => input::apply::<ReplicaSet>(object, state, errors),
            "StatefulSet" => input::apply::<StatefulSet>(object, state, errors),
            "PodDisruptionBudget" => input::apply::<PodDisruptionBudget>(object, state, errors),
            "StorageClass" => input::apply::<StorageClass>(object, state, errors),
            "CSINode" => input::apply::<CSINode>(object, state, errors),
            "VolumeAttachment" => input::apply::<VolumeAttachment>(object, state, errors),
            class if class.ends_with("NodeClass") => {
                match serde_json::from_value::<DynamicObject>(object) {
                    Ok(class) => class.apply(state),
                    Err(e) => errors.push(format!("{class}: {e}")),
                }
            }
            _ => {
                ignored.insert(kind);
            }
        }
    }
    if !ignored.is_empty() {
        let all: Vec<String> = ignored.into_iter().collect();
        output::note(&format!(
            "warning: kinds that do not matter here are passed over: {}",
            all.join(", ")
        ));
    }
}
