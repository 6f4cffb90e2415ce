//! Machines out of capacity reservations (`aws-provider.md` §18): one whose reservation has ended under it is labelled as
//! what it is now, an on-demand one, and those of a capacity block go before EC2 ends them. Looks only while there are any.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use karpenter_api::labels::{CAPACITY_ON_DEMAND, CAPACITY_RESERVED, CAPACITY_TYPE};
use karpenter_api::{NodeClaim, labels as keys};
use karpenter_ec2_api::Ec2Error;
use karpenter_runtime::runner::Rounds;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::cloud::capacity_type;
use crate::labels as l;
use crate::reservations::EXPIRING;
use crate::shared::{Shared, instance_id};

/// Name in logs and metrics.
const CONTROLLER: &str = "capacityreservation.capacitytype";
/// How often machines are looked at.
const INTERVAL: Duration = Duration::from_secs(60);

/// A failed round.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error("describing instances: {0}")]
    Instances(Ec2Error),
    #[error(transparent)]
    Api(#[from] kube::Error),
}

/// Whether a claim's machine is out of a reservation.
pub(crate) fn is_reserved(claim: &NodeClaim) -> bool {
    label(claim, CAPACITY_TYPE) == Some(CAPACITY_RESERVED)
        && claim.metadata.deletion_timestamp.is_none()
}

fn label<'a>(claim: &'a NodeClaim, key: &str) -> Option<&'a str> {
    let labels = claim.metadata.labels.as_ref()?;
    labels.get(key).map(String::as_str)
}

/// Looks at reserved machines until `stop`.
pub(crate) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut rounds = Rounds::new(CONTROLLER, &shared.rng);
    loop {
        let any = rounds.begin().run(async {
            match look(&shared).await {
                Ok(any) => any,
                Err(error) => {
                    tracing::warn!(%error, "cannot look at reserved machines");
                    true
                }
            }
        });
        let any = any.await;
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = shared.clock.sleep(INTERVAL), if any => {}
            () = shared.reserved_changed.notified(), if !any => {}
        }
    }
}

/// One look; whether there are any reserved machines.
async fn look(shared: &Shared) -> Result<bool, RoundError> {
    let claims = shared.claims.all(&shared.claim_api()).await?;
    let reserved: Vec<_> = claims.into_iter().filter(|c| is_reserved(c)).collect();
    for claim in &reserved {
        if expires(shared, claim).await? {
            delete(shared, claim).await?;
        }
    }
    let id = |c: &Arc<NodeClaim>| instance_id(&c.status.provider_id).map(str::to_owned);
    let launched: Vec<_> = reserved.iter().filter_map(|c| Some((c, id(c)?))).collect();
    if launched.is_empty() {
        return Ok(!reserved.is_empty());
    }
    let found = shared.instances().await.map_err(RoundError::Instances)?;
    for (claim, id) in launched {
        let ended = found
            .iter()
            .find(|i| i.id == id)
            .is_some_and(|i| capacity_type(i, true) == CAPACITY_ON_DEMAND);
        if ended {
            relabel(shared, claim).await?;
        }
    }
    Ok(true)
}

/// Whether the claim's reservation is a block that ends soon.
async fn expires(shared: &Shared, claim: &NodeClaim) -> kube::Result<bool> {
    let name = &claim.spec.node_class_ref.name;
    let Some(class) = shared.classes.get(&shared.class_api(), name).await? else {
        return Ok(false);
    };
    let own = label(claim, l::RESERVATION_ID);
    let mut all = class.status.capacity_reservations.iter();
    Ok(all.any(|r| Some(r.id.as_str()) == own && r.state.as_deref() == Some(EXPIRING)))
}

async fn delete(shared: &Shared, claim: &NodeClaim) -> kube::Result<()> {
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: claim.metadata.uid.clone(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match shared.claim_api().delete(name, &params).await {
        Ok(_) => {
            tracing::info!(
                NodeClaim = name,
                reservation = label(claim, l::RESERVATION_ID),
                "deleting nodeclaim, its capacity block ends"
            );
            Ok(())
        }
        Err(error) => gone(error),
    }
}

/// Makes a claim and its Node on-demand ones.
async fn relabel(shared: &Shared, claim: &NodeClaim) -> kube::Result<()> {
    let labels = json!({
        CAPACITY_TYPE: CAPACITY_ON_DEMAND,
        l::RESERVATION_ID: null,
        l::RESERVATION_TYPE: null,
        l::RESERVATION_INTERRUPTIBLE: null,
    });
    let patch = json!({ "metadata": { "labels": labels } });
    let (patch, params) = (Patch::Merge(&patch), PatchParams::default());
    // The Node first: while the claim still says that it is reserved it is looked at again.
    let node = &claim.status.node_name;
    if !node.is_empty() {
        let nodes: Api<Node> = Api::all(shared.client.clone());
        match nodes.get_opt(node).await? {
            Some(found) if is_registered(&found) => {
                if let Err(error) = nodes.patch(node, &params, &patch).await {
                    gone(error)?;
                }
            }
            _ => {}
        }
    }
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    match shared.claim_api().patch(name, &params, &patch).await {
        Ok(_) => {
            tracing::info!(
                NodeClaim = name,
                reservation = label(claim, l::RESERVATION_ID),
                "nodeclaim is an on-demand one now, its capacity reservation has ended"
            );
            Ok(())
        }
        Err(error) => gone(error),
    }
}

fn is_registered(node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    labels.is_some_and(|l| l.get(keys::REGISTERED).is_some_and(|v| v == "true"))
}

/// What is gone, or another one by now, needs nothing.
fn gone(error: kube::Error) -> kube::Result<()> {
    match error {
        kube::Error::Api(status) if status.is_not_found() || status.is_conflict() => Ok(()),
        other => Err(other),
    }
}
