//! The watches that feed the cluster state.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{
    LimitRange, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, PodTemplate,
    ReplicationController, Service,
};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::{CSINode, StorageClass, VolumeAttachment};
use karpenter_api::{CapacityBuffer, NodeClaim, NodeOverlay, NodePool};
use karpenter_cloud::NodeClassKind;
use karpenter_runtime::reflector::reflect_versions;
use karpenter_runtime::{Clock, ReflectorEvent, ReflectorOptions, RngTree, Settings};
use karpenter_state::{Kind, Store, Watched};
use kube::api::{Api, ApiResource, DynamicObject};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What all watches need.
pub(crate) struct Watches {
    pub(crate) client: Client,
    pub(crate) options: ReflectorOptions,
    pub(crate) clock: Clock,
    pub(crate) rng: RngTree,
    pub(crate) stop: CancellationToken,
    pub(crate) store: Arc<Store>,
}

impl Watches {
    /// Kinds that have to be listed besides [`Kind::ALL`] before anything is decided.
    pub(crate) fn besides(settings: &Settings) -> Vec<Kind> {
        let gates = &settings.feature_gates;
        let mut kinds = BTreeSet::new();
        if gates.capacity_buffer {
            kinds.extend(Kind::OF_BUFFERS);
        }
        if gates.node_overlay {
            kinds.extend(Kind::OF_OVERLAYS);
        }
        if !settings.spread_defaults.is_empty() {
            kinds.extend(Kind::OF_SPREAD_DEFAULTS);
        }
        kinds.into_iter().collect()
    }

    /// Starts them all; [`Store::wait_synced`] tells when each has brought its first list.
    pub(crate) fn start(
        &self,
        node_class: &NodeClassKind,
        settings: &Settings,
    ) -> Vec<JoinHandle<()>> {
        let besides = Self::besides(settings);
        let class = ApiResource {
            group: node_class.group.to_owned(),
            version: node_class.version.to_owned(),
            api_version: format!("{}/{}", node_class.group, node_class.version),
            kind: node_class.kind.to_owned(),
            plural: node_class.plural.to_owned(),
        };
        let all = self.client.clone();
        let mut tasks = vec![
            self.watch(Api::<NodePool>::all(all.clone())),
            self.watch(Api::<DynamicObject>::all_with(all.clone(), &class)),
            self.watch(Api::<NodeClaim>::all(all.clone())),
            self.watch(Api::<Node>::all(all.clone())),
            self.watch(Api::<Pod>::all(all.clone())),
            self.watch(Api::<DaemonSet>::all(all.clone())),
            self.watch(Api::<PodDisruptionBudget>::all(all.clone())),
            self.watch(Api::<VolumeAttachment>::all(all.clone())),
            self.watch(Api::<PersistentVolumeClaim>::all(all.clone())),
            self.watch(Api::<PersistentVolume>::all(all.clone())),
            self.watch(Api::<StorageClass>::all(all.clone())),
            self.watch(Api::<CSINode>::all(all.clone())),
            self.watch(Api::<Namespace>::all(all.clone())),
            self.watch(Api::<LimitRange>::all(all.clone())),
        ];
        for kind in besides {
            let all = all.clone();
            let task = match kind {
                Kind::NodeOverlay => self.watch(Api::<NodeOverlay>::all(all)),
                Kind::CapacityBuffer => self.watch(Api::<CapacityBuffer>::all(all)),
                Kind::PodTemplate => self.watch(Api::<PodTemplate>::all(all)),
                Kind::Deployment => self.watch(Api::<Deployment>::all(all)),
                Kind::StatefulSet => self.watch(Api::<StatefulSet>::all(all)),
                Kind::ReplicaSet => self.watch(Api::<ReplicaSet>::all(all)),
                Kind::Service => self.watch(Api::<Service>::all(all)),
                Kind::ReplicationController => self.watch(Api::<ReplicationController>::all(all)),
                // The others are watched whatever the settings are.
                _ => continue,
            };
            tasks.push(task);
        }
        tasks
    }

    fn watch<K>(&self, api: Api<K>) -> JoinHandle<()>
    where
        K: Watched + Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        let store = Arc::clone(&self.store);
        let feed = move |event: ReflectorEvent<K>, version: &str| match event {
            ReflectorEvent::Init(objects) => K::reset(objects, version, &store),
            ReflectorEvent::Applied(object) => object.apply(&store),
            ReflectorEvent::Deleted(object) => object.delete(&store),
        };
        let (options, clock, stop) = (self.options.clone(), self.clock.clone(), self.stop.clone());
        reflect_versions(api, options, feed, clock, &self.rng, stop).task
    }
}
