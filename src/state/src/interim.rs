//! Stands in until `karpenter_model::Pod::from_k8s` is there (an inherent function wins over a trait's, so this
//! goes out of use by itself and is then removed).

use k8s_openapi::api::core::v1::Pod as RawPod;
use karpenter_model::{Pod, PodKey};

pub(crate) trait FromK8s {
    fn from_k8s(pod: &RawPod) -> Pod;
}

impl FromK8s for Pod {
    fn from_k8s(pod: &RawPod) -> Pod {
        let meta = &pod.metadata;
        Pod {
            key: PodKey {
                namespace: meta.namespace.as_deref().unwrap_or_default().into(),
                name: meta.name.as_deref().unwrap_or_default().into(),
            },
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            node_name: pod
                .spec
                .as_ref()
                .and_then(|s| s.node_name.as_deref())
                .map(Into::into),
            ..Pod::default()
        }
    }
}
