//! Garbage collection of instances without a claim (`aws-provider.md` §23): the cloud is listed first, then the claims.
//!
//! Every ten seconds for the first twenty times, then every two minutes, as upstream. Other than upstream the interval
//! then grows to [`LONGEST_INTERVAL`] while nothing is launched, terminated or found: only those can leave a machine
//! behind.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Node;
use karpenter_ec2_api::InstanceState;
use karpenter_runtime::runner::Rounds;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use tokio_util::sync::CancellationToken;

use crate::shared::{Shared, provider_id};

/// Name in logs and metrics.
const CONTROLLER: &str = "instance.garbagecollection";
/// Interval at the start.
const START_INTERVAL: Duration = Duration::from_secs(10);
/// Good rounds at the start.
const START_ROUNDS: u32 = 20;
/// Interval afterwards.
const INTERVAL: Duration = Duration::from_secs(120);
/// Longest interval while nothing happens.
const LONGEST_INTERVAL: Duration = Duration::from_secs(1800);
/// Age from which an instance must have its claim.
const MIN_AGE: SignedDuration = SignedDuration::from_secs(30);

/// A failed round.
#[derive(Debug, thiserror::Error)]
enum GcError {
    #[error("listing instances: {0}")]
    Instances(karpenter_ec2_api::Ec2Error),
    #[error("listing NodeClaims: {0}")]
    Claims(kube::Error),
}

/// Runs until `stop`.
pub(crate) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut rounds = 0_u32;
    let mut interval = INTERVAL;
    let mut told = Rounds::new(CONTROLLER, &shared.rng);
    loop {
        let found = told.begin().run(async {
            let found = collect(&shared).await;
            if let Err(error) = &found {
                tracing::warn!(%error, "garbage collection of instances failed");
            }
            found
        });
        let wait = match found.await {
            Ok(found) => {
                rounds = rounds.saturating_add(1);
                interval = if found > 0 {
                    INTERVAL
                } else {
                    (interval * 2).min(LONGEST_INTERVAL)
                };
                if rounds < START_ROUNDS {
                    interval = INTERVAL;
                    START_INTERVAL
                } else {
                    interval
                }
            }
            Err(_) => START_INTERVAL,
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = shared.clock.sleep(wait) => {}
            () = shared.machines_changed.notified() => {
                // Not at once: what was launched just now has its claim soon.
                interval = INTERVAL;
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = shared.clock.sleep(INTERVAL.min(wait)) => {}
                }
            }
        }
    }
}

/// One round: how many instances had no claim.
async fn collect(shared: &Shared) -> Result<usize, GcError> {
    let now = shared.clock.wall();
    let instances = shared.instances().await.map_err(GcError::Instances)?;
    let suspects: Vec<_> = instances
        .into_iter()
        .filter(|i| i.state != InstanceState::ShuttingDown)
        .filter(|i| now.duration_since(i.launch_time) > MIN_AGE)
        .collect();
    if suspects.is_empty() {
        return Ok(0);
    }
    let claims = shared
        .claims
        .all(&shared.claim_api())
        .await
        .map_err(GcError::Claims)?;
    let known: BTreeSet<&str> = claims
        .iter()
        .map(|c| c.status.provider_id.as_str())
        .collect();
    let mut found = 0;
    for instance in suspects {
        let provider_id = provider_id(&instance.zone, &instance.id);
        if known.contains(provider_id.as_str()) {
            continue;
        }
        found += 1;
        match shared
            .ec2
            .terminate_instances(std::slice::from_ref(&instance.id))
            .await
        {
            Ok(_) => tracing::info!(
                instance = instance.id,
                "terminated an instance without a NodeClaim"
            ),
            Err(e) if e.is_not_found() => {}
            Err(error) => {
                tracing::warn!(instance = instance.id, %error, "cannot terminate an instance without a NodeClaim");
                continue;
            }
        }
        delete_node(shared, &provider_id).await;
    }
    Ok(found)
}

/// Deletes the Node of an instance, if it has one. A failure is only logged: the node goes with its machine anyway.
async fn delete_node(shared: &Shared, provider_id: &str) {
    let api: Api<Node> = Api::all(shared.client.clone());
    let of = |n: &Node| n.spec.as_ref().and_then(|s| s.provider_id.as_deref()) == Some(provider_id);
    let nodes = match api.list(&ListParams::default()).await {
        Ok(nodes) => nodes.items,
        Err(error) => {
            tracing::warn!(%error, "cannot list nodes");
            return;
        }
    };
    for name in nodes
        .iter()
        .filter(|n| of(n))
        .filter_map(|n| n.metadata.name.as_deref())
    {
        if let Err(error) = api.delete(name, &DeleteParams::default()).await {
            tracing::warn!(node = name, %error, "cannot delete the node of a terminated instance");
        }
    }
}
