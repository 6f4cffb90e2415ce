//! What a plan calls unschedulable is refused by brute force: on the cluster as the plan leaves it, every node, every
//! machine bought and every machine that could be bought besides is asked as kube-scheduler would ask it, the pod coming
//! last. Rules between pods only; limits, ports and the like are `plan-check`'s `missed`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PodAffinityTerm, TopologySpreadConstraint};
use karpenter_api::labels as l;
use karpenter_model::{Plan, Pod, Problem, ResourceList, Selector};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::rules::{
    HOST, RACK, ZONE, apps, arb_daemons, arb_rack, holding, leaving, required, spread,
};
use crate::world::{ladder, list, pool, problem, show, taint};

/// A node as it will be: what it may be labelled, who is on it, what is left of it.
struct Place {
    labels: BTreeMap<String, BTreeSet<String>>,
    tainted: bool,
    pods: Vec<Arc<Pod>>,
    /// DaemonSets' pods that may come, and whether they are sure to.
    coming: Vec<(Arc<Pod>, bool)>,
    left: ResourceList,
}

impl Place {
    /// Who is there or may come to be.
    fn everybody(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.iter().chain(self.coming.iter().map(|(d, _)| d))
    }
    fn domains(&self, key: &str) -> BTreeSet<String> {
        self.labels.get(key).cloned().unwrap_or_default()
    }
    fn domain(&self, key: &str) -> Option<String> {
        let all = self.domains(key);
        (all.len() == 1).then(|| all.first().cloned()).flatten()
    }
}

/// Whether one pod excludes another on a place that has the labels for it.
fn excludes(place: &Place, one: &Pod, other: &Pod) -> bool {
    let mut terms = terms(one, true).into_iter();
    terms.any(|t| !place.domains(&t.topology_key).is_empty() && means(&t, one, other))
}

/// Lets DaemonSets' pods come to a place, `there` being who was on it before.
fn let_come(problem: &Problem, place: &mut Place, there: &[Arc<Pod>]) {
    for daemon in &problem.daemons {
        let mut others = problem.daemons.iter().filter(|d| d.key != daemon.key);
        let anywhere =
            |one: &Pod, other: &Pod| terms(one, true).iter().any(|t| means(t, one, other));
        let depends = !terms(daemon, false).is_empty()
            || terms(daemon, true).iter().any(|t| t.topology_key != HOST)
            || others.any(|o| anywhere(o, daemon) || anywhere(daemon, o));
        let is_free = |p: &Arc<Pod>| !excludes(place, p, daemon) && !excludes(place, daemon, p);
        let tolerated = !place.tainted || !daemon.tolerations.is_empty();
        if !(tolerated && selects(daemon, place)) {
            continue;
        }
        let comes = there.iter().all(is_free);
        // Room is kept for it, be it that somebody is there who keeps it off.
        place.left.subtract(&daemon.requests);
        if comes {
            let sure = daemon
                .node_selector
                .keys()
                .all(|k| place.domain(k).is_some());
            place.coming.push((Arc::clone(daemon), sure && !depends));
        }
    }
}

fn one(value: &str) -> BTreeSet<String> {
    BTreeSet::from([value.to_owned()])
}

/// Nodes and bought machines with everybody where the plan puts them.
fn places(problem: &Problem, plan: &Plan) -> Vec<Place> {
    let by_key: BTreeMap<_, _> = problem.pods.iter().map(|p| (&p.key, p)).collect();
    let mut out = Vec::new();
    for node in &problem.nodes {
        let mut place = Place {
            labels: node
                .labels
                .iter()
                .map(|(k, v)| (k.clone(), one(v)))
                .collect(),
            tainted: !node.taints.is_empty(),
            pods: node.pods.clone(),
            coming: Vec::new(),
            left: node.available.clone(),
        };
        if node.managed {
            place.labels.insert(l::REGISTERED.to_owned(), one("true"));
        }
        let_come(problem, &mut place, &node.pods);
        let here = plan.existing.iter().filter(|e| e.node == node.name);
        for key in here.flat_map(|e| &e.pods) {
            place.left.subtract(&by_key[key].requests);
            place.pods.push(Arc::clone(by_key[key]));
        }
        out.push(place);
    }
    for (i, bought) in plan.new_nodes.iter().enumerate() {
        let pool = problem
            .pools
            .iter()
            .find(|p| p.name == bought.pool)
            .unwrap();
        let sold = pool.instance_types.iter();
        let sold = sold.filter(|t| bought.instance_types.contains(&t.name));
        // The roomiest that the launch may pick: the plan may have grown into it.
        let roomiest = sold.max_by_key(|t| t.allocatable.get("cpu")).unwrap();
        let zones = match bought.requirements.get(ZONE) {
            Some(r) if !r.complement => r.values.iter().map(ToString::to_string).collect(),
            _ => BTreeSet::from(["a".to_owned(), "b".to_owned()]),
        };
        let kinds = bought.capacity_types.iter().map(ToString::to_string);
        let mut place = Place {
            labels: BTreeMap::from([
                (ZONE.to_owned(), zones),
                (HOST.to_owned(), one(&format!("bought-{i}"))),
                (l::CAPACITY_TYPE.to_owned(), kinds.collect()),
                (l::REGISTERED.to_owned(), one("true")),
                (
                    l::INSTANCE_TYPE.to_owned(),
                    bought
                        .instance_types
                        .iter()
                        .map(ToString::to_string)
                        .collect(),
                ),
            ]),
            tainted: false,
            pods: Vec::new(),
            coming: Vec::new(),
            left: roomiest.allocatable.clone(),
        };
        let racks = bought.requirements.get(RACK);
        if let Some(racks) = racks.filter(|r| !r.complement && !r.values.is_empty()) {
            let racks = racks.values.iter().map(ToString::to_string);
            place.labels.insert(RACK.to_owned(), racks.collect());
        }
        let_come(problem, &mut place, &[]);
        // What may run on some machine of the type is charged.
        for daemon in &problem.daemons {
            if !selects(daemon, &place) {
                place.left.subtract(&daemon.requests);
            }
        }
        for key in &bought.pods {
            place.left.subtract(&by_key[key].requests);
            place.pods.push(Arc::clone(by_key[key]));
        }
        out.push(place);
    }
    out
}

/// A machine for the pod alone, of each pool in each zone, capacity type and rack that it sells, of a type that a DaemonSet
/// may be for and of another.
fn purchases(problem: &Problem) -> Vec<Place> {
    let mut out = Vec::new();
    for pool in &problem.pools {
        let allows = |key: &str, value: &str| {
            let requirement = pool.requirements.get(key);
            requirement.is_none_or(|r| r.has(value))
        };
        let racks = pool.requirements.get(RACK);
        let racks = racks.map_or(vec![None], |r| r.values.iter().map(Some).collect());
        for zone in ["a", "b"].into_iter().filter(|z| allows(ZONE, z)) {
            for (kind, of_type) in [
                ("spot", "m4"),
                ("spot", "m16"),
                ("on-demand", "m4"),
                ("on-demand", "m16"),
            ] {
                for rack in &racks {
                    let cores = of_type.trim_start_matches('m').parse::<u32>().unwrap();
                    let mut place = Place {
                        labels: BTreeMap::from([
                            (ZONE.to_owned(), one(zone)),
                            (HOST.to_owned(), one("a-new-one")),
                            (l::CAPACITY_TYPE.to_owned(), one(kind)),
                            (l::REGISTERED.to_owned(), one("true")),
                            (l::INSTANCE_TYPE.to_owned(), one(of_type)),
                        ]),
                        tainted: false,
                        pods: Vec::new(),
                        coming: Vec::new(),
                        left: list(&format!("cpu={cores} memory={}Gi pods=110", 2 * cores)),
                    };
                    place.labels.extend(rack.map(|r| (RACK.to_owned(), one(r))));
                    let_come(problem, &mut place, &[]);
                    out.push(place);
                }
            }
        }
    }
    out
}

fn means(term: &PodAffinityTerm, owner: &Pod, other: &Pod) -> bool {
    let selector = term.label_selector.as_ref().map(Selector::from_k8s);
    owner.key.namespace == other.key.namespace && selector.is_some_and(|s| s.matches(&other.labels))
}

fn terms(pod: &Pod, apart: bool) -> Vec<PodAffinityTerm> {
    let Some(affinity) = pod.affinity.as_deref() else {
        return Vec::new();
    };
    let required = if apart {
        let rules = affinity.pod_anti_affinity.as_ref();
        rules.and_then(|a| {
            a.required_during_scheduling_ignored_during_execution
                .clone()
        })
    } else {
        let rules = affinity.pod_affinity.as_ref();
        rules.and_then(|a| {
            a.required_during_scheduling_ignored_during_execution
                .clone()
        })
    };
    required.unwrap_or_default()
}

fn selects(pod: &Pod, place: &Place) -> bool {
    let mut wanted = pod.node_selector.iter();
    wanted.all(|(k, v)| place.labels.get(k).is_some_and(|have| have.contains(v)))
}

/// Why the pod cannot come last to `here`, which is one of `all` or a machine of its own; none if it can. Where a
/// machine's domain is not settled, what is worse for the pod is taken to be so.
fn objection(problem: &Problem, pod: &Pod, here: &Place, all: &[Place]) -> Option<&'static str> {
    if here.tainted || !selects(pod, here) {
        return Some("the node");
    }
    let short = |(name, want): (&str, _)| want > here.left.get(name);
    if pod.requests.iter().any(short) {
        return Some("room");
    }
    for term in terms(pod, true) {
        if here.domains(&term.topology_key).is_empty() {
            continue;
        }
        let Some(domain) = here.domain(&term.topology_key) else {
            return Some("anti-affinity without a domain");
        };
        let meets = |p: &&Place| p.domains(&term.topology_key).contains(&domain);
        let mut near = all
            .iter()
            .filter(meets)
            .chain([here])
            .flat_map(Place::everybody);
        if near.any(|other| means(&term, pod, other)) {
            return Some("anti-affinity");
        }
    }
    for place in all.iter().chain([here]) {
        for other in place.everybody() {
            for term in terms(other, true) {
                let key = &term.topology_key;
                let shared = here
                    .domains(key)
                    .iter()
                    .any(|d| place.domains(key).contains(d));
                if shared && means(&term, other, pod) {
                    return Some("anti-affinity of another");
                }
            }
        }
    }
    // Of several terms, only pods that all of them mean count.
    let together = terms(pod, false);
    let means_all = |other: &Pod| together.iter().all(|term| means(term, pod, other));
    for term in &together {
        let Some(domain) = here.domain(&term.topology_key) else {
            return Some("affinity without a domain");
        };
        let with = |p: &&Place| p.domain(&term.topology_key).as_ref() == Some(&domain);
        let sure = |p: &Place| -> Vec<Arc<Pod>> {
            let coming = p.coming.iter().filter(|(_, sure)| *sure);
            coming.map(|(d, _)| Arc::clone(d)).collect()
        };
        let mut near = all.iter().filter(with).flat_map(|p| &p.pods);
        let mut daemons = all.iter().filter(with).chain([here]).flat_map(sure);
        let partner = near.any(|other| means_all(other)) || daemons.any(|d| means_all(&d));
        let somewhere =
            |p: &&Place| { together.iter() }.any(|t| !p.domains(&t.topology_key).is_empty());
        let mut everybody = all.iter().filter(somewhere).flat_map(Place::everybody);
        let first = means_all(pod) && !everybody.any(|other| means_all(other));
        if !partner && !first {
            return Some("affinity");
        }
    }
    for constraint in &pod.spread {
        if !is_even(problem, pod, constraint, here, all) {
            return Some("spread");
        }
    }
    None
}

fn is_even(
    problem: &Problem,
    pod: &Pod,
    constraint: &TopologySpreadConstraint,
    here: &Place,
    all: &[Place],
) -> bool {
    let key = constraint.topology_key.as_str();
    let Some(domain) = here.domain(key) else {
        return false;
    };
    let selector = Selector::from_k8s(constraint.label_selector.as_ref().unwrap());
    let counted =
        |other: &Pod| other.key.namespace == pod.key.namespace && selector.matches(&other.labels);
    let honors = |policy: &Option<String>, default: bool| {
        policy.as_deref().map_or(default, |p| p == "Honor")
    };
    let counts = |p: &&Place| {
        let mut hard = pod.spread.iter();
        hard.all(|c| !p.domains(&c.topology_key).is_empty())
            && (!honors(&constraint.node_affinity_policy, true) || selects(pod, p))
            && !(honors(&constraint.node_taints_policy, false) && p.tainted)
    };
    let within = |domain: &str, sure: bool| -> i32 {
        let inside = all.iter().filter(counts).filter(|p| {
            let own = p.domains(key);
            own.contains(domain) && (!sure || own.len() == 1)
        });
        let pods = inside
            .flat_map(|p| &p.pods)
            .filter(|o| counted(o) && o.deleted.is_none());
        i32::try_from(pods.count()).unwrap()
    };
    let there = all.iter().take(problem.nodes.len()).filter(counts);
    let mut eligible: BTreeSet<String> = there.flat_map(|p| p.domains(key)).collect();
    let labelled =
        |p: &&Place| { pod.spread.iter() }.all(|c| !p.domains(&c.topology_key).is_empty());
    for place in purchases(problem)
        .iter()
        .filter(labelled)
        .filter(|p| selects(pod, p))
    {
        eligible.extend(place.domains(key));
    }
    let few = i32::try_from(eligible.len()).unwrap() < constraint.min_domains.unwrap_or(1);
    // A new host is always an option, with nobody on it.
    let least = if key == HOST || few {
        0
    } else {
        eligible.iter().map(|d| within(d, true)).min().unwrap_or(0)
    };
    let own = i32::from(counted(pod));
    within(&domain, false) + own - least <= constraint.max_skew
}

fn arb_rules() -> impl Strategy<Value = Value> {
    let key = || prop::sample::select(vec![HOST, ZONE, ZONE, l::CAPACITY_TYPE, RACK, RACK]);
    let app = || prop::sample::select(vec!["a", "b"]);
    let pinned = |spec: Value, pinned: u8| {
        let mut spec = spec;
        match pinned {
            0 => spec["nodeSelector"] = json!({ ZONE: "a" }),
            1 => spec["nodeSelector"] = json!({ ZONE: "b" }),
            _ => {}
        }
        spec
    };
    let rules = prop_oneof![
        1 => Just(json!({})),
        3 => (key(), app(), 1_i32..3, prop::option::of(1_i32..4), any::<bool>(), any::<bool>()).prop_map(
            |(key, app, skew, least, affinity, taints)| {
                let mut constraint = spread(key, skew, app);
                if let Some(least) = least {
                    constraint["minDomains"] = json!(least);
                }
                constraint["nodeAffinityPolicy"] = json!(if affinity { "Honor" } else { "Ignore" });
                constraint["nodeTaintsPolicy"] = json!(if taints { "Honor" } else { "Ignore" });
                json!({ "topologySpreadConstraints": [constraint] })
            }
        ),
        2 => (key(), app()).prop_map(|(k, a)| required("podAffinity", k, a)),
        2 => (key(), app()).prop_map(|(k, a)| required("podAntiAffinity", k, a)),
        1 => (key(), key(), app(), app()).prop_map(|(k, k2, a, a2)| {
            let mut spec = required("podAffinity", k, a);
            let more = required("podAffinity", k2, a2);
            let rules = |spec: &mut Value| {
                spec["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"].take()
            };
            let both = [rules(&mut spec.clone()), rules(&mut more.clone())];
            let both: Vec<Value> = both.iter().filter_map(Value::as_array).flatten().cloned().collect();
            spec["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] = json!(both);
            spec
        }),
        1 => (key(), key(), app()).prop_map(|(k, k2, a)| {
            json!({ "topologySpreadConstraints": [spread(k, 1, a), spread(k2, 1, a)] })
        }),
        1 => (key(), key(), app(), app()).prop_map(|(k, k2, a, a2)| {
            let mut spec = required("podAntiAffinity", k, a);
            spec["topologySpreadConstraints"] = json!([spread(k2, 1, a2)]);
            spec
        }),
        1 => (key(), key(), app(), app()).prop_map(|(k, k2, a, a2)| {
            let mut spec = required("podAffinity", k, a);
            spec["topologySpreadConstraints"] = json!([spread(k2, 1, a2)]);
            spec
        }),
    ];
    (rules, 0_u8..6).prop_map(move |(spec, pin)| pinned(spec, pin))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn what_is_called_unschedulable_is_refused_everywhere(
        groups in prop::collection::vec((prop::sample::select(vec!["a", "b"]), 1_usize..4, arb_rules()), 1..4),
        there in prop::collection::vec((prop::sample::select(vec!["a", "b", "c"]), prop::sample::select(vec!["a", "b"]), 0_usize..3, arb_rules(), any::<bool>(), 0_u32..3, arb_rack()), 0..3),
        racks in any::<bool>(),
        narrow in any::<bool>(),
        daemons in arb_daemons(),
    ) {
        let mut pods = Vec::new();
        for (i, (app, count, spec)) in groups.iter().enumerate() {
            for mut pod in apps(app, *count, spec) {
                pod.key.name = format!("{}-{i}", pod.key.name).into();
                pod.uid = pod.key.name.clone();
                pods.push(pod);
            }
        }
        let zones = if narrow { format!("{ZONE} In a") } else { String::new() };
        let mut asked = problem(vec![pool("p", &zones, ladder())], pods);
        asked.daemons = daemons;
        if racks {
            asked.pools.push(Arc::new(pool("racks", &format!("{RACK} In r1 r2"), ladder())));
        }
        for (i, (zone, app, count, spec, tainted, cores, rack)) in there.iter().enumerate() {
            let mut node = holding(&format!("n{i}"), zone, app, *count, spec);
            leaving(&mut node, *cores);
            node.labels.extend(rack.map(|r| (RACK.to_owned(), r.to_owned())));
            node.available = list(&format!("cpu={cores} memory=64Gi pods=110"));
            if *tainted {
                node.taints = vec![taint("kept", "NoSchedule")];
            }
            asked.nodes.push(Arc::new(node));
        }
        let plan = karpenter_solver::solve(&asked);
        let all = places(&asked, &plan);
        let besides = purchases(&asked);
        for left in &plan.unschedulable {
            let pod = asked.pods.iter().find(|p| p.key == left.pod).unwrap();
            for (i, place) in all.iter().chain(&besides).enumerate() {
                let why = objection(&asked, pod, place, &all);
                prop_assert!(
                    why.is_some(),
                    "{} is said to go nowhere ({}), but place {i} takes it: {:?}\n{}",
                    left.pod, left.reason, place.labels, show(&plan)
                );
            }
        }
    }
}
