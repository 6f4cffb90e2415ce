//! A world on EC2: the EC2 provider over the in-memory account, whose instances boot, join and run pods by themselves.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use karpenter_api::labels::CAPACITY_RESERVED;
use karpenter_cloud::Provider;
use karpenter_ec2_api::{CapacityReservation, Ec2 as _, FleetTarget, reservation};
use karpenter_fake_ec2::{
    CallFault, CallFaultKind, Engine, EngineOptions, InstanceEvent as CloudEvent, PoolMatch,
};
use karpenter_fake_machine::{
    Fault, Instance, InstanceEvent, MachineOptions, Machines, MachinesHandle, Outages, Selector,
};
use karpenter_provider_ec2::Ec2Settings;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{LiveMachine, Surroundings};
use crate::json::{name, text};
use crate::observe::PriceLookup;
use crate::run::nodes;
use crate::scenario::faults::{CallFault as Told, CloudFault, MachineFault, OfferingSelector};
use crate::scenario::schema::{CapacityReservation as Reservation, NodeSelector};

/// Service network of the cluster, which EKS would tell.
const CLUSTER_CIDR: &str = "10.100.0.0/16";
/// A certificate authority as far as user data needs one.
const CLUSTER_CA: &str = "Y2E=";
/// The account's number.
const ACCOUNT: &str = "123456789012";

/// The account a world's machines are bought in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ec2Account {
    /// Region: decides prices and names of zones.
    pub region: String,
    /// Cluster that subnets and security groups are tagged for.
    pub cluster_name: String,
    /// Capacity reservations.
    pub capacity_reservations: Vec<Reservation>,
}

impl Default for Ec2Account {
    fn default() -> Self {
        Self {
            region: crate::scenario::schema::default_region(),
            cluster_name: crate::scenario::schema::default_cluster(),
            capacity_reservations: Vec::new(),
        }
    }
}

/// The account, and the machines of its instances.
pub(crate) struct Ec2Cloud {
    account: Ec2Account,
    engine: Engine,
    machines: MachinesHandle,
}

impl Ec2Cloud {
    pub(super) fn start(account: Ec2Account, around: &Surroundings) -> (Self, Vec<JoinHandle<()>>) {
        let engine = engine(&account, around);
        let (send, receive) = mpsc::unbounded_channel();
        let mut events = engine.subscribe();
        let stop = around.stop.clone();
        let forward = tokio::spawn(async move {
            loop {
                let event = tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    event = events.recv() => event,
                };
                // The machines are gone only when the world is.
                if event.is_none_or(|e| send.send(told(e)).is_err()) {
                    return;
                }
            }
        });
        let (machines, running) = Machines::start(
            around.api.clone(),
            receive,
            MachineOptions::default(),
            around.rng.child("machines", "ec2"),
            around.stop.clone(),
        );
        let cloud = Self {
            account,
            engine,
            machines,
        };
        (cloud, vec![forward, running])
    }

    pub(super) fn provider(&self, around: &Surroundings) -> Provider {
        provider(&self.engine, settings(&self.account, around), around)
    }

    pub(super) fn prices(&self) -> PriceLookup {
        let engine = self.engine.clone();
        Arc::new(move |instance_type, zone, capacity_type| {
            // What is reserved is paid for whether it runs or not.
            if capacity_type == CAPACITY_RESERVED {
                return Some(0.0);
            }
            target(capacity_type).and_then(|kind| engine.price(instance_type, zone, kind))
        })
    }

    pub(super) fn machines(&self) -> Vec<LiveMachine> {
        let live = self.engine.live_instances();
        live.into_iter()
            .map(|r| LiveMachine {
                provider_id: format!("aws:///{}/{}", r.zone, r.id),
                launched: Some(r.launched),
            })
            .collect()
    }

    pub(super) fn cloud_fault(
        &self,
        around: &Surroundings,
        fault: &CloudFault,
    ) -> Result<(), String> {
        if let Some(out) = &fault.capacity_out {
            let until = until(around, out.duration.map(|d| d.0));
            for pools in pools_of(out)? {
                self.engine.capacity_out(pools, until);
            }
        }
        if let Some(back) = &fault.capacity_back {
            for pools in pools_of(back)? {
                self.engine.capacity_back(&pools);
            }
        }
        if let Some(price) = &fault.price {
            for pools in pools(&price.instance_types, &price.zones, &price.capacity_types)? {
                self.engine.change_prices(pools, price.factor);
            }
        }
        if let Some(selector) = &fault.interrupt {
            for id in ids(around, selector) {
                // Of several machines those that are spot are meant; one that is named has to be.
                let taken_back = self.engine.interrupt(&id);
                if selector.name.is_some() {
                    taken_back.map_err(|e| e.to_string())?;
                }
            }
        }
        let calls = [
            fault
                .throttle
                .as_ref()
                .map(|t| (t, CallFaultKind::Throttle)),
            fault.error.as_ref().map(|t| (t, error(t))),
            fault
                .lost_response
                .as_ref()
                .map(|t| (t, CallFaultKind::LostResponse)),
        ];
        for (told, kind) in calls.into_iter().flatten() {
            let until = until(around, told.duration.map(|d| d.0));
            self.engine.fail_calls(CallFault {
                call: told.call.clone(),
                kind,
                times: told.times.or(until.is_none().then_some(1)),
                until,
            });
        }
        Ok(())
    }

    pub(super) async fn machine_fault(
        &self,
        around: &Surroundings,
        fault: &MachineFault,
    ) -> Result<(), String> {
        match fault.never_boots {
            Some(true) => self.machines.fault(Selector::all(), Fault::NeverBoots),
            Some(false) => self.machines.heal(Selector::all()),
            None => {}
        }
        if let Some(fail) = fault.probes_fail {
            let outages = fail.then(Outages::default);
            self.machines.programs().fail(outages);
        }
        if let Some(late) = fault.boots_late {
            self.machines
                .fault(Selector::all(), Fault::BootsLate(late.0));
        }
        if let Some(selector) = &fault.not_ready {
            for node in nodes(&around.api, selector) {
                self.machines
                    .fault(Selector::node(name(&node)), Fault::NotReady);
            }
        }
        if let Some(selector) = &fault.ready {
            for node in nodes(&around.api, selector) {
                self.machines.heal(Selector::node(name(&node)));
            }
        }
        if let Some(selector) = &fault.dies {
            // Somebody terminates the instances at the console.
            let ids = ids(around, selector);
            if !ids.is_empty() {
                let gone = self.engine.terminate_instances(&ids).await;
                gone.map_err(|e| e.to_string())?;
            }
        }
        Ok(())
    }
}

/// The account of a world, seeded by it.
fn engine(account: &Ec2Account, around: &Surroundings) -> Engine {
    let engine = Engine::new(EngineOptions {
        region: account.region.clone(),
        ..EngineOptions::new(around.clock.clone(), &around.rng, &account.cluster_name)
    });
    let now = around.clock.wall();
    let reservation = |told: &Reservation| CapacityReservation {
        id: told.id.clone(),
        instance_type: told.instance_type.as_str().into(),
        zone: told.zone.as_str().into(),
        owner_id: ACCOUNT.to_owned(),
        instance_match_criteria: "targeted".to_owned(),
        reservation_type: if told.capacity_block {
            reservation::CAPACITY_BLOCK
        } else {
            reservation::DEFAULT
        }
        .to_owned(),
        interruptible: false,
        end_date: told.ends.and_then(|after| now.checked_add(after.0).ok()),
        available_instance_count: told.count,
        tags: told.tags.clone(),
    };
    let all = account.capacity_reservations.iter().map(reservation);
    engine.edit_account(|a| a.capacity_reservations = all.collect());
    engine
}

/// What a provider on that account is told; settings of the world win where they say something.
pub(crate) fn settings(account: &Ec2Account, around: &Surroundings) -> Ec2Settings {
    let said = Ec2Settings::of(&around.settings);
    let or = |given: String, default: String| if given.is_empty() { default } else { given };
    let endpoint = format!("https://{}.example", account.cluster_name);
    Ec2Settings {
        cluster_name: account.cluster_name.clone(),
        cluster_endpoint: or(said.cluster_endpoint, endpoint),
        cluster_ca_bundle: or(said.cluster_ca_bundle, CLUSTER_CA.to_owned()),
        cluster_cidr: CLUSTER_CIDR.to_owned(),
        region: account.region.clone(),
        ..said
    }
}

/// A provider that knows nothing yet.
pub(crate) fn provider(engine: &Engine, settings: Ec2Settings, around: &Surroundings) -> Provider {
    karpenter_provider_ec2::provider(
        Arc::new(engine.clone()),
        settings,
        around.clock.clone(),
        &around.rng.child("provider-ec2", ""),
        around.api.client(),
    )
}

/// The account's news as the machines want them.
fn told(event: CloudEvent) -> InstanceEvent {
    match event {
        CloudEvent::Launched(i) => InstanceEvent::Launched(Instance {
            id: i.id,
            provider_id: i.provider_id,
            private_dns_name: i.private_dns_name,
            instance_type: i.instance_type,
            region: i.region,
            zone: i.zone,
            zone_id: i.zone_id,
            arch: i.arch,
            vcpus: i.vcpus,
            memory_bytes: i.memory_bytes,
            storage_bytes: i.storage_bytes,
            extended_resources: i.extended_resources,
            user_data: i.user_data,
            eni_pods: i.eni_pods,
        }),
        CloudEvent::Terminating { id } => InstanceEvent::Terminating { id },
        CloudEvent::Terminated { id } => InstanceEvent::Terminated { id },
    }
}

fn target(capacity_type: &str) -> Option<FleetTarget> {
    match capacity_type {
        "spot" => Some(FleetTarget::Spot),
        "on-demand" => Some(FleetTarget::OnDemand),
        _ => None,
    }
}

fn until(around: &Surroundings, duration: Option<Duration>) -> Option<Timestamp> {
    let duration = SignedDuration::try_from(duration?).ok()?;
    around.clock.wall().checked_add(duration).ok()
}

fn error(told: &Told) -> CallFaultKind {
    CallFaultKind::Error {
        code: told
            .code
            .clone()
            .unwrap_or_else(|| "InternalError".to_owned()),
        message: told
            .message
            .clone()
            .unwrap_or_else(|| "An internal error has occurred".to_owned()),
    }
}

fn pools_of(s: &OfferingSelector) -> Result<Vec<PoolMatch>, String> {
    pools(&s.instance_types, &s.zones, &s.capacity_types)
}

/// One match for each combination; an empty list means any.
fn pools(types: &[String], zones: &[String], kinds: &[String]) -> Result<Vec<PoolMatch>, String> {
    let any = |list: &[String]| -> Vec<Option<String>> {
        if list.is_empty() {
            vec![None]
        } else {
            list.iter().cloned().map(Some).collect()
        }
    };
    let mut out = Vec::new();
    for kind in any(kinds) {
        let capacity_type = match kind {
            None => None,
            Some(kind) => Some(target(&kind).ok_or_else(|| {
                format!("cloud: capacityTypes: expected spot or on-demand, got {kind:?}")
            })?),
        };
        for instance_type in any(types) {
            for zone in any(zones) {
                out.push(PoolMatch {
                    instance_type: instance_type.clone(),
                    zone,
                    capacity_type,
                });
            }
        }
    }
    Ok(out)
}

/// Ids of the instances behind nodes.
fn ids(around: &Surroundings, selector: &NodeSelector) -> Vec<String> {
    let id = |n: &Value| {
        let id = text(n, "/spec/providerID").rsplit('/').next();
        id.unwrap_or_default().to_owned()
    };
    nodes(&around.api, selector).iter().map(|n| id(n)).collect()
}
