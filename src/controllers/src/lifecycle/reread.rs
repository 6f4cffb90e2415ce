//! Asking the API server itself, where a watch that lags behind could cost somebody a machine.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;

use crate::Context;

/// Enters the pods that are on a node now into the state.
///
/// # Errors
/// Whatever keeps the API server from answering.
pub(crate) async fn pods_on(ctx: &Context, node: &str) -> Result<(), kube::Error> {
    let api: Api<Pod> = Api::all(ctx.client.clone());
    let on_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
    for pod in api.list(&on_node).await?.items {
        ctx.state.apply_pod(pod);
    }
    Ok(())
}
