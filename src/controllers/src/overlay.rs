//! `nodeoverlay`: NodeOverlays between the provider and everything that asks it what it sells (`scheduling.md` §12),
//! and the loop that says in their status whether they count.
//!
//! What overlays come to is worked out when somebody asks, from the overlays and the catalogue as they are then, and
//! kept until one of them changes: there is no time in which a NodePool waits for its overlays to be looked at.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use karpenter_api::condition::node_pool::VALIDATION_SUCCEEDED;
use karpenter_api::nodeoverlay::NodeOverlaySpec;
use karpenter_api::{NodeClaim, NodeOverlay, NodePool, labels};
use karpenter_cloud::{CloudError, CloudProvider, Launched, Machine, NodeClassKind, RepairPolicy};
use karpenter_model::overlay::{Refusal, Shelf, Types, evaluate};
use karpenter_model::{InstanceType, LabelRegistry, Requirements};
use karpenter_runtime::metrics::Metrics;
use karpenter_runtime::runner::{self, ReconcileError, RunnerOptions};
use karpenter_runtime::{Action, Key, Queue, Reconciler};
use karpenter_state::{Changed, Kind, Store};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::Context;
use crate::hearing::{Hearer, listen};
use crate::lifecycle::objects::name;
use crate::lifecycle::status::{self, Status};
use crate::lifecycle::write;
use crate::nodepool;
use crate::provisioning::pools;

/// A cloud whose types are seen through NodeOverlays.
pub struct Overlays {
    cloud: Arc<dyn CloudProvider>,
    state: Arc<Store>,
    labels: Arc<LabelRegistry>,
    node_class: NodeClassKind,
    held: Mutex<Option<Arc<Held>>>,
}

/// What overlays came to, and what that was made of.
struct Held {
    overlays: Vec<(String, NodeOverlaySpec)>,
    shelves: Vec<Shelf>,
    types: BTreeMap<Arc<str>, Types>,
    verdicts: BTreeMap<Arc<str>, Result<(), Refusal>>,
}

/// The labels of a pool's nodes that are known before their type is.
#[must_use]
pub fn shelf(pool: &NodePool, types: Types, registry: &LabelRegistry) -> Shelf {
    Shelf {
        pool: name(&pool.metadata).into(),
        labels: Requirements::from_labels(&pools::claim_labels(pool), registry),
        types,
    }
}

impl Overlays {
    pub(crate) fn new(ctx: &Context) -> Self {
        Self {
            cloud: ctx.provider.cloud.clone(),
            state: ctx.state.clone(),
            labels: ctx.provider.labels.clone(),
            node_class: ctx.provider.node_class.clone(),
            held: Mutex::default(),
        }
    }

    /// What overlays come to now, and the first pool whose types cannot be told. `about` is asked for in any case.
    async fn held(&self, about: Option<(&NodePool, Types)>) -> (Arc<Held>, Option<CloudError>) {
        let overlays: Vec<Arc<NodeOverlay>> = self.state.node_overlays();
        let spec = |o: &Arc<NodeOverlay>| (name(&o.metadata).to_owned(), o.spec.clone());
        let specs: Vec<(String, NodeOverlaySpec)> = overlays.iter().map(spec).collect();
        if let Some((pool, types)) = &about
            && let Some(held) = &*self.held.lock()
            && held.overlays == specs
        {
            let asked = shelf(pool, types.clone(), &self.labels);
            if held.shelves.iter().any(|s| same(s, &asked)) {
                return (held.clone(), None);
            }
        }
        let (shelves, failed) = self.shelves(about).await;
        let mut slot = self.held.lock();
        if let Some(held) = &*slot
            && held.overlays == specs
            && held.shelves.len() == shelves.len()
            && held.shelves.iter().zip(&shelves).all(|(a, b)| same(a, b))
        {
            return (held.clone(), failed);
        }
        let outcome = evaluate(overlays.iter().map(|o| &**o), &shelves, &self.labels);
        let names = shelves.iter().map(|s| s.pool.clone());
        let held = Arc::new(Held {
            overlays: specs,
            types: names.zip(outcome.types).collect(),
            shelves,
            verdicts: outcome.verdicts,
        });
        *slot = Some(held.clone());
        (held, failed)
    }

    /// What is sold to every pool of ours, static ones too.
    async fn shelves(&self, about: Option<(&NodePool, Types)>) -> (Vec<Shelf>, Option<CloudError>) {
        let (mut shelves, mut failed) = (Vec::new(), None);
        for pool in self.state.node_pools() {
            let is_about = about
                .as_ref()
                .is_some_and(|(p, _)| name(&p.metadata) == name(&pool.metadata));
            if is_about || !nodepool::is_managed(&pool, &self.node_class) {
                continue;
            }
            match self.cloud.instance_types(&pool).await {
                Ok(types) => shelves.push(shelf(&pool, types, &self.labels)),
                // The others' are told all the same.
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        shelves.extend(about.map(|(pool, types)| shelf(pool, types, &self.labels)));
        shelves.sort_by(|a, b| a.pool.cmp(&b.pool));
        (shelves, failed)
    }

    /// The types of the claim's pool as they are seen; none if it is of no pool, or of one whose class is another now.
    async fn types_of(&self, claim: &NodeClaim) -> Option<Types> {
        let pool = claim.metadata.labels.as_ref()?.get(labels::NODEPOOL)?;
        let pool = self.state.node_pool(pool)?;
        let class = &pool.spec.template.spec.node_class_ref;
        if *class != claim.spec.node_class_ref || self.state.node_overlays().is_empty() {
            return None;
        }
        self.instance_types(&pool).await.ok()
    }
}

/// Whether two shelves hold the very same list for the same labels.
fn same(a: &Shelf, b: &Shelf) -> bool {
    a.pool == b.pool && a.labels == b.labels && Arc::ptr_eq(&a.types, &b.types)
}

#[async_trait]
impl CloudProvider for Overlays {
    fn name(&self) -> &'static str {
        self.cloud.name()
    }
    async fn create(&self, claim: &NodeClaim) -> Result<Launched, CloudError> {
        match self.types_of(claim).await {
            Some(types) => self.cloud.create_among(claim, &types).await,
            None => self.cloud.create(claim).await,
        }
    }
    async fn create_among(
        &self,
        claim: &NodeClaim,
        types: &Arc<Vec<Arc<InstanceType>>>,
    ) -> Result<Launched, CloudError> {
        self.cloud.create_among(claim, types).await
    }
    async fn delete(&self, claim: &NodeClaim) -> Result<(), CloudError> {
        self.cloud.delete(claim).await
    }
    async fn get(&self, provider_id: &str) -> Result<Machine, CloudError> {
        self.cloud.get(provider_id).await
    }
    async fn list(&self) -> Result<Vec<Machine>, CloudError> {
        self.cloud.list().await
    }
    async fn instance_types(
        &self,
        pool: &NodePool,
    ) -> Result<Arc<Vec<Arc<InstanceType>>>, CloudError> {
        let sold = self.cloud.instance_types(pool).await?;
        if self.state.node_overlays().is_empty() {
            return Ok(sold);
        }
        let (held, _) = self.held(Some((pool, sold.clone()))).await;
        Ok(held
            .types
            .get(name(&pool.metadata))
            .cloned()
            .unwrap_or(sold))
    }
    async fn is_drifted(&self, claim: &NodeClaim) -> Result<Option<String>, CloudError> {
        self.cloud.is_drifted(claim).await
    }
    fn repair_policies(&self) -> Vec<RepairPolicy> {
        self.cloud.repair_policies()
    }
}

/// Starts the loop.
pub(crate) fn start(ctx: &Context, overlays: &Arc<Overlays>) -> Vec<JoinHandle<()>> {
    let changes = ctx.state.subscribe();
    let judge = Judge {
        ctx: ctx.clone(),
        overlays: overlays.clone(),
    };
    let (queue, task) = runner::spawn(
        Arc::new(judge),
        RunnerOptions::default(),
        ctx.clock.clone(),
        &ctx.rng,
        ctx.stop.clone(),
    );
    vec![
        task,
        tokio::spawn(listen(ctx.clone(), changes, Feed { queue })),
    ]
}

/// All overlays are judged together, so there is one key.
struct Feed {
    queue: Queue,
}

impl Hearer<Changed> for Feed {
    fn everything(&mut self) {
        self.queue.add(Key::cluster(""));
    }
    fn hear(&mut self, change: Changed) {
        if matches!(
            change.kind,
            Kind::NodeOverlay | Kind::NodePool | Kind::NodeClass | Kind::Catalog
        ) {
            self.everything();
        }
    }
}

struct Judge {
    ctx: Context,
    overlays: Arc<Overlays>,
}

#[async_trait]
impl Reconciler for Judge {
    fn name(&self) -> &'static str {
        "nodeoverlay"
    }
    fn group_kind(&self) -> (&'static str, &'static str) {
        ("karpenter.sh", "NodeOverlay")
    }
    fn metrics(&self) -> Option<&Metrics> {
        Some(&self.ctx.metrics)
    }

    async fn reconcile(&self, _: &Key) -> Result<Action, ReconcileError> {
        let state = &self.ctx.state;
        if state.node_overlays().is_empty() {
            return Ok(Action::AwaitChange);
        }
        let (held, failed) = self.overlays.held(None).await;
        for (overlay, verdict) in &held.verdicts {
            let Some(overlay) = state.node_overlay(overlay) else {
                continue;
            };
            let wanted = judged(&overlay, verdict, self.ctx.clock.wall());
            if let (Err(refusal), true) = (verdict, overlay.status != wanted.status) {
                tracing::warn!(
                    NodeOverlay = name(&overlay.metadata),
                    reason = refusal.reason(),
                    error = refusal.message(),
                    "nodeoverlay changes nothing"
                );
            }
            write::overlay_status(&self.ctx, &overlay, &wanted).await?;
        }
        match failed {
            None => Ok(Action::AwaitChange),
            Some(error) => Err(ReconcileError::Retry(Box::new(error))),
        }
    }
}

/// `overlay` with its conditions as they should be.
fn judged(overlay: &NodeOverlay, verdict: &Result<(), Refusal>, now: Timestamp) -> NodeOverlay {
    let mut wanted = overlay.clone();
    let verdict = match verdict {
        Ok(()) => Status::True,
        Err(refusal) => Status::failed(refusal.reason(), refusal.message()),
    };
    status::set_overlay(&mut wanted, VALIDATION_SUCCEEDED, verdict, now);
    wanted
}
