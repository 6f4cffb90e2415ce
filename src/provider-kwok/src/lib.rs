//! The KWOK provider: nodes made straight in the cluster and kept alive by KWOK. For trying Karpenter without a
//! cloud, and for proving the provider-neutral half of it.

pub mod catalog;
pub mod cloud;
pub mod market;
pub mod node;
pub mod nodeclass;
mod reservations;

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Node;
use karpenter_api::NodeClaim;
use karpenter_cloud::{NodeClassKind, Provider, ProviderContext, ProviderControllers};
use karpenter_runtime::Clock;
use karpenter_runtime::reflector::{ReflectorEvent, ReflectorOptions, reflect};
use kube::Api;
use kube::api::ListParams;
use tokio::task::JoinHandle;

pub use catalog::Catalog;
pub use cloud::KwokCloud;
pub use market::Market;

/// API group of the provider's kinds and labels.
pub const GROUP: &str = "karpenter.kwok.sh";

/// The provider on a cluster, selling `catalog` at the prices of `market`.
#[must_use]
pub fn provider(client: kube::Client, clock: Clock, catalog: Catalog, market: Market) -> Provider {
    let labels = Arc::clone(&catalog.labels);
    let cloud = Arc::new(KwokCloud::new(client, clock, catalog, market));
    Provider {
        cloud: Arc::clone(&cloud) as Arc<dyn karpenter_cloud::CloudProvider>,
        node_class: NodeClassKind {
            group: GROUP,
            version: "v1alpha1",
            kind: "KWOKNodeClass",
            plural: "kwoknodeclasses",
        },
        crds: vec![nodeclass::crd()],
        labels,
        controllers: Arc::new(Controllers { cloud }),
        registration_hooks: Vec::new(),
    }
}

struct Controllers {
    cloud: Arc<KwokCloud>,
}

#[async_trait]
impl ProviderControllers for Controllers {
    async fn start(&self, context: ProviderContext) -> Vec<JoinHandle<()>> {
        self.cloud.notify(Arc::clone(&context.catalog_changed));
        let options = ReflectorOptions {
            label_selector: Some(format!("{}=fake", node::KWOK_NODE)),
            ..context.reflector.clone()
        };
        let reflection = reflect(
            Api::<Node>::all(context.client.clone()),
            options,
            track(Arc::clone(&self.cloud)),
            context.clock.clone(),
            &context.rng.child("reflector", "kwok-nodes"),
            context.stop.clone(),
        );
        let resume = tokio::spawn(resume(Arc::clone(&self.cloud), context));
        vec![reflection.task, resume]
    }
}

/// Keeps the machines that `list` answers from.
fn track(cloud: Arc<KwokCloud>) -> impl FnMut(ReflectorEvent<Node>) + Send + 'static {
    move |event| {
        let mut freed = false;
        {
            let mut held = cloud.machines.write();
            match event {
                ReflectorEvent::Init(nodes) => {
                    let all = nodes
                        .iter()
                        .filter_map(cloud::machine)
                        .map(|m| (m.provider_id.clone(), m));
                    *held = Some(all.collect());
                    freed = true;
                }
                ReflectorEvent::Applied(node) => {
                    if let (Some(held), Some(m)) = (held.as_mut(), cloud::machine(&node)) {
                        held.insert(m.provider_id.clone(), m);
                    }
                }
                ReflectorEvent::Deleted(node) => {
                    if let (Some(held), Some(m)) = (held.as_mut(), cloud::machine(&node)) {
                        held.remove(&m.provider_id);
                        cloud.booting.remove(&m.provider_id);
                        freed = m.labels.contains_key(catalog::RESERVATION_ID);
                    }
                }
            }
        }
        if freed {
            cloud.reservations_changed();
        }
    }
}

/// Makes the Nodes that a crash between launch and registration left unmade: a real machine would have gone on
/// booting without its controller.
async fn resume(cloud: Arc<KwokCloud>, context: ProviderContext) {
    let claims: Api<NodeClaim> = Api::all(context.client.clone());
    let Ok(claims) = claims.list(&ListParams::default()).await else {
        return;
    };
    for claim in claims.items {
        let ours = claim.status.provider_id
            == format!("{}{}", node::PROVIDER_ID_PREFIX, node::node_name(&claim));
        let registered =
            !claim.status.node_name.is_empty() || claim.metadata.deletion_timestamp.is_some();
        if ours && !registered {
            cloud.relaunch(&claim).await;
        }
    }
}
