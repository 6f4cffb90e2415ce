//! The provider-neutral definitions admit what Karpenter's admit.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, dead_code)] // A test may fail loudly.

#[path = "support/crds.rs"]
mod support;

#[test]
fn neutral_definitions_are_like_upstream() {
    let ours = karpenter_api::crd::core(&[]);
    let files = [
        "core-karpenter.sh_nodepools.yaml",
        "core-karpenter.sh_nodeclaims.yaml",
        "core-karpenter.sh_nodeoverlays.yaml",
        "autoscaling.x-k8s.io_capacitybuffers.yaml",
    ];
    let pairs: Vec<_> = files.into_iter().zip(&ours).collect();
    support::assert_like_upstream(&pairs, &[]);
}
