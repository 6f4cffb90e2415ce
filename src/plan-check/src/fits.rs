//! Taints, host ports and amounts, judged by the letter of Kubernetes' rules.

use k8s_openapi::api::core::v1::{Taint, Toleration};
use karpenter_api::Quantity;
use karpenter_model::pod::HostPort;
use karpenter_model::{Pod, ResourceList};

/// The first taint that no toleration of `pod` tolerates. PreferNoSchedule counts: Karpenter buys no node that
/// its pods would rather avoid, unless the solver gave the pod that toleration by relaxation (`soft`).
pub(crate) fn untolerated<'a>(taints: &'a [Taint], pod: &Pod, soft: bool) -> Option<&'a Taint> {
    taints
        .iter()
        .filter(|t| !(soft && t.effect == "PreferNoSchedule"))
        .find(|t| {
            !pod.tolerations
                .iter()
                .any(|toleration| tolerates(toleration, t))
        })
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    let key = toleration.key.as_deref().unwrap_or_default();
    let operator = toleration.operator.as_deref().unwrap_or("Equal");
    if key.is_empty() {
        return operator == "Exists";
    }
    if key != taint.key {
        return false;
    }
    let (have, want) = (
        taint.value.as_deref().unwrap_or_default(),
        toleration.value.as_deref().unwrap_or_default(),
    );
    let numbers = || have.parse::<i64>().ok().zip(want.parse::<i64>().ok());
    match operator {
        "Exists" => true,
        "Equal" | "" => have == want,
        "Gt" => numbers().is_some_and(|(h, w)| h > w),
        "Lt" => numbers().is_some_and(|(h, w)| h < w),
        _ => false,
    }
}

/// Whether two host port claims exclude each other.
pub(crate) fn ports_clash(a: &HostPort, b: &HostPort) -> bool {
    let any = |p: &HostPort| matches!(p.ip.as_ref(), "0.0.0.0" | "::" | "");
    a.port == b.port && a.protocol == b.protocol && (a.ip == b.ip || any(a) || any(b))
}

/// The first resource of `need` that `have` has too little of.
pub(crate) fn short_of(
    need: &ResourceList,
    have: &ResourceList,
) -> Option<(String, Quantity, Quantity)> {
    need.iter()
        .find(|(name, amount)| *amount > have.get(name) && *amount > Quantity::ZERO)
        .map(|(name, amount)| (name.to_owned(), amount, have.get(name)))
}
