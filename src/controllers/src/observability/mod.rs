//! Metrics about single objects: nodes, pods, NodePools and the conditions of everything of ours (`operations.md` §3).
//! Gauges describe what is there and are told anew at each scrape; histograms and counters are about changes, which one
//! task hears of. `--disable-cluster-state-observability` leaves them out, as upstream; those of NodeClasses belong to
//! the provider and stay.

mod conditions;
mod nodes;
mod pods;
mod pools;

use std::sync::Arc;

use karpenter_model::PodKey;
use karpenter_state::{Changed, Kind};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use self::conditions::Conditions;
use self::pods::Pods;
use crate::Context;
use crate::hearing::{Hearer, listen};

/// What is remembered of objects from one change to the next.
#[derive(Default)]
struct Seen {
    conditions: Conditions,
    pods: Pods,
}

/// Starts it.
pub(crate) fn start(ctx: &Context) -> Vec<JoinHandle<()>> {
    let changes = ctx.state.subscribe();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let (clock, kind) = (ctx.clock.clone(), ctx.provider.node_class.clone());
    let (labels, of_all) = (
        ctx.provider.labels.clone(),
        !ctx.settings.disable_cluster_state_observability,
    );
    // The dead do not tell: a controller that is started again in the same process counts in the same place.
    let (state, held) = (Arc::downgrade(&ctx.state), Arc::downgrade(&seen));
    ctx.metrics.on_scrape_while(move |metrics| {
        let (Some(state), Some(seen)) = (state.upgrade(), held.upgrade()) else {
            return false;
        };
        let now = clock.wall();
        conditions::tell(metrics, &state, &kind, of_all, now);
        if of_all {
            nodes::tell(metrics, &state, &labels, now);
            pods::tell(metrics, &state, &seen.lock().pods, now);
            pools::tell(metrics, &state);
        }
        true
    });
    let observer = Observer {
        ctx: ctx.clone(),
        seen,
        of_all,
    };
    vec![tokio::spawn(listen(ctx.clone(), changes, observer))]
}

/// Hears of changes.
struct Observer {
    ctx: Context,
    seen: Arc<Mutex<Seen>>,
    /// Whether not only NodeClasses are looked at.
    of_all: bool,
}

impl Hearer<Changed> for Observer {
    fn everything(&mut self) {
        for kind in conditions::KINDS {
            for key in conditions::keys(&self.ctx.state, kind) {
                self.observe(kind, &key);
            }
        }
        for pod in self.ctx.state.pods() {
            self.observe(Kind::Pod, &pod.key);
        }
    }
    fn hear(&mut self, change: Changed) {
        self.observe(change.kind, &key_of(change));
    }
}

impl Observer {
    fn observe(&self, kind: Kind, key: &PodKey) {
        let (metrics, state) = (&self.ctx.metrics, &self.ctx.state);
        let now = self.ctx.clock.wall();
        let mut seen = self.seen.lock();
        if kind == Kind::Pod {
            if self.of_all {
                seen.pods.observe(metrics, state, key, now);
            }
            return;
        }
        let class = &self.ctx.provider.node_class;
        if let Some(family) = conditions::family(kind, class, self.of_all) {
            seen.conditions
                .observe(metrics, state, class, family, key, now);
        }
    }
}

fn key_of(change: Changed) -> PodKey {
    PodKey {
        namespace: change.namespace,
        name: change.name,
    }
}

/// Seconds from `since` to `now`, never negative: clocks of others may be ahead of ours.
fn seconds(since: jiff::Timestamp, now: jiff::Timestamp) -> f64 {
    now.duration_since(since).as_secs_f64().max(0.0)
}

/// A resource's name as label `resource_type` has it.
fn resource_label(name: &str) -> String {
    name.to_lowercase().replace('-', "_")
}

/// An amount as a metric has it: cores, bytes, pieces.
#[allow(clippy::cast_precision_loss)] // Metrics are floating point.
fn amount(quantity: karpenter_api::Quantity) -> f64 {
    quantity.nanos() as f64 / 1e9
}
