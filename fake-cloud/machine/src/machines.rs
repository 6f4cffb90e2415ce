//! Machines: from an instance's launch over its boot and its Node to its end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use karpenter_fake_kube::ApiServer;
use karpenter_fake_kube::loops::feed::{at as wait_until, gone_is_fine, there_is_fine};
use karpenter_fake_kube::loops::nodelifecycle::{LEASE_NAMESPACE, STOPPED_RENEWING};
use karpenter_fake_kube::loops::object;
use karpenter_fake_kube::loops::resource::{CSI_NODES, LEASES, NODES};
use karpenter_fake_kube::server::{ApiError, PatchKind};
use karpenter_runtime::RngTree;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::faults::{Command, Fault, MachineView, MachinesHandle, Selector, Stage};
use crate::hosts::Hosts;
use crate::instance::{Instance, InstanceEvent};
use crate::options::MachineOptions;
use crate::outages::Programs;
use crate::userdata::{self, NodeSetup};
use crate::{kubelet, node};

/// Wait after a write that the server refused.
const RETRY: Duration = Duration::from_secs(5);

/// What is due for a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Boot,
    /// The kubelet begins to renew its lease, is silent from now on, or is heard again.
    Lease,
    /// Its CSINode is made.
    CsiNode,
    Ready,
    /// It says how it is.
    Report,
    Devices,
    /// The volume driver registers.
    VolumeDriver,
    /// The cloud controller deletes the Node.
    Forget,
}

struct Machine {
    instance: Instance,
    setup: Result<NodeSetup, String>,
    stage: Stage,
    serial: u64,
}

/// Simulated machines.
pub struct Machines {
    api: ApiServer,
    options: MachineOptions,
    rng: RngTree,
    hosts: Hosts,
    machines: BTreeMap<String, Machine>,
    steps: BTreeMap<(Instant, String, Step), ()>,
    boot_faults: Vec<(Selector, Fault)>,
    views: Arc<Mutex<Vec<MachineView>>>,
    serial: u64,
}

impl Machines {
    /// Runs machines for the instances that `events` tells of, and the pods bound to their nodes, until `stop`.
    /// The handle makes faults happen.
    pub fn start(
        api: ApiServer,
        events: mpsc::UnboundedReceiver<InstanceEvent>,
        options: MachineOptions,
        rng: RngTree,
        stop: CancellationToken,
    ) -> (MachinesHandle, JoinHandle<()>) {
        let api = api.inside();
        let (send, commands) = mpsc::unbounded_channel();
        let views = Arc::<Mutex<Vec<MachineView>>>::default();
        let handle = MachinesHandle {
            commands: send,
            views: Arc::clone(&views),
            programs: Programs::default(),
        };
        let hosts = Hosts::default();
        let pods = kubelet::run(
            api.clone(),
            (hosts.clone(), handle.programs.clone()),
            options.kubelet,
            rng.child("kubelet", "machines"),
            stop.clone(),
        );
        let machines = Self {
            api,
            options,
            rng,
            hosts,
            machines: BTreeMap::new(),
            steps: BTreeMap::new(),
            boot_faults: Vec::new(),
            views,
            serial: 0,
        };
        let task = tokio::spawn(async move {
            tokio::join!(machines.run(events, commands, stop), pods);
        });
        (handle, task)
    }

    async fn run(
        mut self,
        mut events: mpsc::UnboundedReceiver<InstanceEvent>,
        mut commands: mpsc::UnboundedReceiver<Command>,
        stop: CancellationToken,
    ) {
        let (mut told, mut handled) = (true, true);
        loop {
            let deadline = self.steps.first_key_value().map(|((when, ..), ())| *when);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                command = commands.recv(), if handled => match command {
                    Some(command) => self.command(command),
                    None => handled = false,
                },
                event = events.recv(), if told => match event {
                    Some(event) => self.event(event),
                    // The cloud is gone; what runs goes on.
                    None => told = false,
                },
                () = wait_until(deadline) => self.take_steps(),
            }
            self.publish();
        }
    }

    fn publish(&self) {
        let mut order: Vec<&Machine> = self.machines.values().collect();
        order.sort_by_key(|m| m.serial);
        *self.views.lock() = order
            .into_iter()
            .map(|m| MachineView {
                id: m.instance.id.clone(),
                node: m.instance.private_dns_name.clone(),
                stage: m.stage,
                problem: m.setup.as_ref().err().cloned(),
            })
            .collect();
    }

    fn at(&mut self, after: Duration, id: &str, step: Step) {
        self.steps
            .insert((Instant::now() + after, id.to_owned(), step), ());
    }

    fn event(&mut self, event: InstanceEvent) {
        match event {
            InstanceEvent::Launched(instance) => self.launched(instance),
            InstanceEvent::Terminating { id } => self.terminating(&id),
            InstanceEvent::Terminated { id } => {
                // Some clouds skip the word before the last one.
                self.terminating(&id);
                let after = self
                    .options
                    .cloud_controller
                    .draw(&self.rng, "cloud-controller", &id);
                self.at(after, &id, Step::Forget);
            }
        }
    }

    fn launched(&mut self, instance: Instance) {
        let id = instance.id.clone();
        let setup = userdata::parse(&instance.user_data, self.options.require_cluster)
            .map_err(|e| e.to_string());
        let mut stage = Stage::Booting;
        let mut boot = self.options.boot.draw(&self.rng, "boot", &id);
        if let Err(problem) = &setup {
            tracing::warn!(instance = id, problem, "machine will not join");
            stage = Stage::Stuck;
        }
        for (selector, fault) in &mut self.boot_faults {
            if selector.count == Some(0) || !selector.fits(&instance) {
                continue;
            }
            if let Some(count) = &mut selector.count {
                *count -= 1;
            }
            match fault {
                Fault::NeverBoots => stage = Stage::Stuck,
                Fault::BootsLate(more) => boot += *more,
                Fault::NotReady | Fault::Dies => {}
            }
        }
        if stage == Stage::Booting {
            self.at(boot, &id, Step::Boot);
        }
        self.serial += 1;
        let machine = Machine {
            instance,
            setup,
            stage,
            serial: self.serial,
        };
        self.machines.insert(id, machine);
    }

    fn terminating(&mut self, id: &str) {
        let Some(machine) = self.machines.get_mut(id) else {
            return;
        };
        let before = std::mem::replace(&mut machine.stage, Stage::Terminating);
        let name = machine.instance.private_dns_name.clone();
        self.steps
            .retain(|(_, of, step), ()| of != id || *step == Step::Forget);
        if matches!(before, Stage::Joined | Stage::Ready | Stage::NotReady) {
            self.hosts.set(&name, false);
            self.take(id, Step::Report);
        }
    }

    fn take_steps(&mut self) {
        let now = Instant::now();
        while let Some(((when, ..), ())) = self.steps.first_key_value() {
            if *when > now {
                return;
            }
            let Some(((_, id, step), ())) = self.steps.pop_first() else {
                return;
            };
            self.take(&id, step);
        }
    }

    /// Takes a step now; one that the server refuses is taken again until it does not.
    fn take(&mut self, id: &str, step: Step) {
        if let Err(error) = self.step(id, step) {
            tracing::debug!(instance = id, ?step, %error, "step refused, will retry");
            self.at(RETRY, id, step);
        }
    }

    fn step(&mut self, id: &str, step: Step) -> Result<(), ApiError> {
        let Some(machine) = self.machines.get_mut(id) else {
            return Ok(());
        };
        let name = machine.instance.private_dns_name.clone();
        let (stage, provider_id) = (machine.stage, machine.instance.provider_id.clone());
        match step {
            Step::Boot => self.boot(id),
            Step::Lease => self.lease(&name, &provider_id, stage),
            Step::CsiNode => match self.own_node(&name, &provider_id)? {
                Some(node) => {
                    there_is_fine(self.api.create(CSI_NODES, None, node::csi_node(&node)))
                }
                None => Ok(()),
            },
            Step::Report => self.report(&name, &provider_id, stage),
            Step::Ready => {
                if stage == Stage::Joined {
                    machine.stage = Stage::Ready;
                    self.take(id, Step::Report);
                    let driver = self.options.volume_driver;
                    let driver = driver.draw(&self.rng, "volume-driver", id);
                    self.at(driver, id, Step::VolumeDriver);
                }
                Ok(())
            }
            Step::VolumeDriver => {
                // It may not have been made yet.
                self.step(id, Step::CsiNode)?;
                let patch = json!({"spec": {"drivers": [node::volume_driver(id)]}});
                let kind = PatchKind::Merge;
                gone_is_fine(self.api.patch(CSI_NODES, None, &name, "", kind, patch))
            }
            Step::Devices => self.register_devices(id),
            Step::Forget => {
                // Another instance may have been given the name since.
                if self.own_node(&name, &provider_id)?.is_some() {
                    gone_is_fine(self.api.delete(NODES, None, &name, None))?;
                }
                self.machines.remove(id);
                self.hosts.remove(&name);
                Ok(())
            }
        }
    }

    /// The kubelet starts and registers.
    fn boot(&mut self, id: &str) -> Result<(), ApiError> {
        let Some(machine) = self.machines.get_mut(id) else {
            return Ok(());
        };
        let Ok(setup) = &machine.setup else {
            return Ok(());
        };
        let now = self.api.clock().wall();
        let registers = node::registering(&machine.instance, setup, now);
        let provider_id = object::text(&registers, &["spec", "providerID"]).to_owned();
        let name = object::name(&registers).to_owned();
        let node = match self.api.create(NODES, None, registers) {
            // The kubelet finds its own Node where an answer was lost.
            Err(error) if error.code == 409 => {
                let there = self.api.get(NODES, None, &name)?;
                if object::text(&there, &["spec", "providerID"]) != provider_id {
                    return Err(error);
                }
                there
            }
            created => created?,
        };
        machine.stage = Stage::Joined;
        let has_devices = !machine.instance.extended_resources.is_empty();
        self.hosts.set(object::name(&node), true);
        self.take(id, Step::Lease);
        self.take(id, Step::CsiNode);
        let ready = self.options.ready.draw(&self.rng, "ready", id);
        self.at(ready, id, Step::Ready);
        if has_devices {
            let devices = self.options.devices.draw(&self.rng, "devices", id);
            self.at(devices, id, Step::Devices);
        }
        Ok(())
    }

    fn register_devices(&self, id: &str) -> Result<(), ApiError> {
        let Some(machine) = self.machines.get(id) else {
            return Ok(());
        };
        let devices: Value = machine
            .instance
            .extended_resources
            .iter()
            .map(|(name, count)| (name.clone(), json!(count.to_string())))
            .collect();
        let patch = json!({"status": {"capacity": devices, "allocatable": devices}});
        let name = &machine.instance.private_dns_name;
        gone_is_fine(
            self.api
                .patch(NODES, None, name, "status", PatchKind::Merge, patch),
        )
    }

    /// The Node of that name while it is this machine's.
    fn own_node(&self, name: &str, provider_id: &str) -> Result<Option<Arc<Value>>, ApiError> {
        match self.api.get(NODES, None, name) {
            Ok(node) if object::text(&node, &["spec", "providerID"]) == provider_id => {
                Ok(Some(node))
            }
            Ok(_) => Ok(None),
            Err(error) if error.code == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The kubelet reports its conditions. A node that was deleted under it stays deleted, and another machine's is not its
    /// to speak of.
    fn report(&self, name: &str, provider_id: &str, stage: Stage) -> Result<(), ApiError> {
        let (ready, message) = match stage {
            Stage::Ready => (true, ""),
            Stage::NotReady => (false, "PLEG is not healthy"),
            Stage::Terminating => (false, "node is shutting down"),
            // What was to be said is no longer so, and what is, nobody says.
            Stage::Booting | Stage::Stuck | Stage::Joined | Stage::Silent => return Ok(()),
        };
        let Some(node) = self.own_node(name, provider_id)? else {
            return Ok(());
        };
        let now = self.api.clock().wall();
        let Some(conditions) = node::reported(&node, ready, message, now) else {
            return Ok(());
        };
        let patch = json!({"status": {"conditions": conditions}});
        gone_is_fine(
            self.api
                .patch(NODES, None, name, "status", PatchKind::Merge, patch),
        )
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Fault(mut selector, fault) => {
                let mut order: Vec<(u64, String)> = self
                    .machines
                    .iter()
                    .filter(|(_, m)| selector.fits(&m.instance))
                    .map(|(id, m)| (m.serial, id.clone()))
                    .collect();
                order.sort();
                for (_, id) in order {
                    if selector.count == Some(0) {
                        break;
                    }
                    if self.strike(&id, fault)
                        && let Some(count) = &mut selector.count
                    {
                        *count -= 1;
                    }
                }
                if matches!(fault, Fault::NeverBoots | Fault::BootsLate(_)) {
                    self.boot_faults.push((selector, fault));
                }
            }
            Command::Heal(selector) => self.heal(&selector),
        }
    }

    /// Makes a fault happen to a machine; false when it does not apply to it.
    fn strike(&mut self, id: &str, fault: Fault) -> bool {
        let Some(machine) = self.machines.get_mut(id) else {
            return false;
        };
        let name = machine.instance.private_dns_name.clone();
        let runs = matches!(
            machine.stage,
            Stage::Joined | Stage::Ready | Stage::NotReady
        );
        match fault {
            Fault::NeverBoots if machine.stage == Stage::Booting => {
                machine.stage = Stage::Stuck;
                self.steps.retain(|(_, of, _), ()| of != id);
                true
            }
            Fault::BootsLate(more) if machine.stage == Stage::Booting => {
                let due = self
                    .steps
                    .keys()
                    .find(|(_, of, s)| of == id && *s == Step::Boot)
                    .cloned();
                if let Some((when, of, step)) = due {
                    self.steps.remove(&(when, of.clone(), step));
                    self.steps.insert((when + more, of, step), ());
                }
                true
            }
            Fault::NotReady if runs => {
                machine.stage = Stage::NotReady;
                self.hosts.set(&name, false);
                self.take(id, Step::Report);
                true
            }
            Fault::Dies if runs => {
                machine.stage = Stage::Silent;
                self.hosts.set(&name, false);
                self.take(id, Step::Lease);
                true
            }
            _ => false,
        }
    }

    fn heal(&mut self, selector: &Selector) {
        self.boot_faults.retain(|(s, _)| {
            let same = Selector {
                count: selector.count,
                ..s.clone()
            };
            same != *selector
        });
        let ids: Vec<String> = self
            .machines
            .iter()
            .filter(|(_, m)| {
                selector.fits(&m.instance) && matches!(m.stage, Stage::NotReady | Stage::Silent)
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in ids {
            let Some(machine) = self.machines.get_mut(&id) else {
                continue;
            };
            let was_silent = machine.stage == Stage::Silent;
            machine.stage = Stage::Ready;
            let name = machine.instance.private_dns_name.clone();
            if was_silent {
                self.take(&id, Step::Lease);
            }
            self.hosts.set(&name, true);
            self.take(&id, Step::Report);
        }
    }

    /// Makes the machine's lease, or tells the node lifecycle loop since when it is no longer renewed, or that it is again.
    fn lease(&self, name: &str, provider_id: &str, stage: Stage) -> Result<(), ApiError> {
        let now = self.api.clock().wall();
        let there = match self.api.get(LEASES, Some(LEASE_NAMESPACE), name) {
            Err(error) if error.code == 404 => {
                let Some(node) = self.own_node(name, provider_id)? else {
                    return Ok(());
                };
                let lease = node::lease(&node, now);
                self.api.create(LEASES, Some(LEASE_NAMESPACE), lease)?
            }
            there => there?,
        };
        let silent = stage == Stage::Silent;
        if silent != object::annotation(&there, STOPPED_RENEWING).is_empty() {
            return Ok(());
        }
        let since = silent.then(|| now.to_string());
        let patch = json!({"metadata": {"annotations": {STOPPED_RENEWING: since}}});
        let namespace = Some(LEASE_NAMESPACE);
        gone_is_fine(
            self.api
                .patch(LEASES, namespace, name, "", PatchKind::Merge, patch),
        )
    }
}
