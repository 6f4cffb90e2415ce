//! The definition of KWOKNodeClass admits what Karpenter's admits, and the chart ships it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // A test may fail loudly.

use karpenter_provider_kwok::nodeclass;

#[path = "../../api/tests/support/crds.rs"]
mod support;

#[test]
fn the_definition_is_like_upstream() {
    let pairs = [("karpenter.kwok.sh_kwoknodeclasses.yaml", &nodeclass::crd())];
    support::assert_like_upstream(&pairs, &[]);
}

#[test]
fn the_chart_ships_it() {
    support::assert_in_chart(&[nodeclass::crd()]);
}
