//! Taints and tolerations (`scheduling.md` §2): Kubernetes' semantics, all effects, `Gt`/`Lt` included.

pub use k8s_openapi::api::core::v1::{Taint, Toleration};
use karpenter_api::labels;

use crate::requirement::parse_integer;

/// Effect that keeps pods from being scheduled.
pub const NO_SCHEDULE: &str = "NoSchedule";
/// Effect that pods are scheduled in spite of when nothing else is left.
pub const PREFER_NO_SCHEDULE: &str = "PreferNoSchedule";
/// Effect that also evicts.
pub const NO_EXECUTE: &str = "NoExecute";

/// Taints that Kubernetes, its cloud controller and Karpenter put on a node while it comes up, key and effect.
const EPHEMERAL: [(&str, &str); 5] = [
    ("node.kubernetes.io/not-ready", NO_SCHEDULE),
    ("node.kubernetes.io/not-ready", NO_EXECUTE),
    ("node.kubernetes.io/unreachable", NO_SCHEDULE),
    (
        "node.cloudprovider.kubernetes.io/uninitialized",
        NO_SCHEDULE,
    ),
    (labels::UNREGISTERED_TAINT, NO_EXECUTE),
];

/// A taint from its parts; an empty value is none.
#[must_use]
pub fn taint(key: &str, value: &str, effect: &str) -> Taint {
    Taint {
        key: key.to_owned(),
        value: (!value.is_empty()).then(|| value.to_owned()),
        effect: effect.to_owned(),
        time_added: None,
    }
}

/// The taint of a node that is being disrupted.
#[must_use]
pub fn disrupted_taint() -> Taint {
    taint(labels::DISRUPTED_TAINT, "", NO_SCHEDULE)
}

/// The taint of a node that has not been registered yet.
#[must_use]
pub fn unregistered_taint() -> Taint {
    taint(labels::UNREGISTERED_TAINT, "", NO_EXECUTE)
}

/// Whether two taints are the same one: key and effect.
#[must_use]
pub fn same(a: &Taint, b: &Taint) -> bool {
    a.key == b.key && a.effect == b.effect
}

/// Whether `taint` is expected to go by itself while a managed node comes up.
#[must_use]
pub fn is_ephemeral(taint: &Taint) -> bool {
    taint.key.starts_with(labels::READINESS_TAINT_PREFIX)
        || EPHEMERAL
            .iter()
            .any(|(key, effect)| taint.key == *key && taint.effect == *effect)
}

/// Whether `toleration` tolerates `taint`, as `Toleration.ToleratesTaint` of Kubernetes v1.36.
#[must_use]
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let some = |text: &Option<String>| text.as_deref().is_some_and(|t| !t.is_empty());
    if some(&toleration.effect) && toleration.effect.as_deref() != Some(taint.effect.as_str()) {
        return false;
    }
    if some(&toleration.key) && toleration.key.as_deref() != Some(taint.key.as_str()) {
        return false;
    }
    let wanted = toleration.value.as_deref().unwrap_or_default();
    let there = taint.value.as_deref().unwrap_or_default();
    match toleration.operator.as_deref() {
        None | Some("" | "Equal") => wanted == there,
        Some("Exists") => true,
        Some(op @ ("Gt" | "Lt")) => match (parse_integer(there), parse_integer(wanted)) {
            (Some(there), Some(wanted)) if op == "Gt" => there > wanted,
            (Some(there), Some(wanted)) => there < wanted,
            _ => false,
        },
        Some(_) => false,
    }
}

/// The first of `taints` that none of `tolerations` tolerates.
pub fn first_untolerated<'a>(
    taints: impl IntoIterator<Item = &'a Taint>,
    tolerations: &[Toleration],
) -> Option<&'a Taint> {
    taints
        .into_iter()
        .find(|taint| !tolerations.iter().any(|t| tolerates(t, taint)))
}

/// The same, of those that keep pods off for good if `put_up`: what is only to be avoided (`PreferNoSchedule`) is put up with.
pub fn first_in_the_way<'a>(
    taints: impl IntoIterator<Item = &'a Taint>,
    tolerations: &[Toleration],
    put_up: bool,
) -> Option<&'a Taint> {
    let taints = taints.into_iter();
    let counting = taints.filter(|t| !(put_up && t.effect == PREFER_NO_SCHEDULE));
    first_untolerated(counting, tolerations)
}

/// `key[=value]:effect`, as kubectl writes a taint.
#[must_use]
pub fn text(taint: &Taint) -> String {
    match taint.value.as_deref() {
        Some(value) if !value.is_empty() => format!("{}={value}:{}", taint.key, taint.effect),
        _ => format!("{}:{}", taint.key, taint.effect),
    }
}
