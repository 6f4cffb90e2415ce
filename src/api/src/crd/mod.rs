//! CustomResourceDefinitions of the provider-neutral kinds: one source for the charts, the harness and validation
//! on the command line. Providers make their own with [`schema`].

pub mod chart;
pub mod compare;
mod parts;
pub mod schema;

use serde_json::{Value, json};

use parts::RequirementRules;
use schema::{
    Names, age, at_most, atomic, bounded, column, condition_path, conditions, default, definition,
    doc, int32, int64, map, matching, object, one_of, pattern, resources, rules, text, time, with,
};

/// A label domain of a provider in which users may set only some keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelDomain {
    /// Such as `karpenter.k8s.aws`.
    pub domain: String,
    /// Keys allowed in requirements of NodePools and NodeClaims.
    pub requirement_keys: Vec<String>,
    /// Keys allowed as labels of a NodePool's template.
    pub label_keys: Vec<String>,
    /// Keys allowed in requirements of NodeOverlays.
    pub overlay_keys: Vec<String>,
}

/// The definitions of NodePool, NodeClaim, NodeOverlay and CapacityBuffer, with the label rules of `domains`.
#[must_use]
pub fn core(domains: &[LabelDomain]) -> Vec<Value> {
    let overlay: Vec<LabelDomain> = domains
        .iter()
        .map(|d| LabelDomain {
            requirement_keys: d.overlay_keys.clone(),
            ..d.clone()
        })
        .collect();
    vec![
        node_pool(domains),
        node_claim(domains),
        node_overlay(&overlay),
        capacity_buffer(),
    ]
}

const KARPENTER: Names<'static> = Names {
    group: "karpenter.sh",
    version: "v1",
    kind: "",
    plural: "",
    singular: "",
    short: &[],
    category: "karpenter",
    namespaced: false,
    spec_required: true,
};

fn ready() -> Value {
    column("Ready", "string", &condition_path("Ready"), false)
}

fn node_pool(domains: &[LabelDomain]) -> Value {
    let names = Names {
        kind: "NodePool",
        plural: "nodepools",
        singular: "nodepool",
        ..KARPENTER
    };
    let columns = vec![
        column(
            "NodeClass",
            "string",
            ".spec.template.spec.nodeClassRef.name",
            false,
        ),
        column("Nodes", "string", ".status.nodes", false),
        ready(),
        age(),
        column("Weight", "integer", ".spec.weight", true),
        column("CPU", "string", ".status.resources.cpu", true),
        column("Memory", "string", ".status.resources.memory", true),
    ];
    let spec = rules(
        &[
            (
                "has(self.replicas) == has(oldSelf.replicas)",
                "a NodePool stays static (replicas set) or dynamic (replicas unset) for life",
            ),
            (
                "!has(self.replicas) || (!has(self.limits) || size(self.limits) == 0 || (size(self.limits) == 1 && 'nodes' in self.limits))",
                "a static NodePool can be limited by 'nodes' only",
            ),
            (
                "!has(self.replicas) || !has(self.weight)",
                "a static NodePool has no 'weight'",
            ),
        ],
        object(
            vec![
                ("template", template(domains)),
                ("disruption", disruption()),
                (
                    "limits",
                    doc(
                        "Most that all machines of the pool may add up to; 'nodes' counts machines.",
                        resources(),
                    ),
                ),
                (
                    "weight",
                    doc("Higher is tried first.", bounded(1, Some(100), int32())),
                ),
                (
                    "replicas",
                    doc(
                        "Makes the pool static: this many machines, whatever pods ask.",
                        bounded(0, None, int64()),
                    ),
                ),
            ],
            &["template"],
        ),
    );
    let status = object(
        vec![
            ("resources", resources()),
            ("nodes", default(&json!(0), int64())),
            ("nodeClassObservedGeneration", int64()),
            ("conditions", conditions(true, false)),
        ],
        &[],
    );
    let scale = json!({ "scale": { "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.nodes" } });
    let about =
        "A family of machines: what may be bought, how much of it, and when it may be given back.";
    definition(&names, about, columns, spec, status, Some(scale))
}

fn template(domains: &[LabelDomain]) -> Value {
    let annotations = with(map(text()), json!({ "x-kubernetes-map-type": "granular" }));
    let metadata = object(
        vec![
            ("labels", parts::template_labels(domains)),
            ("annotations", doc("Annotations of the nodes.", annotations)),
        ],
        &[],
    );
    let rules = RequirementRules {
        pool_label_restricted: true,
        min_values: true,
        not_in_needs_value: false,
    };
    let spec = object(
        vec![
            ("nodeClassRef", parts::node_class_ref(true)),
            ("requirements", parts::requirements(&rules, domains)),
            ("taints", parts::taints("Taints that nodes carry for good.")),
            (
                "startupTaints",
                parts::taints("Taints that something takes off while a node starts."),
            ),
            ("expireAfter", parts::expire_after()),
            ("terminationGracePeriod", parts::termination_grace_period()),
        ],
        &["nodeClassRef", "requirements"],
    );
    doc(
        "What every machine of the pool starts from.",
        object(vec![("metadata", metadata), ("spec", spec)], &["spec"]),
    )
}

fn disruption() -> Value {
    let budget = object(
        vec![
            (
                "nodes",
                default(&json!("10%"), matching("^((100|[0-9]{1,2})%|[0-9]+)$")),
            ),
            ("reasons", parts::reasons()),
            (
                "schedule",
                matching(
                    r"^(@(annually|yearly|monthly|weekly|daily|midnight|hourly))|((.+)\s(.+)\s(.+)\s(.+)\s(.+))$",
                ),
            ),
            (
                "duration",
                matching("^((([0-9]+(h|m))|([0-9]+h[0-9]+m))(0s)?)$"),
            ),
        ],
        &["nodes"],
    );
    let budgets = rules(
        &[(
            "self.all(x, has(x.schedule) == has(x.duration))",
            "'schedule' and 'duration' come together",
        )],
        at_most(50, atomic(budget)),
    );
    let schema = object(
        vec![
            (
                "consolidateAfter",
                doc(
                    "Quiet time after which a node may be consolidated, or Never.",
                    matching(pattern::NILLABLE_DURATION),
                ),
            ),
            (
                "consolidationPolicy",
                default(
                    &json!("WhenEmptyOrUnderutilized"),
                    one_of(&["WhenEmpty", "WhenEmptyOrUnderutilized", "Balanced"]),
                ),
            ),
            (
                "budgets",
                doc(
                    "How many nodes may be disrupted at once.",
                    default(&json!([{ "nodes": "10%" }]), budgets),
                ),
            ),
        ],
        &["consolidateAfter"],
    );
    doc(
        "When machines may be given back.",
        default(&json!({ "consolidateAfter": "0s" }), schema),
    )
}

fn node_claim(domains: &[LabelDomain]) -> Value {
    let names = Names {
        kind: "NodeClaim",
        plural: "nodeclaims",
        singular: "nodeclaim",
        ..KARPENTER
    };
    let label = |key: &str| format!(".metadata.labels.{}", key.replace('.', "\\."));
    let columns = vec![
        column(
            "Type",
            "string",
            &label("node.kubernetes.io/instance-type"),
            false,
        ),
        column(
            "Capacity",
            "string",
            &label("karpenter.sh/capacity-type"),
            false,
        ),
        column(
            "Zone",
            "string",
            &label("topology.kubernetes.io/zone"),
            false,
        ),
        column("Node", "string", ".status.nodeName", false),
        ready(),
        age(),
        column("ImageID", "string", ".status.imageID", true),
        column("ID", "string", ".status.providerID", true),
        column("NodePool", "string", &label("karpenter.sh/nodepool"), true),
        column("NodeClass", "string", ".spec.nodeClassRef.name", true),
        column("Drifted", "string", &condition_path("Drifted"), true),
    ];
    let r = RequirementRules {
        pool_label_restricted: false,
        min_values: true,
        not_in_needs_value: false,
    };
    let spec = object(
        vec![
            ("nodeClassRef", parts::node_class_ref(false)),
            ("requirements", parts::requirements(&r, domains)),
            (
                "resources",
                doc(
                    "Least resources of the machine.",
                    object(vec![("requests", resources())], &[]),
                ),
            ),
            (
                "taints",
                parts::taints("Taints that the node carries for good."),
            ),
            (
                "startupTaints",
                parts::taints("Taints that something takes off while the node starts."),
            ),
            ("expireAfter", parts::expire_after()),
            ("terminationGracePeriod", parts::termination_grace_period()),
        ],
        &["nodeClassRef", "requirements"],
    );
    let status = object(
        vec![
            ("nodeName", text()),
            ("providerID", text()),
            ("imageID", text()),
            ("capacity", resources()),
            ("allocatable", resources()),
            ("conditions", conditions(true, true)),
            (
                "lastPodEventTime",
                doc("Last time a pod came to or left the node.", time()),
            ),
        ],
        &[],
    );
    let spec = rules(&[("self == oldSelf", "spec is immutable")], spec);
    definition(
        &names,
        "One machine, wanted or bought.",
        columns,
        spec,
        status,
        None,
    )
}

fn node_overlay(domains: &[LabelDomain]) -> Value {
    let names = Names {
        version: "v1alpha1",
        kind: "NodeOverlay",
        plural: "nodeoverlays",
        singular: "nodeoverlay",
        short: &["overlays"],
        ..KARPENTER
    };
    let columns = vec![
        ready(),
        age(),
        column("Weight", "integer", ".spec.weight", true),
    ];
    let r = RequirementRules {
        pool_label_restricted: false,
        min_values: false,
        not_in_needs_value: true,
    };
    let capacity = rules(
        &[(
            "self.all(x, !(x in ['cpu', 'memory', 'ephemeral-storage', 'pods']))",
            "only extended resources can be overlaid",
        )],
        resources(),
    );
    let spec = rules(
        &[(
            "!has(self.price) || !has(self.priceAdjustment)",
            "'price' and 'priceAdjustment' exclude each other",
        )],
        object(
            vec![
                ("requirements", parts::requirements(&r, domains)),
                (
                    "price",
                    doc(
                        "Price that replaces the provider's.",
                        matching(r"^\d+(\.\d+)?$"),
                    ),
                ),
                (
                    "priceAdjustment",
                    doc(
                        "Signed amount or percentage that changes the provider's price.",
                        matching(
                            r"^(([+-]{1}(\d*\.?\d+))|(\+{1}\d*\.?\d+%)|(^(-\d{1,2}(\.\d+)?%)$)|(-100%))$",
                        ),
                    ),
                ),
                (
                    "capacity",
                    doc("Extended resources that types have besides.", capacity),
                ),
                (
                    "weight",
                    doc("Higher wins.", bounded(1, Some(10_000), int32())),
                ),
            ],
            &["requirements"],
        ),
    );
    let status = object(vec![("conditions", conditions(true, false))], &[]);
    let about = "Changes price or extended resources of instance types in the eyes of scheduling.";
    definition(&names, about, columns, spec, status, None)
}

fn capacity_buffer() -> Value {
    let names = Names {
        group: "autoscaling.x-k8s.io",
        version: "v1beta1",
        kind: "CapacityBuffer",
        plural: "capacitybuffers",
        singular: "capacitybuffer",
        short: &["cb"],
        category: "autoscaling",
        namespaced: true,
        spec_required: true,
    };
    let columns = vec![
        column("Strategy", "string", ".spec.provisioningStrategy", false),
        column(
            "PodTemplate",
            "string",
            ".status.podTemplateRef.name",
            false,
        ),
        column("Replicas", "integer", ".status.replicas", false),
        column(
            "ConditionsType",
            "string",
            ".status.conditions[*].type",
            false,
        ),
        column(
            "ConditionsStatus",
            "string",
            ".status.conditions[*].status",
            false,
        ),
        column(
            "ConditionsReason",
            "string",
            ".status.conditions[*].reason",
            false,
        ),
        age(),
    ];
    let named = || with(text(), json!({ "minLength": 1 }));
    let template_ref = || object(vec![("name", named())], &["name"]);
    let scalable = object(
        vec![("apiGroup", text()), ("kind", named()), ("name", named())],
        &["kind", "name"],
    );
    let spec = rules(
        &[
            (
                "!has(self.podTemplateRef) || has(self.replicas) || has(self.limits)",
                "podTemplateRef needs replicas or limits beside it",
            ),
            (
                "!(has(self.podTemplateRef) && has(self.scalableRef))",
                "podTemplateRef and scalableRef exclude each other",
            ),
        ],
        object(
            vec![
                (
                    "podTemplateRef",
                    doc("PodTemplate that a chunk looks like.", template_ref()),
                ),
                (
                    "scalableRef",
                    doc("Workload whose pods a chunk looks like.", scalable),
                ),
                (
                    "replicas",
                    doc("Number of chunks.", bounded(0, None, int32())),
                ),
                (
                    "percentage",
                    doc(
                        "Chunks as a share of the workload's replicas.",
                        bounded(0, None, int32()),
                    ),
                ),
                (
                    "limits",
                    doc("Most that all chunks may add up to.", resources()),
                ),
                (
                    "provisioningStrategy",
                    default(&json!("buffer.x-k8s.io/active-capacity"), text()),
                ),
            ],
            &[],
        ),
    );
    let status = object(
        vec![
            ("podTemplateRef", template_ref()),
            ("podTemplateGeneration", int64()),
            ("replicas", int32()),
            ("provisioningStrategy", text()),
            ("conditions", conditions(true, false)),
        ],
        &[],
    );
    definition(
        &names,
        "Room that is kept free for pods to come.",
        columns,
        spec,
        status,
        None,
    )
}
