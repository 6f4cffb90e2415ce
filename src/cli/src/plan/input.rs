//! From objects to a problem: what is bound counts as there, what is not is to be placed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{
    LimitRange, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod as RawPod,
    PodTemplate, ReplicationController, Service, TopologySpreadConstraint,
};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::{CSINode, StorageClass};
use karpenter_api::{CapacityBuffer, NodeClaim, NodeOverlay, NodePool};
use karpenter_controllers::overlay::shelf;
use karpenter_controllers::provisioning::pools;
use karpenter_e2e::json::{name, text};
use karpenter_e2e::kinds;
use karpenter_model::overlay::{self, Shelf};
use karpenter_model::{
    ContainerDefaults, InstanceType, LabelRegistry, Namespaces, Pod, PoolView, Problem,
    SolveOptions,
};
use karpenter_provider_kwok::catalog::{self, Catalog};
use karpenter_runtime::Settings;
use karpenter_runtime::settings::scheduler::default_constraints;
use karpenter_state::{Resolution, Store, Watched};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Args, volumes, workloads};
use crate::output::Failure;

/// A problem and what was noticed while reading it.
pub(super) struct Read {
    pub(super) problem: Problem,
    pub(super) warnings: Vec<String>,
}

/// What somebody asked to be planned with.
pub(crate) struct Asked<'a> {
    /// `--catalog`.
    pub(crate) catalog: Option<&'a str>,
    /// `--instance-types`.
    pub(crate) instance_types: Option<&'a Path>,
    pub(crate) best_effort_min_values: bool,
}

/// What can be bought, by whom.
pub(crate) struct Offer {
    pub(crate) labels: Arc<LabelRegistry>,
    types: Types,
    pub(crate) warnings: Vec<String>,
    pub(crate) errors: Vec<String>,
}

impl Offer {
    /// What is sold to a pool; none if nothing is.
    pub(crate) fn types_of(&self, pool: &str) -> Option<Arc<Vec<Arc<InstanceType>>>> {
        match &self.types {
            Types::Common(types) => Some(types.clone()),
            // Why it is sold nothing is among the offer's errors.
            Types::ByPool(by_pool) => by_pool.get(pool).cloned(),
        }
    }
}

enum Types {
    /// The same for every pool.
    Common(Arc<Vec<Arc<InstanceType>>>),
    /// By name of the pool; one that is not there is sold nothing.
    ByPool(BTreeMap<String, Arc<Vec<Arc<InstanceType>>>>),
}

/// What can be bought for the pools among `objects`: of a file, or of the catalogue that was asked for, or of the one
/// that their NodeClasses speak of.
pub(crate) fn offer(asked: &Asked<'_>, objects: &[Value]) -> Result<Offer, Failure> {
    if let Some(file) = asked.instance_types {
        let bytes =
            std::fs::read(file).map_err(|e| format!("{}: cannot be read: {e}", file.display()))?;
        return Ok(of_kwok(catalog::parse(
            &bytes,
            &file.display().to_string(),
        )?));
    }
    let guessed = || {
        let on_ec2 = |o: &Value| {
            text(o, "/kind") == "EC2NodeClass"
                || text(o, "/spec/template/spec/nodeClassRef/kind") == "EC2NodeClass"
        };
        let ec2 = objects.iter().any(on_ec2);
        if ec2 { "ec2" } else { "kwok" }.to_owned()
    };
    let catalog = asked.catalog.map_or_else(guessed, str::to_owned);
    match catalog.split_once(':').unwrap_or((&catalog, "us-east-1")) {
        ("kwok", _) if !catalog.contains(':') => Ok(of_kwok(catalog::builtin())),
        ("ec2", region) if !region.is_empty() => of_ec2(region, asked, objects),
        _ => Err(format!("--catalog: expected kwok, ec2 or ec2:REGION, got {catalog:?}").into()),
    }
}

fn of_kwok(catalog: Catalog) -> Offer {
    Offer {
        labels: catalog.labels,
        types: Types::Common(Arc::new(catalog.types)),
        warnings: Vec::new(),
        errors: catalog.rejected.iter().map(ToString::to_string).collect(),
    }
}

fn of_ec2(region: &str, asked: &Asked<'_>, objects: &[Value]) -> Result<Offer, Failure> {
    // What cannot be read is said when the problem is built.
    let pools: Vec<NodePool> = objects
        .iter()
        .filter(|o| text(o, "/kind") == "NodePool")
        .filter_map(|o| serde_json::from_value(o.clone()).ok())
        .collect();
    let settings = Settings {
        best_effort_min_values: asked.best_effort_min_values,
        ..Settings::default()
    };
    let shop = crate::runtime::virtual_time()?
        .block_on(karpenter_e2e::shop::ec2(region, &pools, objects, settings))?;
    Ok(Offer {
        labels: shop.labels,
        types: Types::ByPool(shop.types),
        warnings: shop.warnings,
        errors: shop.errors,
    })
}

/// Reads an object of a kind; what cannot be read is named and left out.
fn read<T: DeserializeOwned>(object: Value, errors: &mut Vec<String>) -> Option<T> {
    karpenter_e2e::strict::read(&object)
        .map_err(|objection| errors.push(objection.to_string()))
        .ok()
}

/// The topology spread that a file of `--scheduler-config` gives to pods without one of their own.
pub(crate) fn spread_defaults(
    file: Option<&Path>,
) -> Result<Vec<TopologySpreadConstraint>, Failure> {
    let Some(file) = file else {
        return Ok(Vec::new());
    };
    let shown = file.display();
    let text = std::fs::read_to_string(file)
        .map_err(|e| format!("--scheduler-config: {shown}: cannot be read: {e}"))?;
    let constraints = default_constraints(&text);
    Ok(constraints.map_err(|e| format!("--scheduler-config: {shown}: {e}"))?)
}

/// Builds the problem.
pub(super) fn problem(
    mut objects: Vec<Value>,
    offer: &Offer,
    (args, spread): (&Args, Vec<TopologySpreadConstraint>),
    errors: &mut Vec<String>,
) -> Read {
    volumes::name_class(&mut objects);
    let given = objects.iter().map(|o| text(o, "/kind").to_owned());
    let given: BTreeSet<String> = given.collect();
    let store = Store::default();
    store.set_spread_defaults(spread);
    let (mut pods, mut pools, mut warnings): (Vec<Arc<Pod>>, Vec<NodePool>, Vec<String>) =
        Default::default();
    let (mut classes, mut ignored) = (BTreeSet::new(), BTreeSet::new());
    let defaults = defaults(&objects, &store, errors);
    for mut object in objects {
        settle(&mut object);
        let kind = text(&object, "/kind").to_owned();
        match kind.as_str() {
            "Pod" => {
                if let Some(pod) = read::<RawPod>(object, errors) {
                    place(pod, &defaults, &store, &mut pods, errors);
                }
            }
            "LimitRange" => {}
            "Node" => read::<Node>(object, errors)
                .into_iter()
                .for_each(|n| store.apply_node(n)),
            "NodeClaim" => read::<NodeClaim>(object, errors)
                .into_iter()
                .for_each(|c| store.apply_node_claim(c)),
            "NodePool" => pools.extend(read::<NodePool>(object, errors)),
            "DaemonSet" => read::<DaemonSet>(object, errors)
                .into_iter()
                .for_each(|d| store.apply_daemon_set(d)),
            "PodDisruptionBudget" => {
                read::<PodDisruptionBudget>(object, errors)
                    .into_iter()
                    .for_each(|b| store.apply_budget(b));
            }
            "Deployment" | "ReplicaSet" | "StatefulSet" | "Job" => {
                let mut made = workloads::pods(&object, errors);
                volumes::claim_for(&object, &mut made, &store, errors);
                for pod in made {
                    place(pod, &defaults, &store, &mut pods, errors);
                }
                // What is wrong with it was told by its pods.
                let told = &mut Vec::new();
                match kind.as_str() {
                    "Deployment" => apply::<Deployment>(object, &store, told),
                    "ReplicaSet" => apply::<ReplicaSet>(object, &store, told),
                    "StatefulSet" => apply::<StatefulSet>(object, &store, told),
                    _ => {}
                }
            }
            "PersistentVolumeClaim" => apply::<PersistentVolumeClaim>(object, &store, errors),
            "PersistentVolume" => apply::<PersistentVolume>(object, &store, errors),
            "StorageClass" => apply::<StorageClass>(object, &store, errors),
            "CSINode" => apply::<CSINode>(object, &store, errors),
            "Namespace" => apply::<Namespace>(object, &store, errors),
            "PodTemplate" => apply::<PodTemplate>(object, &store, errors),
            "Service" => apply::<Service>(object, &store, errors),
            "ReplicationController" => apply::<ReplicationController>(object, &store, errors),
            "NodeOverlay" => apply::<NodeOverlay>(object, &store, errors),
            "CapacityBuffer" => apply::<CapacityBuffer>(object, &store, errors),
            class if class.ends_with("NodeClass") => {
                classes.insert((kind.clone(), name(&object).to_owned()));
            }
            _ => {
                ignored.insert(kind);
            }
        }
    }
    if !ignored.is_empty() {
        warnings.push(format!(
            "kinds that do not matter to a plan are passed over: {}",
            ignored.into_iter().collect::<Vec<_>>().join(", ")
        ));
    }
    let views = views(pools, &classes, offer, &store, errors, &mut warnings);
    for (key, resolution) in store.resolutions() {
        if let Resolution::NotReady { message, .. } = &*resolution {
            errors.push(format!("CapacityBuffer {}: {message}", key.name));
        }
    }
    pods.extend(store.virtual_pods());
    volumes::assume(&pods, &given, &store, &mut warnings);
    let pods = store.for_planning(pods, &offer.labels);
    let problem = Problem {
        namespaces: namespaces(&store, &pods),
        pods,
        nodes: store.problem_nodes(&BTreeSet::new()),
        pools: views,
        daemons: store.daemons(),
        volume_limits: store.volume_limits(),
        labels: Arc::clone(&offer.labels),
        options: SolveOptions {
            respect_preferences: !args.ignore_preferences,
            best_effort_min_values: args.best_effort_min_values,
            node_cost: args.node_cost,
            ..SolveOptions::default()
        },
    };
    Read { problem, warnings }
}

/// The pools that can be planned with, and what they are sold in the eyes of NodeOverlays.
fn views(
    pools: Vec<NodePool>,
    classes: &BTreeSet<(String, String)>,
    offer: &Offer,
    store: &Store,
    errors: &mut Vec<String>,
    warnings: &mut Vec<String>,
) -> Vec<Arc<PoolView>> {
    let (mut usable, mut shelves): (Vec<NodePool>, Vec<Shelf>) = Default::default();
    for pool in pools {
        let pool_name = pool.metadata.name.clone().unwrap_or_default();
        if !judge(&pool, &pool_name, &offer.labels, errors, warnings) {
            continue;
        }
        let class = &pool.spec.template.spec.node_class_ref;
        let others: Vec<&str> = classes
            .iter()
            .filter(|(kind, _)| *kind == class.kind)
            .map(|(_, name)| name.as_str())
            .collect();
        if !others.is_empty() && !others.contains(&class.name.as_str()) {
            errors.push(format!(
                "NodePool {pool_name}: spec.template.spec.nodeClassRef.name: {:?} is not among the files; expected one of the {} there: {}; planned as if it were ready",
                class.name, class.kind, others.join(", ")
            ));
        } else if others.is_empty() {
            warnings.push(format!(
                "NodePool {pool_name}: spec.template.spec.nodeClassRef: {} {} is not among the files; planned as if it were ready",
                class.kind, class.name
            ));
        }
        let Some(types) = offer.types_of(&pool_name) else {
            continue;
        };
        shelves.push(shelf(&pool, types, &offer.labels));
        usable.push(pool);
    }
    let overlays = store.node_overlays();
    let outcome = overlay::evaluate(overlays.iter().map(|o| &**o), &shelves, &offer.labels);
    for (name, verdict) in &outcome.verdicts {
        if let Err(refusal) = verdict {
            errors.push(format!(
                "NodeOverlay {name}: {}; planned without it",
                refusal.message()
            ));
        }
    }
    let mut views = Vec::new();
    for (pool, types) in usable.iter().zip(outcome.types) {
        let usage = store.usage(pool.metadata.name.as_deref().unwrap_or_default());
        match pools::pool_view(pool, types.to_vec(), usage, &offer.labels) {
            Ok(view) => views.push(Arc::new(view)),
            Err(e) => errors.push(e.to_string()),
        }
    }
    views
}

/// Gives an object that lives in a namespace the one that kubectl would.
pub(crate) fn settle(object: &mut Value) {
    let namespaced = kinds::of(text(object, "/kind")).is_some_and(|p| p.namespaced);
    if namespaced && text(object, "/metadata/namespace").is_empty() {
        let meta = object.get_mut("metadata").and_then(Value::as_object_mut);
        if let Some(meta) = meta {
            meta.insert("namespace".to_owned(), "default".into());
        }
    }
}

/// Labels by namespace with the one that every namespace gets by itself; those of the pods are all there. Nothing where no
/// namespace was given: then nothing is known of them.
fn namespaces(store: &Store, pods: &[Arc<Pod>]) -> Arc<Namespaces> {
    let mut all = Namespaces::clone(&store.namespaces());
    if all.is_empty() {
        return Arc::default();
    }
    let bound = store.pods();
    for pod in pods.iter().chain(&bound) {
        all.entry(pod.key.namespace.clone()).or_default();
    }
    for (name, labels) in &mut all {
        let own = labels.entry("kubernetes.io/metadata.name".to_owned());
        own.or_insert_with(|| name.to_string());
    }
    Arc::new(all)
}

pub(crate) fn apply<T: DeserializeOwned + Watched>(
    object: Value,
    store: &Store,
    errors: &mut Vec<String>,
) {
    if let Some(read) = read::<T>(object, errors) {
        read.apply(store);
    }
}

/// What the LimitRanges among the objects give, by namespace; the store gets to know them, too.
fn defaults(
    objects: &[Value],
    store: &Store,
    errors: &mut Vec<String>,
) -> BTreeMap<String, ContainerDefaults> {
    let mut ranges: BTreeMap<String, Vec<LimitRange>> = BTreeMap::new();
    for object in objects.iter().filter(|o| text(o, "/kind") == "LimitRange") {
        let mut object = object.clone();
        settle(&mut object);
        if let Some(range) = read::<LimitRange>(object, errors) {
            let namespace = range.metadata.namespace.clone().unwrap_or_default();
            ranges.entry(namespace).or_default().push(range.clone());
            store.apply_limit_range(range);
        }
    }
    let all = ranges.into_iter();
    all.map(|(namespace, here)| (namespace, ContainerDefaults::of(&here)))
        .collect()
}

/// Says what is wrong with a NodePool; whether it can be planned with. What its definition's own rules would refuse is
/// told here too: nobody has asked an API server about a file.
fn judge(
    pool: &NodePool,
    name: &str,
    labels: &LabelRegistry,
    errors: &mut Vec<String>,
    warnings: &mut Vec<String>,
) -> bool {
    let found = karpenter_api::validation::node_pool(pool, labels);
    let line = |p: &karpenter_api::validation::Problem| format!("NodePool {name}: {p}");
    errors.extend(found.problems.iter().map(line));
    warnings.extend(found.warnings.iter().map(line));
    let budgets = karpenter_api::budget::Budgets::of(&pool.spec.disruption);
    let broken = budgets.errors().iter();
    errors.extend(broken.map(|e| format!("NodePool {name}: {e}")));
    found.problems.is_empty()
}

/// A pod with a node is there; one without is to be placed; one that has ended is neither.
fn place(
    mut raw: RawPod,
    defaults: &BTreeMap<String, ContainerDefaults>,
    store: &Store,
    pods: &mut Vec<Arc<Pod>>,
    errors: &mut Vec<String>,
) {
    // A pod that is there was admitted long ago.
    if let Some(spec) = raw.spec.as_mut().filter(|s| s.node_name.is_none()) {
        let here = raw.metadata.namespace.as_deref().unwrap_or_default();
        defaults.get(here).cloned().unwrap_or_default().admit(spec);
    }
    match Pod::try_from_k8s(&raw) {
        Err(e) => errors.push(format!(
            "Pod {}/{}: {e}",
            raw.metadata.namespace.unwrap_or_default(),
            raw.metadata.name.unwrap_or_default()
        )),
        Ok(pod) if !pod.is_active() || pod.is_daemon() && pod.node_name.is_none() => {}
        Ok(pod) if pod.node_name.is_some() => store.apply_pod(raw),
        Ok(pod) => {
            volumes::ephemeral(&raw, store);
            pods.push(Arc::new(pod));
        }
    }
}
