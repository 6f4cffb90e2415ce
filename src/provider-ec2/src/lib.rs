//! Karpenter's EC2 provider: EC2NodeClass and all EC2 logic, over the narrow trait of `karpenter-ec2-api`.

mod cache;
mod cloud;
mod controllers;
mod drift;
mod image;
pub mod labels;
mod launch;
mod limits;
mod market;
pub mod nodeclass;
mod pricing;
mod reservations;
mod resolve;
pub mod settings;
mod shape;
mod shared;
mod store;
mod template;
pub mod types;
mod unavailable;
mod userdata;

use std::sync::Arc;

use karpenter_cloud::{NodeClassKind, Provider};
use karpenter_ec2_api::Ec2;
use karpenter_runtime::{Clock, RngTree};

pub use nodeclass::NodeClass;
pub use settings::Ec2Settings;

/// The provider over `ec2`, on the cluster of `client`.
#[must_use]
pub fn provider(
    ec2: Arc<dyn Ec2>,
    settings: Ec2Settings,
    clock: Clock,
    rng: &RngTree,
    client: kube::Client,
) -> Provider {
    let shared = Arc::new(shared::Shared::new(
        ec2,
        settings,
        clock,
        rng.clone(),
        client,
    ));
    Provider {
        labels: shared.labels.clone(),
        cloud: Arc::new(cloud::Ec2Cloud {
            shared: shared.clone(),
        }),
        node_class: NodeClassKind {
            group: labels::GROUP,
            version: "v1",
            kind: "EC2NodeClass",
            plural: "ec2nodeclasses",
        },
        crds: vec![nodeclass::crd()],
        controllers: Arc::new(controllers::Controllers { shared }),
        registration_hooks: Vec::new(),
    }
}
