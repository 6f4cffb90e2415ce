//! Tables for the scheduler's decision.

use rstest::rstest;
use serde_json::json;

use super::preemption::{HELPLESS, NO_VICTIMS};
use super::*;

struct World {
    cluster: std::cell::RefCell<Cluster>,
    volumes: Volumes,
}

impl World {
    fn new(nodes: &[Value], pods: &[Value]) -> Self {
        let mut cluster = Cluster::default();
        cluster.set_namespace("default", Some(object::Labels::new()));
        for n in nodes {
            cluster.set_node(n);
        }
        for p in pods {
            cluster.place(Arc::new(Pod::read(p)));
        }
        Self {
            cluster: cluster.into(),
            volumes: Volumes::default(),
        }
    }

    fn decide(&self, pod: &Value) -> String {
        let preemption = Preemption {
            volumes: &self.volumes,
            budgets: &Mirror::default(),
            started: &|_| jiff::Timestamp::UNIX_EPOCH,
        };
        let cluster = &mut *self.cluster.borrow_mut();
        match decide(cluster, &preemption, &Pod::read(pod), &[]) {
            Verdict::Node(node, _) => node,
            Verdict::None(why) => why,
            Verdict::Preempt(victims, _) => {
                let names: Vec<&str> = victims.pods.iter().map(|p| p.name.as_str()).collect();
                format!("{} for {}", victims.node, names.join(", "))
            }
        }
    }
}

fn node(name: &str, zone: &str, cpu: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"zone": zone, "kubernetes.io/hostname": name}},
        "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "10"}},
    })
}

fn with(mut object: Value, path: &str, value: Value) -> Value {
    let mut spot = &mut object;
    for step in path.split('.') {
        spot = &mut spot[step];
    }
    *spot = value;
    object
}

fn pod(name: &str, cpu: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default", "labels": {"app": "web"}},
        "spec": {"containers": [{"resources": {"requests": {"cpu": cpu}}}]},
    })
}

fn on(node: &str, pod: Value) -> Value {
    with(pod, "spec.nodeName", json!(node))
}

fn web_term(key: &str) -> Value {
    json!([{"topologyKey": key, "labelSelector": {"matchLabels": {"app": "web"}}}])
}

fn web_spread(key: &str, extra: Value) -> Value {
    let mut c = json!({"topologyKey": key, "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}}});
    c.as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    json!([c])
}

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

fn refusal(total: usize, why: &str, preemption: &str) -> String {
    format!(
        "0/{total} nodes are available: {why}. preemption: 0/{total} nodes are available: {preemption}."
    )
}

#[test]
fn no_nodes() {
    let world = World::new(&[], &[]);
    assert_eq!(
        world.decide(&pod("p", "1")),
        "no nodes available to schedule pods"
    );
}

#[test]
fn reasons_are_counted_per_node_in_the_real_words() {
    let tainted = |n| {
        with(
            n,
            "spec.taints",
            json!([{"key": "team", "value": "a", "effect": "NoSchedule"}]),
        )
    };
    let nodes = [
        node("n1", "a", "1"),
        tainted(node("n2", "a", "8")),
        tainted(node("n3", "b", "8")),
        with(node("n4", "b", "8"), "spec.unschedulable", json!(true)),
        node("n5", "b", "4"),
    ];
    let world = World::new(&nodes, &[on("n5", pod("there", "3"))]);
    assert_eq!(
        world.decide(&pod("p", "2")),
        refusal(
            5,
            "1 node(s) were unschedulable, 2 Insufficient cpu, 2 node(s) had untolerated taint {team: a}",
            &format!("1 {NO_VICTIMS}, 4 {HELPLESS}"),
        )
    );
}

#[test]
fn every_short_resource_is_named() {
    let small = with(node("n1", "a", "1"), "status.allocatable.pods", json!("0"));
    let world = World::new(&[small], &[]);
    let greedy = with(
        pod("p", "2"),
        "spec.containers",
        json!([{"resources": {"requests":
        {"cpu": "2", "memory": "9Gi", "nvidia.com/gpu": "1"}}}]),
    );
    assert_eq!(
        world.decide(&greedy),
        refusal(
            1,
            "1 Insufficient cpu, 1 Insufficient memory, 1 Insufficient nvidia.com/gpu, 1 Too many pods",
            &format!("1 {HELPLESS}")
        )
    );
}

#[rstest]
#[case::selector("spec.nodeSelector", json!({"zone": "b"}), "n2")]
#[case::affinity("spec.affinity", json!({"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [
    {"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["a"]}]}]}}}), "n2")]
#[case::fields("spec.affinity", json!({"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [
    {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}]}}}), "n2")]
#[case::preferred("spec.affinity", json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
    {"weight": 10, "preference": {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]}}]}}), "n2")]
#[case::near_web("spec.affinity", json!({"podAffinity": {REQUIRED: web_term("zone")}}), "n1")]
#[case::away_from_web("spec.affinity", json!({"podAntiAffinity": {REQUIRED: web_term("zone")}}), "n2")]
#[case::spread("spec.topologySpreadConstraints", web_spread("zone", json!({})), "n2")]
#[case::soft_spread("spec.topologySpreadConstraints",
    web_spread("zone", json!({"whenUnsatisfiable": "ScheduleAnyway"})), "n2")]
#[case::least_allocated("metadata.labels", json!({}), "n2")]
fn placement(#[case] path: &str, #[case] value: Value, #[case] want: &str) {
    let nodes = [node("n1", "a", "8"), node("n2", "b", "8")];
    let world = World::new(&nodes, &[on("n1", pod("there", "1"))]);
    assert_eq!(world.decide(&with(pod("p", "1"), path, value)), want);
}

#[test]
fn ties_go_by_name() {
    let world = World::new(
        &[
            node("b", "a", "4"),
            node("a", "a", "4"),
            node("c", "a", "4"),
        ],
        &[],
    );
    assert_eq!(world.decide(&pod("p", "1")), "a");
}

#[test]
fn anti_affinity_works_both_ways() {
    let nodes = [node("n1", "a", "8")];
    let repelling = with(
        on(
            "n1",
            with(pod("there", "1"), "metadata.labels", json!({"app": "db"})),
        ),
        "spec.affinity",
        json!({"podAntiAffinity": {REQUIRED: web_term("zone")}}),
    );
    let world = World::new(&nodes, &[repelling]);
    assert_eq!(
        world.decide(&pod("p", "1")),
        refusal(
            1,
            "1 node(s) didn't satisfy existing pods anti-affinity rules",
            &format!("1 {NO_VICTIMS}")
        )
    );
}

#[test]
fn the_first_of_a_group_may_start_it() {
    let nodes = [node("n1", "a", "8")];
    let gregarious = with(
        pod("p", "1"),
        "spec.affinity",
        json!({"podAffinity": {REQUIRED: web_term("zone")}}),
    );
    assert_eq!(World::new(&nodes, &[]).decide(&gregarious), "n1");
    let stranger = with(gregarious, "metadata.labels", json!({"app": "db"}));
    assert_eq!(
        World::new(&nodes, &[]).decide(&stranger),
        refusal(
            1,
            "1 node(s) didn't match pod affinity rules",
            &format!("1 {HELPLESS}")
        )
    );
}

#[test]
fn spread_counts_domains_by_its_policies() {
    let spread = |extra| {
        with(
            pod("p", "1"),
            "spec.topologySpreadConstraints",
            web_spread("zone", extra),
        )
    };
    let broken = |n: usize, missing: usize| {
        let mut why = vec![format!(
            "{n} node(s) didn't match pod topology spread constraints"
        )];
        let mut help = vec![format!("{n} {NO_VICTIMS}")];
        if missing > 0 {
            why.push(format!("{missing} node(s) didn't match pod topology spread constraints (missing required label)"));
            help.push(format!("{missing} {HELPLESS}"));
            why.sort();
            help.sort();
        }
        refusal(n + missing, &why.join(", "), &help.join(", "))
    };
    // One domain holds one already: with two domains wanted, the least is zero.
    let world = World::new(&[node("n1", "a", "8")], &[on("n1", pod("there", "1"))]);
    assert_eq!(world.decide(&spread(json!({}))), "n1");
    assert_eq!(
        world.decide(&spread(json!({"minDomains": 2}))),
        broken(1, 0)
    );
    let unlabelled = with(node("n2", "", "8"), "metadata.labels", json!({}));
    let world = World::new(
        &[node("n1", "a", "8"), unlabelled],
        &[on("n1", pod("there", "1"))],
    );
    assert_eq!(
        world.decide(&spread(json!({"minDomains": 2}))),
        broken(1, 1)
    );
    // An empty zone behind a taint counts unless the policy honours taints.
    let tainted = with(
        node("n2", "b", "8"),
        "spec.taints",
        json!([{"key": "x", "effect": "NoSchedule"}]),
    );
    let world = World::new(
        &[node("n1", "a", "8"), tainted],
        &[on("n1", pod("there", "1"))],
    );
    assert!(
        world
            .decide(&spread(json!({})))
            .contains("spread constraints")
    );
    assert_eq!(
        world.decide(&spread(json!({"nodeTaintsPolicy": "Honor"}))),
        "n1"
    );
    // The same for a zone that the pod's own selector excludes; there honouring is the default.
    let world = World::new(
        &[node("n1", "a", "8"), node("n2", "b", "8")],
        &[on("n1", pod("there", "1"))],
    );
    let picky = |extra| with(spread(extra), "spec.nodeSelector", json!({"zone": "a"}));
    assert_eq!(world.decide(&picky(json!({}))), "n1");
    assert!(
        world
            .decide(&picky(json!({"nodeAffinityPolicy": "Ignore"})))
            .contains("spread constraints")
    );
}

#[test]
fn terminating_pods_do_not_count_for_spread_but_use_resources() {
    let leaving = with(
        on("n1", pod("there", "7")),
        "metadata.deletionTimestamp",
        json!("2026-01-01T00:00:00Z"),
    );
    let world = World::new(
        &[node("n1", "a", "8"), node("n2", "b", "1")],
        &[leaving, on("n2", pod("x", "500m"))],
    );
    let spread = with(
        pod("p", "1"),
        "spec.topologySpreadConstraints",
        web_spread("zone", json!({})),
    );
    assert_eq!(world.decide(&spread), "n1");
    assert!(
        world
            .decide(&with(
                spread,
                "spec.containers",
                pod("p", "2")["spec"]["containers"].clone()
            ))
            .contains("Insufficient cpu")
    );
}

#[rstest]
#[case(json!({"hostPort": 80}), false)]
#[case(json!({"hostPort": 81}), true)]
#[case(json!({"hostPort": 80, "protocol": "UDP"}), true)]
#[case(json!({"hostPort": 80, "hostIP": "10.0.0.1"}), false)]
fn host_ports(#[case] port: Value, #[case] fits: bool) {
    let ported = |name, port| {
        with(
            pod(name, "1"),
            "spec.containers",
            json!([{"ports": [port]}]),
        )
    };
    let world = World::new(
        &[node("n1", "a", "8")],
        &[on("n1", ported("there", json!({"hostPort": 80})))],
    );
    let got = world.decide(&ported("p", port));
    if fits {
        assert_eq!(got, "n1");
    } else {
        assert_eq!(
            got,
            refusal(
                1,
                "1 node(s) didn't have free ports for the requested pod ports",
                &format!("1 {NO_VICTIMS}")
            )
        );
    }
}

#[test]
fn claims_decide_where_a_pod_can_go() {
    let mut world = World::new(&[node("n1", "a", "8"), node("n2", "b", "8")], &[]);
    let user = with(
        pod("p", "1"),
        "spec.volumes",
        json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]),
    );
    assert!(
        world
            .decide(&user)
            .starts_with("0/2 nodes are available: persistentvolumeclaim \"c\" not found.")
    );
    let mut put = |object: Value| {
        let change = Change::Added(Arc::new(object.clone()));
        match object["kind"].as_str() {
            Some("PersistentVolumeClaim") => world.volumes.claims.apply(&change),
            Some("PersistentVolume") => world.volumes.volumes.apply(&change),
            _ => world.volumes.classes.apply(&change),
        };
        world.decide(&user)
    };
    let claim = json!({"kind": "PersistentVolumeClaim", "metadata": {"name": "c", "namespace": "default"},
        "spec": {"storageClassName": "fast"}});
    assert!(put(claim.clone()).contains("pod has unbound immediate PersistentVolumeClaims"));
    let class = json!({"kind": "StorageClass", "metadata": {"name": "fast"}, "provisioner": "ebs.csi.aws.com",
        "volumeBindingMode": "WaitForFirstConsumer"});
    assert_eq!(put(class.clone()), "n1");
    let allowed = json!([{"matchLabelExpressions": [{"key": "zone", "values": ["b"]}]}]);
    assert_eq!(put(with(class, "allowedTopologies", allowed)), "n2");
    let bound = with(
        with(claim, "spec.volumeName", json!("pv")),
        "status",
        json!({"phase": "Bound"}),
    );
    put(
        json!({"kind": "PersistentVolume", "metadata": {"name": "pv"}, "spec": {"nodeAffinity": {"required":
        {"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["c"]}]}]}}}}),
    );
    assert!(put(bound).contains("2 node(s) didn't match PersistentVolume's node affinity"));
}
