//! Capacity buffers are provided for: bought when there is no room, kept up as pods use it, and told about in their
//! status and nowhere else.

use serde_json::{Value, json};

use crate::world::World;

const GROUP: &str = "autoscaling.x-k8s.io";
const PROVISIONING: &str = "Provisioning";
const READY: &str = "ReadyForProvisioning";

fn spec(cpu: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "pause", "resources": {"requests": {"cpu": cpu}}}]}})
}

impl World {
    fn template(&self, name: &str, cpu: &str) {
        self.create(
            "",
            "podtemplates",
            json!({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": name}, "template": spec(cpu)}),
        );
    }
    fn deployment(&self, name: &str, replicas: u32, cpu: &str) {
        self.create("apps", "deployments", json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": spec(cpu)},
        }));
    }
    fn buffer_of(&self, name: &str, spec: Value) {
        self.create(
            GROUP,
            "capacitybuffers",
            json!({
                "apiVersion": "autoscaling.x-k8s.io/v1beta1", "kind": "CapacityBuffer",
                "metadata": {"name": name}, "spec": spec,
            }),
        );
    }
    fn cores(&self) -> i64 {
        let all = self.claims();
        all.iter()
            .map(|c| c.spec.resources.requests["cpu"].0.parse::<i64>().unwrap())
            .sum()
    }
    /// Every claim that has no machine gets one, which joins and is initialized.
    fn launch_all(&self) {
        for claim in self.claims() {
            let name = claim.metadata.name.clone().unwrap();
            if claim.status.provider_id.is_empty() {
                // The test's market has two sizes.
                let asked: i64 = claim.spec.resources.requests["cpu"].0.parse().unwrap();
                let size = if asked > 2 { "8" } else { "2" };
                self.launch(&name, size);
                self.join(&name, size, true);
            }
        }
    }
    /// With a pool, a template of one core and a buffer of it with room for two, machines and all.
    async fn provided() -> Self {
        let world = World::with_buffers().await;
        world.pool("default", json!({})).await;
        world.template("web", "1");
        world.buffer_of(
            "spare",
            json!({"podTemplateRef": {"name": "web"}, "replicas": 2}),
        );
        world.pass(3.0).await;
        assert_eq!(world.cores(), 2);
        world.launch_all();
        world.pass(3.0).await;
        assert_eq!(
            world.buffer("spare", PROVISIONING),
            (Some(2), "True FitsExistingCapacity".into())
        );
        world
    }
}

#[tokio::test(start_paused = true)]
async fn a_buffer_gets_its_room_and_nobody_sees_pods() {
    let world = World::with_buffers().await;
    world.pool("default", json!({})).await;
    world.template("web", "1");
    world.buffer_of(
        "spare",
        json!({"podTemplateRef": {"name": "web"}, "replicas": 3}),
    );
    world.pass(3.0).await;
    assert_eq!(world.cores(), 3);
    assert_eq!(
        world.buffer("spare", READY),
        (Some(3), "True Resolved".into())
    );
    assert_eq!(
        world.buffer("spare", PROVISIONING).1,
        "False RequiresNewCapacity"
    );
    world.pass(600.0).await;
    assert_eq!(world.cores(), 3, "bought once, however long it takes");
    world.launch_all();
    world.pass(5.0).await;
    assert_eq!(
        world.buffer("spare", PROVISIONING).1,
        "True FitsExistingCapacity"
    );
    for claim in world.claims() {
        let name = claim.metadata.name.unwrap();
        assert!(!world.nominated(&name), "nobody is expected there");
    }
    let version = world.version();
    world.pass(30.0 * 86_400.0).await;
    assert_eq!(world.version(), version, "a month costs nothing");
    assert_eq!(world.pods(), Vec::<String>::new());
    assert_eq!(world.pod_events(), 0);
}

#[tokio::test(start_paused = true)]
async fn without_the_gate_buffers_are_left_alone() {
    let world = World::start().await;
    world.pool("default", json!({})).await;
    world.template("web", "1");
    world.buffer_of(
        "spare",
        json!({"podTemplateRef": {"name": "web"}, "replicas": 3}),
    );
    world.pass(60.0).await;
    assert_eq!(world.claims().len(), 0);
    assert_eq!(world.buffer("spare", READY), (None, String::new()));
}

#[tokio::test(start_paused = true)]
async fn room_that_pods_use_is_bought_again() {
    let world = World::provided().await;
    let node = world.claims()[0].metadata.name.clone().unwrap();
    world.pending_pod("web", "1");
    world.bind("web", &node);
    world.pass(5.0).await;
    assert_eq!(world.cores(), 3, "two for the buffer besides the pod's");
    assert_eq!(
        world.buffer("spare", PROVISIONING).1,
        "False RequiresNewCapacity"
    );
    world.launch_all();
    world.pass(5.0).await;
    assert_eq!(
        world.buffer("spare", PROVISIONING).1,
        "True FitsExistingCapacity"
    );
    // Room comes back when the pod goes.
    world.delete("", "pods", "web");
    world.pass(60.0).await;
    assert_eq!(world.cores(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_pod_takes_what_was_bought_for_a_buffer_before_it_is_there() {
    let world = World::with_buffers().await;
    world.pool("default", json!({})).await;
    world.template("web", "1");
    world.buffer_of(
        "spare",
        json!({"podTemplateRef": {"name": "web"}, "replicas": 2}),
    );
    world.pass(3.0).await;
    let first = world.claims()[0].metadata.name.clone().unwrap();
    world.pending_pod("web", "2");
    world.pass(3.0).await;
    assert_eq!(world.claims().len(), 2);
    assert!(
        world.nominated(&first),
        "the pod goes there, the buffer waits for the next"
    );
    assert_eq!(world.events_about("web"), ["Nominated"]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_node_is_made_up_for() {
    let world = World::provided().await;
    let node = world.claims()[0].metadata.name.clone().unwrap();
    world.delete_claim(&node);
    world.lose(&node);
    world.pass(5.0).await;
    let names: Vec<_> = world
        .claims()
        .into_iter()
        .map(|c| c.metadata.name)
        .collect();
    assert_eq!(names.len(), 1, "{names:?}");
    assert_ne!(names[0].as_ref(), Some(&node));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_about_to_go_keeps_its_chunks_until_it_does() {
    let world = World::provided().await;
    let node = world.claims()[0].metadata.name.clone().unwrap();
    world.taint(&node, "karpenter.sh/disrupted");
    world.pass(10.0).await;
    assert_eq!(
        world.cores(),
        2,
        "whoever takes it away has a replacement in mind"
    );
    world.store().mark_for_deletion(&node);
    world.pass(3.0).await;
    assert_eq!(world.cores(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_share_follows_its_workload_which_may_come_later() {
    let world = World::with_buffers().await;
    world.pool("default", json!({})).await;
    let reference = json!({"apiGroup": "apps", "kind": "Deployment", "name": "web"});
    world.buffer_of("spare", json!({"scalableRef": reference, "percentage": 50}));
    world.pass(5.0).await;
    assert_eq!(
        world.buffer("spare", READY),
        (None, "False ScalableRefNotFound".into())
    );
    assert_eq!(
        world.buffer("spare", PROVISIONING).1,
        "False NotReadyForProvisioning"
    );
    world.deployment("web", 4, "1");
    world.pass(5.0).await;
    assert_eq!(
        world.buffer("spare", READY),
        (Some(2), "True Resolved".into())
    );
    assert_eq!(world.cores(), 2);
    world.patch(
        "apps",
        "deployments",
        "web",
        json!({"spec": {"replicas": 8}}),
    );
    world.pass(5.0).await;
    assert_eq!(world.buffer("spare", READY).0, Some(4));
    assert_eq!(world.cores(), 4);
    world.patch(
        "apps",
        "deployments",
        "web",
        json!({"spec": {"replicas": 0}}),
    );
    world.pass(5.0).await;
    assert_eq!(
        world.buffer("spare", PROVISIONING),
        (Some(0), "False BufferEmpty".into())
    );
}

#[tokio::test(start_paused = true)]
async fn limits_of_the_buffer_and_of_the_pool_hold_and_the_status_says_so() {
    let world = World::with_buffers().await;
    world
        .pool("default", json!({"spec": {"limits": {"nodes": "1"}}}))
        .await;
    world.template("web", "1");
    let spec = json!({"podTemplateRef": {"name": "web"}, "replicas": 20, "limits": {"cpu": "12"}});
    world.buffer_of("spare", spec);
    world.pass(30.0).await;
    assert_eq!(world.buffer("spare", READY).0, Some(12));
    assert_eq!(world.claims().len(), 1);
    assert_eq!(
        world.buffer("spare", PROVISIONING).1,
        "False RequiresNewCapacity"
    );
    assert_eq!(world.pod_events(), 0, "there is nobody to tell");
    let none = world.metric(
        "karpenter_scheduler_unschedulable_pods_count",
        &[("controller", "provisioner")],
    );
    assert_eq!(none, Some(0.0));
    let grown = json!({"spec": {"limits": {"cpu": "3"}}});
    world.patch(GROUP, "capacitybuffers", "spare", grown);
    world.pass(5.0).await;
    assert_eq!(world.buffer("spare", READY).0, Some(3));
    world.launch_all();
    world.pass(5.0).await;
    assert_eq!(
        world.buffer("spare", PROVISIONING).1,
        "True FitsExistingCapacity"
    );
}

#[tokio::test(start_paused = true)]
async fn room_is_asked_for_again_when_it_is_to_be_had_again() {
    let world = World::with_buffers().await;
    world.pool("default", json!({})).await;
    world.sold_out(true);
    world.template("web", "1");
    world.buffer_of(
        "spare",
        json!({"podTemplateRef": {"name": "web"}, "replicas": 1}),
    );
    world.pass(60.0).await;
    assert_eq!(world.claims().len(), 0);
    world.sold_out(false);
    world.pass(3.0).await;
    assert_eq!(world.claims().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn chunks_that_no_plan_can_be_made_for_say_why() {
    let world = World::with_buffers().await;
    world.pool("default", json!({})).await;
    let mut template = json!({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "web"}, "template": spec("1")});
    template["template"]["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": "n"});
    world.create("", "podtemplates", template);
    world.buffer_of(
        "spare",
        json!({"podTemplateRef": {"name": "web"}, "replicas": 1}),
    );
    world.buffer_of(
        "gone",
        json!({"podTemplateRef": {"name": "other"}, "replicas": 1}),
    );
    world.pass(5.0).await;
    assert_eq!(world.claims().len(), 0);
    assert_eq!(world.buffer("gone", READY).1, "False PodTemplateNotFound");
    assert_eq!(
        world.buffer("spare", PROVISIONING).1,
        "False RequiresNewCapacity"
    );
}

#[tokio::test(start_paused = true)]
async fn a_restart_buys_nothing_anew() {
    let mut world = World::provided().await;
    world.restart().await;
    world.pass(60.0).await;
    assert_eq!(world.cores(), 2);
}
