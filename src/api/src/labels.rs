//! Names of labels, annotations, taints and finalizers: Karpenter's own and the Kubernetes ones it uses.
//! They are contract (Karpenter v1.14); a change here is a breaking change for every user.

/// API group of the provider-neutral kinds.
pub const GROUP: &str = "karpenter.sh";

/// NodePool that a node or claim belongs to.
pub const NODEPOOL: &str = "karpenter.sh/nodepool";
/// `spot`, `on-demand` or `reserved`.
pub const CAPACITY_TYPE: &str = "karpenter.sh/capacity-type";
/// `true` on a Node once its claim is Registered.
pub const REGISTERED: &str = "karpenter.sh/registered";
/// `true` on a Node once its claim is Initialized.
pub const INITIALIZED: &str = "karpenter.sh/initialized";
/// `true` on a Node whose taints somebody else owns.
pub const DO_NOT_SYNC_TAINTS: &str = "karpenter.sh/do-not-sync-taints";

/// Availability zone.
pub const ZONE: &str = "topology.kubernetes.io/zone";
/// Region.
pub const REGION: &str = "topology.kubernetes.io/region";
/// Instance type name.
pub const INSTANCE_TYPE: &str = "node.kubernetes.io/instance-type";
/// CPU architecture, `amd64` or `arm64`.
pub const ARCH: &str = "kubernetes.io/arch";
/// Operating system.
pub const OS: &str = "kubernetes.io/os";
/// Host name.
pub const HOSTNAME: &str = "kubernetes.io/hostname";
/// Windows build number.
pub const WINDOWS_BUILD: &str = "node.kubernetes.io/windows-build";
/// Takes a node out of load balancers while it terminates.
pub const EXCLUDE_FROM_LB: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// Capacity type value: spot.
pub const CAPACITY_SPOT: &str = "spot";
/// Capacity type value: on-demand.
pub const CAPACITY_ON_DEMAND: &str = "on-demand";
/// Capacity type value: reserved.
pub const CAPACITY_RESERVED: &str = "reserved";

/// Keeps a pod, node or claim from voluntary disruption.
pub const DO_NOT_DISRUPT: &str = "karpenter.sh/do-not-disrupt";
/// Drift hash of the NodePool template.
pub const NODEPOOL_HASH: &str = "karpenter.sh/nodepool-hash";
/// Version of the algorithm behind [`NODEPOOL_HASH`].
pub const NODEPOOL_HASH_VERSION: &str = "karpenter.sh/nodepool-hash-version";
/// Value of [`NODEPOOL_HASH_VERSION`] that this build writes.
pub const NODEPOOL_HASH_VERSION_VALUE: &str = "v3";
/// RFC 3339 deadline of a claim's drain.
pub const TERMINATION_TIMESTAMP: &str = "karpenter.sh/nodeclaim-termination-timestamp";
/// `true` when a minValues was lowered to open this claim.
pub const MIN_VALUES_RELAXED: &str = "karpenter.sh/nodeclaim-min-values-relaxed";
/// `true` when a chosen type carried an overlaid price.
pub const PRICE_OVERLAY_APPLIED: &str = "karpenter.sh/price-overlay-applied";
/// `true` when a chosen type carried overlaid capacity.
pub const CAPACITY_OVERLAY_APPLIED: &str = "karpenter.sh/capacity-overlay-applied";
/// DRA drivers that initialization waits for.
pub const REQUESTED_DRA_DRIVERS: &str = "karpenter.sh/requested-dra-drivers";
/// Marks the in-memory pods of a capacity buffer.
pub const BUFFER_FAKE_POD: &str = "karpenter.sh/capacity-buffer-fake-pod";
/// Name of the buffer that such a pod stands for.
pub const BUFFER_NAME: &str = "karpenter.sh/capacity-buffer-name";
/// Namespace of that buffer.
pub const BUFFER_NAMESPACE: &str = "karpenter.sh/capacity-buffer-namespace";
/// Cost of deleting a pod, as the ReplicaSet controller reads it.
pub const POD_DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Taint key (NoSchedule, no value) of a node that is being disrupted.
pub const DISRUPTED_TAINT: &str = "karpenter.sh/disrupted";
/// Taint key (NoExecute) of a node that has not been registered yet.
pub const UNREGISTERED_TAINT: &str = "karpenter.sh/unregistered";
/// Prefix of taint keys that readiness gates use; ephemeral while a node starts.
pub const READINESS_TAINT_PREFIX: &str = "readiness.k8s.io/";

/// Finalizer on Nodes and NodeClaims.
pub const TERMINATION_FINALIZER: &str = "karpenter.sh/termination";

/// Keys of other names for the same thing, rewritten wherever a requirement is read.
pub const ALIASES: [(&str, &str); 5] = [
    ("failure-domain.beta.kubernetes.io/zone", ZONE),
    ("failure-domain.beta.kubernetes.io/region", REGION),
    ("beta.kubernetes.io/arch", ARCH),
    ("beta.kubernetes.io/os", OS),
    ("beta.kubernetes.io/instance-type", INSTANCE_TYPE),
];

/// Well-known keys of the core; providers add theirs through `karpenter_model::LabelRegistry`.
pub const WELL_KNOWN: [&str; 8] = [
    NODEPOOL,
    ZONE,
    REGION,
    INSTANCE_TYPE,
    ARCH,
    OS,
    CAPACITY_TYPE,
    WINDOWS_BUILD,
];
