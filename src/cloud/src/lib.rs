//! The seam between Karpenter and a cloud: the [`CloudProvider`] trait, its errors, and the [`Provider`] bundle of
//! everything a provider brings along. What every provider has to keep is a test in [`conformance`].

pub mod conformance;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use karpenter_api::{NodeClaim, NodePool};
use karpenter_model::{InstanceType, LabelRegistry};
use karpenter_runtime::{Clock, EventRecorder, RngTree};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// What a launch bought (`scheduling.md` §17): becomes the claim's labels, annotations and status.
#[derive(Clone, Debug, Default)]
pub struct Launched {
    /// Such as `aws:///us-east-1a/i-0123`.
    pub provider_id: String,
    /// Machine image; empty where there is none.
    pub image_id: String,
    /// Resolved labels: type, zone, capacity type, arch...; the claim's own win over them.
    pub labels: BTreeMap<String, String>,
    /// Annotations; they win over the claim's.
    pub annotations: BTreeMap<String, String>,
    /// Expected capacity.
    pub capacity: karpenter_model::ResourceList,
    /// Expected allocatable.
    pub allocatable: karpenter_model::ResourceList,
}

/// A machine as the cloud lists it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Machine {
    /// Such as `aws:///us-east-1a/i-0123`.
    pub provider_id: String,
    /// NodePool from its tags, if it has one.
    pub node_pool: Option<String>,
    /// Launch time, if known.
    pub launched: Option<jiff::Timestamp>,
    /// Whether it is on its way out.
    pub terminating: bool,
    /// Labels from its description (type, zone, capacity type).
    pub labels: BTreeMap<String, String>,
    /// Image.
    pub image_id: String,
}

/// Errors of a cloud, by what the caller must do about them.
#[derive(Debug, thiserror::Error)]
pub enum CloudError {
    /// Nothing that fits can be had now: delete the claim, let its pods be planned anew.
    #[error("insufficient capacity, {0}")]
    InsufficientCapacity(String),
    /// The machine is gone.
    #[error("nodeclaim not found, {0}")]
    NotFound(String),
    /// The NodeClass cannot be used now: delete the claim, let its pods be planned anew.
    #[error("nodeclass not ready, {0}")]
    NodeClassNotReady(String),
    /// The launch failed for a reason the user should see on condition Launched.
    #[error("{message}")]
    Create {
        /// Condition reason, such as `Unauthorized`.
        reason: String,
        /// Condition message.
        message: String,
    },
    /// Anything else: try again with back-off.
    #[error("{0}")]
    Other(String),
}

impl CloudError {
    /// Value of the `error` label of `karpenter_cloudprovider_errors_total`.
    #[must_use]
    pub fn metric_label(&self) -> &'static str {
        match self {
            Self::InsufficientCapacity(_) => "InsufficientCapacityError",
            Self::NotFound(_) => "NodeClaimNotFoundError",
            Self::NodeClassNotReady(_) => "NodeClassNotReadyError",
            Self::Create { .. } | Self::Other(_) => "",
        }
    }
}

/// A Node condition that, held long enough, means the machine should be replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepairPolicy {
    /// Condition type.
    pub condition: &'static str,
    /// Status that is bad.
    pub status: &'static str,
    /// How long it is put up with.
    pub toleration: Duration,
}

/// A cloud, as narrow as the controllers need it.
#[async_trait]
pub trait CloudProvider: Send + Sync + 'static {
    /// Short name for metrics, such as `aws` or `kwok`.
    fn name(&self) -> &'static str;
    /// Launches one machine that satisfies the claim.
    ///
    /// # Errors
    /// See [`CloudError`]; a launch may have happened even if an error is returned (the garbage collector finds it).
    async fn create(&self, claim: &NodeClaim) -> Result<Launched, CloudError>;
    /// [`CloudProvider::create`], with the types that the claim's NodePool is sold in the eyes of scheduling: prices and
    /// extended resources are those that NodeOverlays make of what [`CloudProvider::instance_types`] said. A provider
    /// that looks at prices or resources when it launches must look at these; one that does not need not care.
    ///
    /// # Errors
    /// As [`CloudProvider::create`].
    async fn create_among(
        &self,
        claim: &NodeClaim,
        types: &Arc<Vec<Arc<InstanceType>>>,
    ) -> Result<Launched, CloudError> {
        let _ = types;
        self.create(claim).await
    }
    /// Asks for termination of the claim's machine. Idempotent; must in the end return [`CloudError::NotFound`].
    ///
    /// # Errors
    /// `NotFound` when it is gone, others to retry.
    async fn delete(&self, claim: &NodeClaim) -> Result<(), CloudError>;
    /// Reads one machine, past any cache.
    ///
    /// # Errors
    /// `NotFound` when it is gone or terminated.
    async fn get(&self, provider_id: &str) -> Result<Machine, CloudError>;
    /// Lists all machines owned by this cluster.
    ///
    /// # Errors
    /// Others to retry.
    async fn list(&self) -> Result<Vec<Machine>, CloudError>;
    /// All types a pool could buy, those without an available offering included. Shared: cheap to call.
    ///
    /// # Errors
    /// When the pool's NodeClass or the catalogue cannot be resolved.
    async fn instance_types(
        &self,
        pool: &NodePool,
    ) -> Result<Arc<Vec<Arc<InstanceType>>>, CloudError>;
    /// Why the machine is not what its NodeClass asks for now; none = it is.
    ///
    /// # Errors
    /// When that cannot be decided.
    async fn is_drifted(&self, claim: &NodeClaim) -> Result<Option<String>, CloudError>;
    /// Conditions that `NodeRepair` acts on.
    fn repair_policies(&self) -> Vec<RepairPolicy>;
}

/// Names of a NodeClass kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeClassKind {
    /// API group.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Plural.
    pub plural: &'static str,
}

impl NodeClassKind {
    /// `<group>/<kind in lower case>`: label of claims and nodes that names the NodeClass.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{}/{}", self.group, self.kind.to_lowercase())
    }
}

/// What a provider's own controllers get to work with.
#[derive(Clone)]
pub struct ProviderContext {
    /// API client.
    pub client: kube::Client,
    /// Clock.
    pub clock: Clock,
    /// Randomness.
    pub rng: RngTree,
    /// Event writer.
    pub events: EventRecorder,
    /// Metrics.
    pub metrics: karpenter_runtime::metrics::Metrics,
    /// How watches of the provider's own should be run (worlds in virtual time let them last for ever).
    pub reflector: karpenter_runtime::reflector::ReflectorOptions,
    /// Cancelled when the controller shuts down or loses its lease.
    pub stop: CancellationToken,
    /// Call when instance types, prices or availability have changed, so that pending pods are planned again.
    pub catalog_changed: Arc<tokio::sync::Notify>,
}

/// Loops a provider brings along (NodeClass status, tagging, ...). They end when `context.stop` is cancelled.
#[async_trait]
pub trait ProviderControllers: Send + Sync {
    /// Starts them; returns once they run.
    async fn start(&self, context: ProviderContext) -> Vec<tokio::task::JoinHandle<()>>;
}

/// Something that has to be done before a Node that has joined may take pods: it holds the registration until then.
#[async_trait]
pub trait RegistrationHook: Send + Sync {
    /// Name, for the message of condition `Registered` while it is waited for.
    fn name(&self) -> &'static str;
    /// Looks at a claim whose Node has joined; all hooks of a claim are asked at once, and again until each is done.
    async fn registered(&self, claim: &NodeClaim) -> HookAnswer;
}

/// How far a hook is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookAnswer {
    /// Done; the claim and its Node get these labels.
    Done(BTreeMap<String, String>),
    /// To be asked again after that time.
    Pending(Duration),
}

/// Everything a provider is: handed to `karpenter_core::run`.
#[derive(Clone)]
pub struct Provider {
    /// The cloud.
    pub cloud: Arc<dyn CloudProvider>,
    /// Its NodeClass kind.
    pub node_class: NodeClassKind,
    /// CustomResourceDefinitions of its own kinds, as JSON.
    pub crds: Vec<Value>,
    /// Label keys with meaning: the core's plus the provider's.
    pub labels: Arc<LabelRegistry>,
    /// Its loops.
    pub controllers: Arc<dyn ProviderControllers>,
    /// What holds up the registration of its Nodes.
    pub registration_hooks: Vec<Arc<dyn RegistrationHook>>,
}
