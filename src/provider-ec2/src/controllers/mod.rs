//! The provider's own loops, and the watches that feed them.

mod gc;
mod market;
mod nodeclass;
mod profile;
mod reservations;
mod tagging;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use karpenter_api::NodeClaim;
use karpenter_cloud::{ProviderContext, ProviderControllers};
use karpenter_runtime::reflector::{ReflectorEvent, reflect};
use karpenter_runtime::runner::{self, RunnerOptions};
use karpenter_runtime::{Key, Queue};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use self::nodeclass::NodeClassController;
use self::tagging::TaggingController;
use crate::nodeclass::NodeClass;
use crate::shared::Shared;

/// Starts the provider's loops.
pub(crate) struct Controllers {
    pub(crate) shared: Arc<Shared>,
}

#[async_trait]
impl ProviderControllers for Controllers {
    async fn start(&self, context: ProviderContext) -> Vec<JoinHandle<()>> {
        let shared = self.shared.clone();
        shared.take_over();
        let stop = context.stop.clone();
        let rng = shared.rng.child("provider-ec2", "");
        let (classes, class_runner) = runner::spawn(
            Arc::new(NodeClassController {
                shared: shared.clone(),
                events: context.events.clone(),
                metrics: context.metrics.clone(),
                catalog_changed: context.catalog_changed.clone(),
                intervals: Mutex::new(BTreeMap::new()),
            }),
            RunnerOptions::default(),
            shared.clock.clone(),
            &rng,
            stop.clone(),
        );
        let (tagging, tagging_runner) = runner::spawn(
            Arc::new(TaggingController {
                shared: shared.clone(),
                metrics: context.metrics.clone(),
            }),
            RunnerOptions {
                concurrency: 1,
                ..RunnerOptions::default()
            },
            shared.clock.clone(),
            &rng,
            stop.clone(),
        );
        let class_watch = reflect(
            shared.class_api(),
            context.reflector.clone(),
            on_class(
                shared.clone(),
                classes.clone(),
                context.catalog_changed.clone(),
            ),
            shared.clock.clone(),
            &rng.child("reflector", "ec2nodeclasses"),
            stop.clone(),
        );
        let claim_watch = reflect(
            shared.claim_api(),
            context.reflector.clone(),
            on_claim(shared.clone(), classes, tagging),
            shared.clock.clone(),
            &rng.child("reflector", "nodeclaims"),
            stop.clone(),
        );
        let changed = context.catalog_changed;
        let reserved = shared.settings.reserved_capacity;
        let reserved =
            reserved.then(|| tokio::spawn(reservations::run(shared.clone(), stop.clone())));
        let end = forget_at_the_end(shared.clone(), stop.clone());
        let tasks = vec![
            class_runner,
            tagging_runner,
            class_watch.task,
            claim_watch.task,
            tokio::spawn(gc::run(shared.clone(), stop.clone())),
            tokio::spawn(market::refresh(
                shared.clone(),
                changed.clone(),
                stop.clone(),
            )),
            tokio::spawn(market::recover(shared, changed, stop)),
            tokio::spawn(end),
        ];
        tasks.into_iter().chain(reserved).collect()
    }
}

fn on_class(
    shared: Arc<Shared>,
    queue: Queue,
    changed: Arc<tokio::sync::Notify>,
) -> impl FnMut(ReflectorEvent<NodeClass>) + Send + 'static {
    move |event| {
        for name in shared.classes.apply(event) {
            queue.add(Key::cluster(&name));
        }
        changed.notify_one();
    }
}

fn on_claim(
    shared: Arc<Shared>,
    classes: Queue,
    tagging: Queue,
) -> impl FnMut(ReflectorEvent<NodeClaim>) + Send + 'static {
    move |event| {
        let mut due: Vec<String> = Vec::new();
        let reserved = match &event {
            ReflectorEvent::Init(all) => all.iter().any(reservations::is_reserved),
            ReflectorEvent::Applied(claim) => reservations::is_reserved(claim),
            ReflectorEvent::Deleted(_) => false,
        };
        match &event {
            ReflectorEvent::Init(all) => {
                due.extend(all.iter().filter(|c| tagging::is_due(c)).filter_map(name));
                for claim in all {
                    classes.add(Key::cluster(&claim.spec.node_class_ref.name));
                }
            }
            ReflectorEvent::Applied(claim) if tagging::is_due(claim) => due.extend(name(claim)),
            ReflectorEvent::Applied(_) => {}
            ReflectorEvent::Deleted(claim) => {
                shared.forget_claim(claim.metadata.uid.as_deref().unwrap_or_default());
                shared.machines_changed.notify_one();
                // A class may be waiting for its last claim.
                classes.add(Key::cluster(&claim.spec.node_class_ref.name));
            }
        }
        shared.claims.apply(event);
        if reserved {
            shared.reserved_changed.notify_one();
        }
        for name in due {
            tagging.add(Key::cluster(&name));
        }
    }
}

fn name(claim: &NodeClaim) -> Option<String> {
    claim.metadata.name.clone()
}

/// Watches end with the lease; what they held would only grow stale.
async fn forget_at_the_end(shared: Arc<Shared>, stop: tokio_util::sync::CancellationToken) {
    stop.cancelled().await;
    shared.classes.clear();
    shared.claims.clear();
}
