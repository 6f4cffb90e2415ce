//! A world of KWOK nodes: a market that sells a catalogue, and machines that are their Node objects.

use std::sync::Arc;

use karpenter_cloud::Provider;
use karpenter_fake_kube::server::{ApiServer, PatchKind, gr};
use karpenter_fake_machine::kwok::HOLD;
use karpenter_fake_machine::{Kwok, KwokOptions, Outages, Programs};
use karpenter_provider_kwok::market::OfferingPattern;
use karpenter_provider_kwok::{Catalog, Market};
use serde_json::json;
use tokio::task::JoinHandle;

use super::{LiveMachine, Surroundings};
use crate::json::{name, text};
use crate::observe::PriceLookup;
use crate::run::nodes;
use crate::scenario::faults::{CloudFault, MachineFault, OfferingSelector};

/// The KWOK market and what it sells.
pub(crate) struct KwokCloud {
    catalog: Catalog,
    market: Market,
    programs: Programs,
}

impl KwokCloud {
    pub(super) fn start(catalog: Catalog, around: &Surroundings) -> (Self, Vec<JoinHandle<()>>) {
        let cloud = Self {
            catalog,
            market: Market::default(),
            programs: Programs::default(),
        };
        if around.live.is_some() {
            // A cluster of its own has KWOK's own.
            return (cloud, Vec::new());
        }
        let task = Kwok::start_with(
            around.api.clone(),
            KwokOptions::default(),
            cloud.programs.clone(),
            around.rng.child("machines", "kwok"),
            around.stop.clone(),
        );
        (cloud, vec![task])
    }

    pub(super) fn provider(&self, around: &Surroundings) -> Provider {
        karpenter_provider_kwok::provider(
            around.client(),
            around.clock.clone(),
            self.catalog.clone(),
            self.market.clone(),
        )
    }

    pub(super) fn prices(&self) -> PriceLookup {
        let (catalog, market) = (self.catalog.clone(), self.market.clone());
        Arc::new(move |instance_type, zone, capacity_type| {
            let t = catalog
                .types
                .iter()
                .find(|t| t.name.as_ref() == instance_type)?;
            t.offering(zone, capacity_type)
                .map(|o| market.price(instance_type, o))
        })
    }

    pub(super) fn cloud_fault(
        &self,
        around: &Surroundings,
        fault: &CloudFault,
    ) -> Result<(), String> {
        let pattern = |s: &OfferingSelector| OfferingPattern {
            instance_types: s.instance_types.clone(),
            zones: s.zones.clone(),
            capacity_types: s.capacity_types.clone(),
        };
        if let Some(out) = &fault.capacity_out {
            let until = out.duration.map(|d| around.clock.now() + d.0);
            self.market.capacity_out(pattern(out), until);
        }
        if let Some(back) = &fault.capacity_back {
            self.market.capacity_back(&pattern(back));
        }
        if let Some(price) = &fault.price {
            let pattern = OfferingPattern {
                instance_types: price.instance_types.clone(),
                zones: price.zones.clone(),
                capacity_types: price.capacity_types.clone(),
            };
            self.market.scale_price(pattern, price.factor);
        }
        if fault.interrupt.is_some()
            || fault.throttle.is_some()
            || fault.error.is_some()
            || fault.lost_response.is_some()
        {
            return Err("cloud: interrupt, throttle, error and lostResponse are faults of EC2; this world's cloud is kwok".to_owned());
        }
        Ok(())
    }

    pub(super) fn machine_fault(
        &self,
        around: &Surroundings,
        fault: &MachineFault,
    ) -> Result<(), String> {
        if let Some(fail) = fault.probes_fail {
            if around.live.is_some() {
                return Err("machine: probesFail is a fault of the embedded cluster's programs; this cluster is real".to_owned());
            }
            self.programs.fail(fail.then(Outages::default));
        }
        nodes_fail(around, fault)
    }
}

/// Our Nodes: a KWOK machine is paid for while its Node is there.
pub(super) fn machines(api: &ApiServer) -> Vec<LiveMachine> {
    let nodes = api.list(gr("", "nodes"), None);
    let ours = nodes.iter().filter(|n| crate::json::is_ours(n));
    ours.map(|n| LiveMachine {
        provider_id: text(n, "/spec/providerID").to_owned(),
        launched: text(n, "/metadata/creationTimestamp").parse().ok(),
    })
    .collect()
}

/// Makes the faults of a step happen to Node objects, which are all there is of a KWOK machine.
fn nodes_fail(around: &Surroundings, fault: &MachineFault) -> Result<(), String> {
    if fault.boots_late.is_some() || fault.never_boots.is_some() {
        return Err(
            "machine: a KWOK node's boot is set by its KWOKNodeClass (spec.nodeRegistrationDelay)"
                .to_owned(),
        );
    }
    let api = &around.api;
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
    let now = around.clock.wall().to_string();
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
