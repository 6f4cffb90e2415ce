//! Volumes: where they can be, and how many a node takes (§2 "Volume limits", §11, §19 cases 55, 56, 58).

use std::collections::BTreeMap;
use std::sync::Arc;

use karpenter_api::labels as l;
use karpenter_model::storage::{Attached, StorageFault, StorageRefusal, VolumeLimits};
use karpenter_model::{Pod, PodKey, Problem, Requirements, Storage, VolumeRoom};
use serde_json::json;

use crate::world::{ladder, node, pod, pod_with, pool, problem, reqs, selecting, show, solve};

const EBS: &str = "ebs.csi.aws.com";

fn claim(name: &str) -> PodKey {
    PodKey {
        namespace: "d".into(),
        name: name.into(),
    }
}

fn attached(claims: &[&str]) -> Attached {
    if claims.is_empty() {
        return Attached::new();
    }
    let all = claims.iter().map(|c| claim(c)).collect();
    Attached::from([(EBS.into(), all)])
}

/// A pod whose volumes can be in one of these places and are attached for these claims.
fn mounting(pod: Pod, places: &[&str], claims: &[&str]) -> Pod {
    let storage = Storage {
        alternatives: places
            .iter()
            .map(|p| reqs(p))
            .collect::<Vec<Requirements>>(),
        attached: attached(claims),
        refusal: None,
    };
    Pod {
        storage: Some(Arc::new(storage)),
        ..pod
    }
}

fn zone(name: &str) -> String {
    format!("{} In {name}", l::ZONE)
}

fn asking(pods: Vec<Pod>) -> Problem {
    problem(vec![pool("p", "", ladder())], pods)
}

/// A node in zone `a` that attaches `limit` volumes and has these.
fn limited(name: &str, limit: usize, used: &[&str]) -> karpenter_model::NodeView {
    let mut there = node(name, "cpu=16 memory=32Gi", &[(l::ZONE, "a")]);
    there.volumes = Some(Arc::new(VolumeRoom {
        limits: VolumeLimits::from([(EBS.into(), limit)]),
        used: attached(used),
    }));
    there
}

fn with_node(there: karpenter_model::NodeView, pods: Vec<Pod>) -> Problem {
    let mut problem = asking(pods);
    problem.nodes = vec![Arc::new(there)];
    problem
}

#[test]
fn case_55_a_pod_goes_where_its_volume_is() {
    let plan = solve(&asking(vec![
        mounting(pod("b", "cpu=1"), &[&zone("b")], &["b"]),
        mounting(pod("anywhere", "cpu=1"), &[], &["c"]),
    ]));
    assert_eq!(show(&plan), "new p m2 b spot: 2 pods");
}

#[test]
fn case_55_the_zone_of_a_volume_is_never_given_up() {
    let wish = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 1, "preference": {"matchExpressions": [
            {"key": l::ZONE, "operator": "In", "values": ["a"]}]}}]}}});
    let wishing = pod_with("p", "cpu=1", wish);
    let plan = solve(&asking(vec![mounting(wishing, &[&zone("b")], &["c"])]));
    assert_eq!(
        show(&plan),
        "new p m2 b spot: 1 pods",
        "the wish is given up, the volume is not"
    );
    let plan = solve(&asking(vec![mounting(
        pod("p", "cpu=1"),
        &[&zone("nowhere")],
        &["c"],
    )]));
    assert_eq!(
        show(&plan),
        "p: NodePool p: the pod with its volumes asks for topology.kubernetes.io/zone In [nowhere], which none of 4 instance types has and the pool does not define"
    );
}

#[test]
fn case_55_a_pod_that_contradicts_its_volume_is_told_so() {
    let pod = selecting("p", "cpu=1", l::ZONE, "a");
    let plan = solve(&asking(vec![mounting(pod, &[&zone("b")], &["c"])]));
    assert_eq!(
        show(&plan),
        "p: its volumes can be used where topology.kubernetes.io/zone In [b]; its own node requirements are topology.kubernetes.io/zone In [a]"
    );
}

#[test]
fn case_55_one_bad_claim_does_not_hold_up_other_pods() {
    let mut bad = mounting(pod("bad", "cpu=1"), &[], &[]);
    let refusal = StorageRefusal {
        claim: claim("data"),
        fault: StorageFault::Missing,
    };
    bad.storage = Some(Arc::new(Storage {
        refusal: Some(refusal),
        ..Storage::default()
    }));
    let plan = solve(&asking(vec![bad, pod("good", "cpu=1")]));
    assert_eq!(
        show(&plan),
        "new p m2 a spot: 1 pods\nbad: PersistentVolumeClaim d/data: it does not exist"
    );
}

#[test]
fn case_56_places_are_tried_in_turn() {
    let places = [zone("nowhere"), zone("b")];
    let places: Vec<&str> = places.iter().map(String::as_str).collect();
    let plan = solve(&asking(vec![mounting(pod("p", "cpu=1"), &places, &["c"])]));
    assert_eq!(show(&plan), "new p m2 b spot: 1 pods");
}

#[test]
fn nodes_that_exist_are_taken_only_where_the_volume_is() {
    let there = || node("n", "cpu=16 memory=32Gi", &[(l::ZONE, "a")]);
    let here = mounting(pod("here", "cpu=1"), &[&zone("a")], &["c"]);
    let there_not = mounting(pod("there", "cpu=1"), &[&zone("b")], &["d"]);
    let plan = solve(&with_node(there(), vec![here, there_not]));
    assert_eq!(show(&plan), "n: 1 pods\nnew p m2 b spot: 1 pods");
}

#[test]
fn case_58_a_node_takes_as_many_volumes_as_its_limit_leaves() {
    let pods = (0..4)
        .map(|i| mounting(pod(&format!("p{i}"), "cpu=100m"), &[], &[&format!("c{i}")]))
        .chain([pod("plain", "cpu=100m")])
        .collect();
    let plan = solve(&with_node(limited("n", 3, &["old"]), pods));
    assert_eq!(
        show(&plan),
        "n: 3 pods\nnew p m2 a spot: 2 pods",
        "two volumes and the pod without one"
    );
}

#[test]
fn case_58_a_claim_that_pods_share_counts_once() {
    let sharing = |i: usize| mounting(pod(&format!("p{i}"), "cpu=100m"), &[], &["shared"]);
    let plan = solve(&with_node(
        limited("n", 1, &[]),
        (0..4).map(sharing).collect(),
    ));
    assert_eq!(show(&plan), "n: 4 pods");
    let plan = solve(&with_node(
        limited("n", 1, &["shared"]),
        (0..4).map(sharing).collect(),
    ));
    assert_eq!(show(&plan), "n: 4 pods", "it is attached already");
    let plan = solve(&with_node(
        limited("n", 1, &["other"]),
        (0..4).map(sharing).collect(),
    ));
    assert_eq!(show(&plan), "new p m2 a spot: 4 pods", "no room for it");
}

#[test]
fn case_58_a_claim_of_its_own_beside_a_shared_one_takes_room_for_both() {
    let both = |i: usize| {
        let own = format!("own{i}");
        mounting(pod(&format!("p{i}"), "cpu=100m"), &[], &["shared", &own])
    };
    let plan = solve(&with_node(limited("n", 3, &[]), (0..4).map(both).collect()));
    assert_eq!(show(&plan), "n: 2 pods\nnew p m2 a spot: 2 pods");
}

#[test]
fn a_node_over_its_limit_takes_pods_without_volumes() {
    let with = mounting(pod("with", "cpu=100m"), &[], &["new"]);
    let there = limited("n", 1, &["a", "b"]);
    let plan = solve(&with_node(there, vec![with, pod("without", "cpu=100m")]));
    assert_eq!(show(&plan), "n: 1 pods\nnew p m2 a spot: 1 pods");
}

#[test]
fn machines_are_not_planned_fuller_of_volumes_than_nodes_of_their_type_have_told() {
    let pods = || {
        (0..6)
            .map(|i| mounting(pod(&format!("p{i}"), "cpu=100m"), &[], &[&format!("c{i}")]))
            .collect()
    };
    let unknown = solve(&asking(pods()));
    assert_eq!(show(&unknown), "new p m2 a spot: 6 pods");
    let mut told = asking(pods());
    let two = || VolumeLimits::from([(Arc::from(EBS), 2)]);
    let all: BTreeMap<Arc<str>, VolumeLimits> = ["m2", "m4", "m8", "m16"]
        .into_iter()
        .map(|t| (t.into(), two()))
        .collect();
    told.volume_limits = Arc::new(all);
    let plan = solve(&told);
    assert_eq!(
        show(&plan),
        "new p m2 a spot: 2 pods\nnew p m2 a spot: 2 pods\nnew p m2 a spot: 2 pods"
    );
    let requests = &plan.new_nodes[0].requests;
    let names: Vec<&str> = requests.iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["cpu", "pods"], "volumes are no resource of a claim");
}

#[test]
fn a_pod_with_more_volumes_than_any_machine_takes_is_told_so() {
    let mut problem = asking(vec![mounting(pod("p", "cpu=1"), &[], &["x", "y", "z"])]);
    let two = VolumeLimits::from([(Arc::from(EBS), 2)]);
    let all = ["m2", "m4", "m8", "m16"].map(|t| (Arc::from(t), two.clone()));
    problem.volume_limits = Arc::new(BTreeMap::from(all));
    assert_eq!(
        show(&solve(&problem)),
        "p: NodePool p: none of 4 instance types has room for it: it asks for volumes of ebs.csi.aws.com 3, the most to be had is 2"
    );
}
