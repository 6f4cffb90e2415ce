//! The demo's story: a Deployment of pause containers that grows, shrinks and goes, and the pool it runs on.

use std::time::Duration;

use karpenter_e2e::manifests::{self, ManifestError};
use karpenter_e2e::world::{World, WorldError};
use karpenter_fake_kube::server::{ApiError, PatchKind, gr};
use serde_json::{Value, json};

/// Name of the Deployment.
pub(crate) const DEPLOYMENT: &str = "inflate";
/// How long the story is.
pub(crate) const LENGTH: Duration = Duration::from_secs(30 * 60);
/// When it is scaled to what: seconds since the start and replicas.
pub(crate) const SCALES: [(u64, u64); 4] = [(10, 3), (5 * 60, 200), (12 * 60, 40), (20 * 60, 0)];

/// Why the story cannot be told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoryError {
    /// The world refused it.
    #[error(transparent)]
    World(#[from] WorldError),
    /// The tutorial's manifests are broken.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The Deployment cannot be scaled.
    #[error("Deployment {DEPLOYMENT}: {0}")]
    Scale(#[from] ApiError),
}

/// The tutorial as people have it, from before v1: NodePool, EC2NodeClass and Deployment.
const TUTORIAL: &[u8] = include_bytes!("../../../fixtures/manifests/tutorial-v1beta1.yaml");

/// What the story runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum StoryCloud {
    /// The EC2 provider over the real catalogue; machines boot and join by themselves.
    Ec2,
    /// The KWOK provider; machines are Node objects.
    Kwok,
}

/// Objects of the start, converted on the way in, with what a person should know about that.
pub(crate) fn objects(cloud: StoryCloud) -> Result<(Vec<Value>, Vec<String>), StoryError> {
    let file = "tutorial-v1beta1.yaml";
    let (mut objects, warnings) =
        manifests::upgrade(manifests::parse_objects(TUTORIAL, file)?, file)?;
    if cloud == StoryCloud::Ec2 {
        return Ok((objects, warnings));
    }
    // The same workload on a pool and a class that KWOK can make machines for.
    objects.retain(|o| karpenter_e2e::json::text(o, "/kind") == "Deployment");
    objects.push(json!({ "apiVersion": "karpenter.kwok.sh/v1alpha1", "kind": "KWOKNodeClass", "metadata": { "name": "default" }, "spec": { "nodeRegistrationDelay": "25s" } }));
    objects.push(json!({
        "apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": { "name": "default" },
        "spec": {
            "template": { "spec": {
                "nodeClassRef": { "group": "karpenter.kwok.sh", "kind": "KWOKNodeClass", "name": "default" },
                "requirements": [
                    { "key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"] },
                    { "key": "kubernetes.io/os", "operator": "In", "values": ["linux"] },
                    { "key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot"] },
                ],
                "expireAfter": "720h",
            } },
            "limits": { "cpu": "1000" },
            "disruption": { "consolidationPolicy": "WhenEmptyOrUnderutilized", "consolidateAfter": "0s" },
        },
    }));
    Ok((objects, Vec::new()))
}

/// Applies the objects and starts the controller.
pub(crate) async fn begin(world: &mut World, cloud: StoryCloud) -> Result<(), StoryError> {
    let (objects, warnings) = objects(cloud)?;
    for warning in warnings {
        let at = world.elapsed();
        world.observed.lock().note(at, "Converted", "", &warning);
    }
    for object in objects {
        world.apply(&object)?;
    }
    world.start_controller().await?;
    Ok(())
}

/// Takes the story's steps and waits for its end.
pub(crate) async fn tell(world: &World) -> Result<(), StoryError> {
    for (at, replicas) in SCALES {
        world
            .clock
            .sleep(world.until(Duration::from_secs(at)))
            .await;
        let patch = json!({ "spec": { "replicas": replicas } });
        world.api.patch(
            gr("apps", "deployments"),
            Some("default"),
            DEPLOYMENT,
            "",
            PatchKind::Merge,
            patch,
        )?;
        let at = world.elapsed();
        world
            .observed
            .lock()
            .note(at, "Step", DEPLOYMENT, &format!("scaled to {replicas}"));
    }
    world.clock.sleep(world.until(LENGTH)).await;
    Ok(())
}
