//! The contract of every provider, kept by this one.

use std::sync::Arc;

use async_trait::async_trait;
use karpenter_api::{NodeClaim, NodePool};
use karpenter_cloud::conformance::{Subject, check};
use karpenter_cloud::{CloudProvider, Launched};
use karpenter_model::LabelRegistry;
use karpenter_runtime::Clock;
use serde_json::json;

use crate::world::World;

#[async_trait]
impl Subject for World {
    fn cloud(&self) -> Arc<dyn CloudProvider> {
        self.provider.cloud.clone()
    }
    fn labels(&self) -> Arc<LabelRegistry> {
        self.provider.labels.clone()
    }
    fn clock(&self) -> Clock {
        self.clock.clone()
    }
    fn pool(&self) -> NodePool {
        World::pool()
    }
    async fn claim(&self, name: &str, instance_types: &[Arc<str>]) -> NodeClaim {
        let types: Vec<&str> = instance_types.iter().map(|t| &**t).collect();
        let requirements = json!([
            { "key": "node.kubernetes.io/instance-type", "operator": "In", "values": types },
            { "key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot", "on-demand"] },
        ]);
        World::claim(self, name, requirements)
    }
    async fn record(&self, claim: &NodeClaim, launched: &Launched) -> NodeClaim {
        World::record(self, claim, launched)
    }
}

#[tokio::test(start_paused = true)]
async fn the_contract_is_kept() {
    let world = World::ready(3).await;
    let broken = check(&world).await;
    assert!(broken.is_empty(), "{broken:#?}");
}
