//! Machines whose writes are refused for a while: what they had to say is said later.

use karpenter_fake_kube::loops;
use karpenter_fake_kube::server::{ApiServer, Gr, InsideFaults, ServerOptions, gr};
use karpenter_fake_machine::{
    Fault, Instance, InstanceEvent, MachineOptions, Machines, MachinesHandle, Selector,
};
use karpenter_runtime::{Clock, RngTree};
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::{NODES, seconds, tainted};

const LEASES: Gr<'static> = gr("coordination.k8s.io", "leases");
const CSI_NODES: Gr<'static> = gr("storage.k8s.io", "csinodes");
const NAME: &str = "ip-10-0-0-4.ec2.internal";

/// A cluster with one machine in it, and whoever tells it what becomes of that.
struct World {
    api: ApiServer,
    machines: MachinesHandle,
    events: UnboundedSender<InstanceEvent>,
    _stop: DropGuard,
}

impl World {
    fn start() -> Self {
        let rng = RngTree::new(3);
        let api = ApiServer::new(ServerOptions {
            clock: Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap()),
            rng: rng.child("api-server", ""),
        });
        let stop = CancellationToken::new();
        drop(loops::start_all(&api, stop.clone()));
        let (events, told) = unbounded_channel();
        let options = MachineOptions::default();
        let (machines, _) = Machines::start(api.clone(), told, options, rng, stop.clone());
        let world = Self {
            api,
            machines,
            events,
            _stop: stop.drop_guard(),
        };
        world.tell(InstanceEvent::Launched(Instance {
            id: "i-1".to_owned(),
            provider_id: "aws:///us-east-1a/i-1".to_owned(),
            private_dns_name: NAME.to_owned(),
            instance_type: "m6a.large".to_owned(),
            arch: "amd64".to_owned(),
            vcpus: 2,
            memory_bytes: 8 << 30,
            storage_bytes: 20 << 30,
            user_data: "#!/bin/bash -xe\n/etc/eks/bootstrap.sh 'demo' --apiserver-endpoint 'https://x' --b64-cluster-ca 'Y2E='"
                .to_owned(),
            ..Instance::default()
        }));
        world
    }

    fn tell(&self, event: InstanceEvent) {
        self.events.send(event).unwrap();
    }

    /// Nothing that the cluster's own components write succeeds for so long.
    async fn trouble(&self, seconds_of_it: u64, faults: InsideFaults) {
        self.api.set_inside_faults(faults);
        seconds(seconds_of_it).await;
        self.api.set_inside_faults(InsideFaults::default());
    }

    fn ready(&self) -> Value {
        let node = self.api.get(NODES, None, NAME).unwrap();
        let conditions = node["status"]["conditions"].as_array().unwrap();
        conditions.iter().find(|c| c["type"] == "Ready").unwrap()["status"].clone()
    }
}

fn refused() -> InsideFaults {
    InsideFaults {
        failed_before: 1000,
        ..InsideFaults::default()
    }
}

fn contradicted() -> InsideFaults {
    InsideFaults {
        conflicts: 1000,
        ..InsideFaults::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_joins_whole_after_all_refusals_and_lost_answers() {
    let lost = InsideFaults {
        failed_after: 1000,
        ..InsideFaults::default()
    };
    for faults in [refused(), contradicted(), lost] {
        let world = World::start();
        world.trouble(600, faults).await;
        seconds(120).await;
        assert_eq!(world.ready(), "True", "{faults:?}");
        let node = world.api.get(NODES, None, NAME).unwrap();
        assert_eq!(tainted(&node), [] as [&str; 0], "{faults:?}");
        world
            .api
            .get(LEASES, Some("kube-node-lease"), NAME)
            .unwrap();
        let csi = world.api.get(CSI_NODES, None, NAME).unwrap();
        assert_eq!(
            csi["spec"]["drivers"][0]["name"], "ebs.csi.aws.com",
            "{faults:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn silence_its_end_and_troubles_are_noticed_after_refusals() {
    for faults in [refused(), contradicted()] {
        let world = World::start();
        seconds(600).await;
        world.machines.fault(Selector::default(), Fault::Dies);
        world.trouble(300, faults).await;
        assert_eq!(world.ready(), "True", "{faults:?}");
        seconds(300).await;
        assert_eq!(world.ready(), "Unknown", "{faults:?}");
        world.machines.heal(Selector::default());
        world.trouble(300, faults).await;
        assert_eq!(world.ready(), "Unknown", "{faults:?}");
        seconds(300).await;
        assert_eq!(world.ready(), "True", "{faults:?}");
        world.machines.fault(Selector::default(), Fault::NotReady);
        world.trouble(300, faults).await;
        seconds(300).await;
        assert_eq!(world.ready(), "False", "{faults:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_node_of_a_machine_that_is_gone_goes_after_refusals() {
    let world = World::start();
    seconds(600).await;
    world.tell(InstanceEvent::Terminating {
        id: "i-1".to_owned(),
    });
    world.tell(InstanceEvent::Terminated {
        id: "i-1".to_owned(),
    });
    world.trouble(600, refused()).await;
    world.api.get(NODES, None, NAME).unwrap();
    seconds(300).await;
    assert!(world.api.get(NODES, None, NAME).is_err());
}
