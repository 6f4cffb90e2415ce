//! A cloud whose calls are timed and whose errors are counted.

use std::sync::Arc;

use async_trait::async_trait;
use karpenter_api::{NodeClaim, NodePool};
use karpenter_cloud::{CloudError, CloudProvider, Launched, Machine, RepairPolicy};
use karpenter_model::InstanceType;
use karpenter_runtime::Clock;
use karpenter_runtime::metrics::Metrics;
use karpenter_runtime::runner::current_controller;

/// Decorates a cloud with `karpenter_cloudprovider_*`.
pub(crate) struct Metered {
    pub(crate) cloud: Arc<dyn CloudProvider>,
    pub(crate) metrics: Metrics,
    pub(crate) clock: Clock,
}

impl Metered {
    async fn call<T>(
        &self,
        method: &'static str,
        call: impl Future<Output = Result<T, CloudError>>,
    ) -> Result<T, CloudError> {
        let began = self.clock.now();
        let result = call.await;
        let took = self.clock.now().saturating_duration_since(began);
        let labels = [
            ("controller", current_controller()),
            ("method", method),
            ("provider", self.cloud.name()),
        ];
        let seconds = took.as_secs_f64();
        self.metrics
            .observe("karpenter_cloudprovider_duration_seconds", &labels, seconds);
        if let Err(error) = &result {
            let [controller, method, provider] = labels;
            let labels = [
                controller,
                method,
                provider,
                ("error", error.metric_label()),
            ];
            self.metrics
                .inc("karpenter_cloudprovider_errors_total", &labels);
        }
        result
    }
}

#[async_trait]
impl CloudProvider for Metered {
    fn name(&self) -> &'static str {
        self.cloud.name()
    }
    async fn create(&self, claim: &NodeClaim) -> Result<Launched, CloudError> {
        self.call("Create", self.cloud.create(claim)).await
    }
    async fn create_among(
        &self,
        claim: &NodeClaim,
        types: &Arc<Vec<Arc<InstanceType>>>,
    ) -> Result<Launched, CloudError> {
        self.call("Create", self.cloud.create_among(claim, types))
            .await
    }
    async fn delete(&self, claim: &NodeClaim) -> Result<(), CloudError> {
        self.call("Delete", self.cloud.delete(claim)).await
    }
    async fn get(&self, provider_id: &str) -> Result<Machine, CloudError> {
        self.call("Get", self.cloud.get(provider_id)).await
    }
    async fn list(&self) -> Result<Vec<Machine>, CloudError> {
        self.call("List", self.cloud.list()).await
    }
    async fn instance_types(
        &self,
        pool: &NodePool,
    ) -> Result<Arc<Vec<Arc<InstanceType>>>, CloudError> {
        self.call("GetInstanceTypes", self.cloud.instance_types(pool))
            .await
    }
    async fn is_drifted(&self, claim: &NodeClaim) -> Result<Option<String>, CloudError> {
        self.call("IsDrifted", self.cloud.is_drifted(claim)).await
    }
    fn repair_policies(&self) -> Vec<RepairPolicy> {
        self.cloud.repair_policies()
    }
}
