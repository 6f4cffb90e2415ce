//! `drain` as an operator's hand does it: evicts the node's pods through the API, and tries again while budgets refuse.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use karpenter_fake_kube::server::gr;
use kube::Api;
use kube::api::EvictParams;

use crate::json::{is_daemon, name, text};
use crate::world::World;

/// Wait between tries, as `kubectl drain` waits.
const RETRY: Duration = Duration::from_secs(5);
/// Tries before it gives up.
const MAX_TRIES: u32 = 720;

/// Starts a drain in a task of its own.
pub(crate) fn start(world: &World, node: &str) {
    let (api, clock, node) = (world.api.clone(), world.clock.clone(), node.to_owned());
    let client = world.client_no_retry();
    tokio::spawn(async move {
        for _ in 0..MAX_TRIES {
            let left: Vec<(String, String)> = api
                .list(gr("", "pods"), None)
                .iter()
                .filter(|p| text(p, "/spec/nodeName") == node && !is_daemon(p))
                .map(|p| {
                    (
                        text(p, "/metadata/namespace").to_owned(),
                        name(p).to_owned(),
                    )
                })
                .collect();
            if left.is_empty() {
                return;
            }
            for (namespace, pod) in left {
                let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
                // A refusal (429) is what the next try is for; a pod that is gone needs none.
                let _ = pods.evict(&pod, &EvictParams::default()).await;
            }
            clock.sleep(RETRY).await;
        }
    });
}
