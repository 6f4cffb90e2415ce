//! The definitions for clusters on EC2 admit what Karpenter's admit, and the chart ships them.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // A test may fail loudly.

use karpenter_provider_ec2::nodeclass;
use serde_json::Value;

#[path = "../../api/tests/support/crds.rs"]
mod support;

fn all() -> Vec<Value> {
    let mut all = karpenter_api::crd::core(&[nodeclass::label_domain()]);
    all.push(nodeclass::crd());
    all
}

#[test]
fn definitions_are_like_upstream() {
    let ours = all();
    let files = [
        "karpenter.sh_nodepools.yaml",
        "karpenter.sh_nodeclaims.yaml",
        "karpenter.sh_nodeoverlays.yaml",
        "autoscaling.x-k8s.io_capacitybuffers.yaml",
        "karpenter.k8s.aws_ec2nodeclasses.yaml",
    ];
    let pairs: Vec<_> = files.into_iter().zip(&ours).collect();
    support::assert_like_upstream(&pairs, &[]);
}

#[test]
fn the_chart_ships_them() {
    support::assert_in_chart(&all());
}
