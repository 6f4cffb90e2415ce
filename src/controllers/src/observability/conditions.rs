//! `operator_*`: conditions of our objects and of Nodes, what they are now, how long they have been, and what they were
//! before; and how long objects take to be deleted. One family a kind, and the older ones that name the kind in labels.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use karpenter_api::kinds::ObjectMeta;
use karpenter_api::labels;
use karpenter_cloud::NodeClassKind;
use karpenter_model::PodKey;
use karpenter_runtime::metrics::Metrics;
use karpenter_state::{Kind, Store};

use super::seconds;
use crate::lifecycle::objects::{label_or_empty, name};

/// Metrics of a kind, and whose they are.
pub(super) struct Family {
    kind: Kind,
    /// API group and kind as the older metrics name them; none for kinds that never had those.
    twin: Option<(&'static str, &'static str)>,
    /// Labels besides those that all have.
    labelled: Labelled,
    transition: &'static str,
    count: &'static str,
    current: &'static str,
    transitions: &'static str,
    deleting: &'static str,
    deleted: &'static str,
}

/// Labels of objects that become labels of their metrics.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Labelled {
    No,
    PoolAndClass,
    PoolAndClassAndInitialized,
}

/// Kinds of the core.
static CORE: [Family; 4] = [
    Family {
        kind: Kind::NodeClaim,
        twin: Some(("karpenter.sh", "NodeClaim")),
        labelled: Labelled::PoolAndClass,
        transition: "operator_nodeclaim_status_condition_transition_seconds",
        count: "operator_nodeclaim_status_condition_count",
        current: "operator_nodeclaim_status_condition_current_status_seconds",
        transitions: "operator_nodeclaim_status_condition_transitions_total",
        deleting: "operator_nodeclaim_termination_current_time_seconds",
        deleted: "operator_nodeclaim_termination_duration_seconds",
    },
    Family {
        kind: Kind::NodePool,
        twin: Some(("karpenter.sh", "NodePool")),
        labelled: Labelled::No,
        transition: "operator_nodepool_status_condition_transition_seconds",
        count: "operator_nodepool_status_condition_count",
        current: "operator_nodepool_status_condition_current_status_seconds",
        transitions: "operator_nodepool_status_condition_transitions_total",
        deleting: "operator_nodepool_termination_current_time_seconds",
        deleted: "operator_nodepool_termination_duration_seconds",
    },
    Family {
        kind: Kind::Node,
        twin: None,
        labelled: Labelled::PoolAndClassAndInitialized,
        transition: "operator_node_status_condition_transition_seconds",
        count: "operator_node_status_condition_count",
        current: "operator_node_status_condition_current_status_seconds",
        transitions: "operator_node_status_condition_transitions_total",
        deleting: "operator_node_termination_current_time_seconds",
        deleted: "operator_node_termination_duration_seconds",
    },
    Family {
        kind: Kind::CapacityBuffer,
        twin: Some(("autoscaling.x-k8s.io", "CapacityBuffer")),
        labelled: Labelled::No,
        transition: "operator_capacitybuffer_status_condition_transition_seconds",
        count: "operator_capacitybuffer_status_condition_count",
        current: "operator_capacitybuffer_status_condition_current_status_seconds",
        transitions: "operator_capacitybuffer_status_condition_transitions_total",
        deleting: "operator_capacitybuffer_termination_current_time_seconds",
        deleted: "operator_capacitybuffer_termination_duration_seconds",
    },
];
/// The NodeClass of EC2; other providers' have no family of their own.
static EC2_NODE_CLASS: Family = Family {
    kind: Kind::NodeClass,
    twin: Some(("karpenter.k8s.aws", "EC2NodeClass")),
    labelled: Labelled::No,
    transition: "operator_ec2nodeclass_status_condition_transition_seconds",
    count: "operator_ec2nodeclass_status_condition_count",
    current: "operator_ec2nodeclass_status_condition_current_status_seconds",
    transitions: "operator_ec2nodeclass_status_condition_transitions_total",
    deleting: "operator_ec2nodeclass_termination_current_time_seconds",
    deleted: "operator_ec2nodeclass_termination_duration_seconds",
};

/// Kinds that may have a family.
pub(super) const KINDS: [Kind; 5] = [
    Kind::NodeClaim,
    Kind::NodePool,
    Kind::Node,
    Kind::CapacityBuffer,
    Kind::NodeClass,
];

/// The family of a kind, if it is told of.
pub(super) fn family(kind: Kind, class: &NodeClassKind, of_all: bool) -> Option<&'static Family> {
    if kind == Kind::NodeClass {
        return (class.kind == "EC2NodeClass").then_some(&EC2_NODE_CLASS);
    }
    CORE.iter().find(|f| f.kind == kind).filter(|_| of_all)
}

/// A condition as far as metrics care.
#[derive(Clone, Debug, PartialEq)]
struct State {
    kind: String,
    status: String,
    reason: String,
    since: Option<Timestamp>,
}

/// An object as far as metrics care.
#[derive(Clone, Debug, Default)]
struct Object {
    namespace: String,
    name: String,
    deleting: Option<Timestamp>,
    conditions: Vec<State>,
    /// Values of the additional labels: NodeClass, NodePool, whether initialized.
    extra: [String; 3],
}

/// Objects as they were last seen.
#[derive(Default)]
pub(super) struct Conditions {
    seen: BTreeMap<(Kind, PodKey), Object>,
}

impl Conditions {
    /// Takes note of a change.
    pub(super) fn observe(
        &mut self,
        metrics: &Metrics,
        state: &Store,
        class: &NodeClassKind,
        family: &'static Family,
        key: &PodKey,
        now: Timestamp,
    ) {
        let key = key.clone();
        let Some(object) = read(state, class, family.kind, &key) else {
            let gone = self.seen.remove(&(family.kind, key));
            if let Some(gone) = gone
                && let Some(since) = gone.deleting
            {
                let took = seconds(since, now);
                metrics.observe(family.deleted, &extra(family, &gone), took);
                if let Some(twin) = twin(family) {
                    metrics.observe("operator_termination_duration_seconds", &twin, took);
                }
            }
            return;
        };
        let before = self.seen.insert((family.kind, key), object.clone());
        for condition in &object.conditions {
            let known = before.as_ref().and_then(|o| {
                let mut all = o.conditions.iter();
                all.find(|c| c.kind == condition.kind)
            });
            if known.is_some_and(|k| k.status == condition.status) {
                continue;
            }
            transitioned(metrics, family, &object, known, condition);
        }
    }
}

fn transitioned(
    metrics: &Metrics,
    family: &Family,
    object: &Object,
    before: Option<&State>,
    after: &State,
) {
    let entered = [
        ("type", after.kind.as_str()),
        ("status", after.status.as_str()),
        ("reason", after.reason.as_str()),
    ];
    let own = [&entered[..], &extra(family, object)].concat();
    metrics.inc(family.transitions, &own);
    let twins = twin(family);
    if let Some(twin) = &twins {
        let labels = [&twin[..], &entered].concat();
        metrics.inc("operator_status_condition_transitions_total", &labels);
    }
    // Of a condition that was not there nobody knows how long it was not.
    let Some(before) = before else {
        return;
    };
    let (Some(from), Some(to)) = (before.since, after.since) else {
        return;
    };
    let left = [
        ("type", before.kind.as_str()),
        ("status", before.status.as_str()),
    ];
    let own = [&left[..], &extra(family, object)].concat();
    metrics.observe(family.transition, &own, seconds(from, to));
    if let Some(twin) = &twins {
        let labels = [&twin[..], &left].concat();
        let name = "operator_status_condition_transition_seconds";
        metrics.observe(name, &labels, seconds(from, to));
    }
}

/// Sets the gauges of all objects of all kinds.
pub(super) fn tell(
    metrics: &Metrics,
    state: &Store,
    class: &NodeClassKind,
    of_all: bool,
    now: Timestamp,
) {
    let families: Vec<&Family> = KINDS
        .iter()
        .filter_map(|k| family(*k, class, of_all))
        .collect();
    let mut twins = Gauges::default();
    for family in families {
        let mut own = Gauges::default();
        for key in keys(state, family.kind) {
            let Some(object) = read(state, class, family.kind, &key) else {
                continue;
            };
            let extra: Vec<Box<str>> = extra(family, &object)
                .iter()
                .map(|(_, value)| (*value).into())
                .collect();
            own.add(&[], &object, &extra, now);
            if let Some((group, kind)) = family.twin {
                twins.add(&[group, kind], &object, &[], now);
            }
        }
        own.set(metrics, family.count, family.current, family.deleting);
    }
    twins.set(
        metrics,
        "operator_status_condition_count",
        "operator_status_condition_current_status_seconds",
        "operator_termination_current_time_seconds",
    );
}

/// Samples of the three gauges of a family.
#[derive(Default)]
struct Gauges {
    count: Vec<(Vec<Box<str>>, f64)>,
    current: Vec<(Vec<Box<str>>, f64)>,
    deleting: Vec<(Vec<Box<str>>, f64)>,
}

impl Gauges {
    /// Label values are in the order of the tables' rows: `before`, the object, its condition, `after`.
    fn add(&mut self, before: &[&str], object: &Object, after: &[Box<str>], now: Timestamp) {
        let values = |condition: &[&str]| -> Vec<Box<str>> {
            let who = [object.namespace.as_str(), object.name.as_str()];
            let all = before.iter().chain(&who).chain(condition);
            all.map(|v| Box::from(*v))
                .chain(after.iter().cloned())
                .collect()
        };
        for c in &object.conditions {
            let labels = values(&[&c.kind, &c.status, &c.reason]);
            if let Some(since) = c.since {
                self.current.push((labels.clone(), seconds(since, now)));
            }
            self.count.push((labels, 1.0));
        }
        if let Some(since) = object.deleting {
            self.deleting.push((values(&[]), seconds(since, now)));
        }
    }

    fn set(
        self,
        metrics: &Metrics,
        count: &'static str,
        current: &'static str,
        deleting: &'static str,
    ) {
        metrics.replace(count, self.count);
        metrics.replace(current, self.current);
        metrics.replace(deleting, self.deleting);
    }
}

/// Additional labels and their values, in the order of the tables' rows.
fn extra<'a>(family: &Family, object: &'a Object) -> Vec<(&'static str, &'a str)> {
    let [class, pool, initialized] = &object.extra;
    let mut all = Vec::new();
    if family.labelled >= Labelled::PoolAndClass {
        all.push(("karpenter_k8s_aws_ec2nodeclass", class.as_str()));
        all.push(("karpenter_sh_nodepool", pool.as_str()));
    }
    if family.labelled == Labelled::PoolAndClassAndInitialized {
        all.push(("karpenter_sh_initialized", initialized.as_str()));
    }
    all
}

fn twin(family: &Family) -> Option<[(&'static str, &'static str); 2]> {
    family.twin.map(|(g, k)| [("group", g), ("kind", k)])
}

/// Names of all objects of a kind.
pub(super) fn keys(state: &Store, kind: Kind) -> Vec<PodKey> {
    let cluster = |meta: &ObjectMeta| PodKey {
        namespace: "".into(),
        name: name(meta).into(),
    };
    match kind {
        Kind::NodeClaim => state
            .node_claims()
            .iter()
            .map(|o| cluster(&o.metadata))
            .collect(),
        Kind::NodePool => state
            .node_pools()
            .iter()
            .map(|o| cluster(&o.metadata))
            .collect(),
        Kind::Node => state.nodes().iter().map(|o| cluster(&o.metadata)).collect(),
        Kind::NodeClass => state
            .node_classes()
            .iter()
            .map(|o| cluster(&o.metadata))
            .collect(),
        Kind::CapacityBuffer => state.capacity_buffers(),
        _ => Vec::new(),
    }
}

fn read(state: &Store, class: &NodeClassKind, kind: Kind, key: &PodKey) -> Option<Object> {
    let ours = |all: &[karpenter_api::kinds::Condition]| {
        let each = all.iter().map(|c| State {
            kind: c.type_.clone(),
            status: c.status.clone(),
            reason: c.reason.clone(),
            since: Some(c.last_transition_time.0),
        });
        each.collect::<Vec<_>>()
    };
    let object = |meta: &ObjectMeta, conditions: Vec<State>| Object {
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: name(meta).to_owned(),
        deleting: meta.deletion_timestamp.as_ref().map(|t| t.0),
        conditions,
        extra: [
            label_or_empty(meta, &class.label()),
            label_or_empty(meta, labels::NODEPOOL),
            label_or_empty(meta, labels::INITIALIZED),
        ]
        .map(str::to_owned),
    };
    match kind {
        Kind::NodeClaim => {
            let held: Arc<_> = state.node_claim(&key.name)?;
            Some(object(&held.metadata, ours(&held.status.conditions)))
        }
        Kind::NodePool => {
            let held = state.node_pool(&key.name)?;
            Some(object(&held.metadata, ours(&held.status.conditions)))
        }
        Kind::CapacityBuffer => {
            let held = state.capacity_buffer(key)?;
            Some(object(&held.metadata, ours(&held.status.conditions)))
        }
        Kind::NodeClass => {
            let held = state.node_class(&key.name)?;
            let all = held.data.pointer("/status/conditions").cloned();
            let all = all.and_then(|c| serde_json::from_value::<Vec<_>>(c).ok());
            Some(object(&held.metadata, ours(&all.unwrap_or_default())))
        }
        Kind::Node => {
            let held = state.node(&key.name)?;
            let all = held
                .status
                .iter()
                .flat_map(|s| s.conditions.iter().flatten());
            let all = all.map(|c| State {
                kind: c.type_.clone(),
                status: c.status.clone(),
                reason: c.reason.clone().unwrap_or_default(),
                since: c.last_transition_time.as_ref().map(|t| t.0),
            });
            let all = all.collect();
            Some(object(&held.metadata, all))
        }
        _ => None,
    }
}
