//! Faults of machines in a world of KWOK nodes.

use serde_json::json;

use karpenter_fake_kube::server::{PatchKind, gr};
use karpenter_fake_machine::kwok::HOLD;

use crate::json::name;
use crate::run::nodes;
use crate::scenario::schema::MachineFault;
use crate::world::World;

/// Makes the faults of a step happen.
pub(crate) fn machine(world: &World, fault: &MachineFault) -> Result<(), String> {
    if fault.boots_late.is_some() || fault.never_boots.is_some() {
        return Err(
            "machine: a KWOK node's boot is set by its KWOKNodeClass (spec.nodeRegistrationDelay)"
                .to_owned(),
        );
    }
    let api = &world.api;
    let patch = |node: &str, subresource: &str, patch| {
        api.patch(
            gr("", "nodes"),
            None,
            node,
            subresource,
            PatchKind::Strategic,
            patch,
        )
        .map(|_| ())
        .map_err(|e| e.to_string())
    };
    let now = world.clock.wall().to_string();
    if let Some(selector) = &fault.not_ready {
        for node in nodes(api, selector) {
            // Held, so that the KWOK model does not heal it at once.
            patch(
                name(&node),
                "",
                json!({ "metadata": { "annotations": { HOLD: "true" } } }),
            )?;
            let condition = json!({ "type": "Ready", "status": "False", "reason": "KubeletNotReady", "message": "told to be", "lastTransitionTime": now });
            patch(
                name(&node),
                "status",
                json!({ "status": { "conditions": [condition] } }),
            )?;
        }
    }
    if let Some(selector) = &fault.ready {
        for node in nodes(api, selector) {
            let condition = json!({ "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "", "lastTransitionTime": now });
            patch(
                name(&node),
                "status",
                json!({ "status": { "conditions": [condition] } }),
            )?;
            patch(
                name(&node),
                "",
                json!({ "metadata": { "annotations": { HOLD: null } } }),
            )?;
        }
    }
    if let Some(selector) = &fault.dies {
        for node in nodes(api, selector) {
            // A KWOK machine is its Node object: it dies by vanishing, finalizers and all.
            patch(
                name(&node),
                "",
                json!({ "metadata": { "finalizers": null } }),
            )?;
            api.delete(gr("", "nodes"), None, name(&node), Some(0))
                .map_err(|e| e.to_string())?;
        }
    }
    Ok(())
}
