//! A good plan is clean; every way of spoiling it that we know is found, under the right rule.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // A test may fail loudly.

mod daemons;
mod world;

use karpenter_api::Quantity;
use karpenter_api::labels as names;
use karpenter_model::plan::{ExistingPlacement, Unschedulable};
use karpenter_model::{Plan, Problem, ResourceList};
use karpenter_plan_check::check;
use world::{anti_affinity, good, key, pod, port, require, select, spread_by_zone, taint};

type Spoil = fn(&mut Problem, &mut Plan);

#[test]
fn volumes_within_reach_and_limits_are_clean() {
    let (mut problem, plan) = good();
    world::mount(&mut problem, "a", &["zone-1"], &["x"]);
    world::mount(&mut problem, "b", &["zone-1", "zone-2"], &["y"]);
    world::mount(&mut problem, "c", &[], &["y"]);
    world::attach(&mut problem, 1, &["x"]);
    let one = [("ebs".into(), 1)].into();
    problem.volume_limits = std::sync::Arc::new([("large".into(), one)].into());
    assert_eq!(
        check(&problem, &plan),
        [],
        "what is attached already, and what pods share, counts once"
    );
}

#[test]
fn a_good_plan_is_clean() {
    let (problem, plan) = good();
    assert_eq!(check(&problem, &plan), []);
}

/// Ways to spoil the plan: name, rule that must find it, what is done.
const SPOILS: &[(&str, &str, Spoil)] = &[
    ("pod_lost", "bookkeeping", |_, plan| {
        plan.existing.clear();
    }),
    ("pod_doubled", "bookkeeping", |_, plan| {
        plan.new_nodes[0].pods.push(key("a"))
    }),
    ("pod_invented", "bookkeeping", |_, plan| {
        plan.new_nodes[0].pods.push(key("ghost"))
    }),
    ("node_invented", "bookkeeping", |_, plan| {
        plan.existing[0].node = "nowhere".into()
    }),
    ("pool_invented", "bookkeeping", |_, plan| {
        plan.new_nodes[0].pool = "nowhere".into()
    }),
    ("node_for_nobody", "bookkeeping", |_, plan| {
        let node = plan.new_nodes[0].clone();
        plan.new_nodes.push(karpenter_model::plan::PlannedNode {
            pods: Vec::new(),
            ..node
        });
    }),
    ("no_reason", "explanation", |_, plan| {
        plan.existing.clear();
        plan.unschedulable.push(Unschedulable {
            pod: key("a"),
            reason: " ".into(),
            pools: Vec::new(),
        });
    }),
    ("existing_volume_elsewhere", "volumes", |problem, _| {
        world::mount(problem, "a", &["zone-2"], &["data"]);
    }),
    ("new_volume_elsewhere", "volumes", |problem, _| {
        world::mount(problem, "b", &["zone-1"], &["data"]);
    }),
    ("claim_refused", "volumes", |problem, _| {
        world::mount(problem, "a", &[], &["data"]);
        world::refuse(problem, "a");
    }),
    (
        "existing_over_volume_limit",
        "volume-limits",
        |problem, _| {
            world::mount(problem, "a", &[], &["x", "y"]);
            world::attach(problem, 2, &["old"]);
        },
    ),
    ("new_over_volume_limit", "volume-limits", |problem, _| {
        world::mount(problem, "b", &[], &["x"]);
        world::mount(problem, "c", &[], &["y"]);
        let one = [("ebs".into(), 1)].into();
        problem.volume_limits = std::sync::Arc::new([("xlarge".into(), one)].into());
    }),
    ("missed_with_volume", "missed", |problem, plan| {
        world::mount(problem, "a", &["zone-1"], &["data"]);
        world::attach(problem, 2, &["old"]);
        plan.existing.clear();
        plan.unschedulable.push(Unschedulable {
            pod: key("a"),
            reason: "because".into(),
            pools: Vec::new(),
        });
    }),
    ("existing_taint", "taints", |problem, _| {
        world::node(problem)
            .taints
            .push(taint("team", "a", "NoSchedule"))
    }),
    ("existing_no_execute", "taints", |problem, _| {
        world::node(problem)
            .taints
            .push(taint("team", "a", "NoExecute"))
    }),
    ("existing_selector", "selectors", |problem, _| {
        select(problem, "a", "disk", "ssd")
    }),
    ("existing_room", "resources", |problem, _| {
        world::node(problem)
            .available
            .set("cpu", Quantity::from_millis(500))
    }),
    ("existing_port", "host-ports", |problem, _| {
        world::node(problem).host_ports.push(port(80));
        world::edit(problem, "a").host_ports.push(port(80));
    }),
    ("existing_port_of_a_daemon", "host-ports", |problem, _| {
        let mut daemon = karpenter_model::Pod::clone(&pod("d", 0, 0));
        daemon.host_ports.push(port(80));
        problem.daemons.push(std::sync::Arc::new(daemon));
        world::edit(problem, "a").host_ports.push(port(80));
    }),
    ("existing_with_claims", "resource-claims", |problem, _| {
        world::edit(problem, "a").has_resource_claims = true;
    }),
    ("new_with_claims", "resource-claims", |problem, _| {
        world::edit(problem, "b").has_resource_claims = true;
    }),
    ("new_taint", "taints", |problem, _| {
        world::pool(problem)
            .taints
            .push(taint("team", "a", "NoSchedule"))
    }),
    ("new_selector", "selectors", |problem, _| {
        select(problem, "b", names::ZONE, "zone-9")
    }),
    ("new_selector_one_zone_of_two", "selectors", |problem, _| {
        select(problem, "b", names::ZONE, "zone-1")
    }),
    ("new_room", "resources", |problem, _| {
        world::edit(problem, "b")
            .requests
            .set("cpu", Quantity::from_units(7))
    }),
    ("new_room_with_daemon", "resources", |problem, _| {
        problem.daemons.push(pod("agent", 3_500, 100));
    }),
    ("new_ports", "host-ports", |problem, _| {
        world::edit(problem, "b").host_ports.push(port(80));
        world::edit(problem, "c").host_ports.push(port(80));
    }),
    ("type_not_sold", "instance-types", |_, plan| {
        plan.new_nodes[0].instance_types.push("made-up".into())
    }),
    ("type_twice", "instance-types", |_, plan| {
        plan.new_nodes[0].instance_types.push("large".into())
    }),
    ("no_types", "instance-types", |_, plan| {
        plan.new_nodes[0].instance_types.clear()
    }),
    ("nothing_available", "offerings", |problem, _| {
        world::instance_type(problem, "large")
            .offerings
            .iter_mut()
            .for_each(|o| o.available = false);
    }),
    ("capacity_types_wrong", "offerings", |_, plan| {
        plan.new_nodes[0].capacity_types = vec!["reserved".into()]
    }),
    ("not_cheapest_first", "prices", |_, plan| {
        plan.new_nodes[0].instance_types.reverse()
    }),
    ("price_wrong", "prices", |_, plan| {
        plan.new_nodes[0].cheapest.price *= 2.0
    }),
    ("cheapest_in_another_zone", "prices", |_, plan| {
        plan.new_nodes[0].cheapest.zone = "zone-3".into()
    }),
    ("cheapest_of_another_kind", "prices", |_, plan| {
        plan.new_nodes[0].cheapest.capacity_type = "on-demand".into()
    }),
    ("next_best_not_told", "prices", |_, plan| {
        plan.new_nodes[0].runner_up = None
    }),
    ("next_best_dearer_than_it_is", "prices", |_, plan| {
        let next = plan.new_nodes[0].runner_up.as_mut().unwrap();
        (next.zone, next.price) = ("zone-2".into(), 0.3)
    }),
    ("next_best_not_listed", "prices", |_, plan| {
        plan.new_nodes[0].instance_types.pop();
    }),
    ("price_of_before_an_overlay", "prices", |problem, _| {
        let sold = world::instance_type(problem, "large");
        sold.overlaid = true;
        for offering in &mut sold.offerings {
            (offering.overlaid, offering.price) = (true, offering.price * 0.5);
        }
    }),
    ("order_of_before_an_overlay", "prices", |problem, _| {
        let sold = world::instance_type(problem, "xlarge");
        sold.overlaid = true;
        for offering in &mut sold.offerings {
            (offering.overlaid, offering.price) = (true, 0.01);
        }
    }),
    ("resource_of_a_lost_overlay", "resources", |problem, _| {
        let one = Quantity::from_units(1);
        let pod = world::edit(problem, "b");
        pod.requests.set("example.com/license", one);
        // One type has it still, and the launch may pick the other.
        let sold = world::instance_type(problem, "xlarge");
        sold.allocatable.set("example.com/license", one);
    }),
    ("wider_than_pool", "requirements", |_, plan| {
        require(
            &mut plan.new_nodes[0].requirements,
            names::ARCH,
            &["amd64", "arm64"],
        );
    }),
    ("pool_requirement_dropped", "requirements", |_, plan| {
        plan.new_nodes[0].requirements.map.remove(names::ARCH);
    }),
    ("limit_cpu", "limits", |problem, _| {
        world::pool(problem).limits =
            Some(ResourceList::from_iter([("cpu", Quantity::from_units(7))]));
    }),
    ("limit_nodes", "limits", |problem, _| {
        world::pool(problem).limits = Some(ResourceList::from_iter([(
            "nodes",
            Quantity::from_units(1),
        )]));
        world::pool(problem)
            .usage
            .set("nodes", Quantity::from_units(1));
    }),
    ("min_values", "min-values", |_, plan| {
        let types = require(
            &mut plan.new_nodes[0].requirements,
            names::INSTANCE_TYPE,
            &["large", "xlarge"],
        );
        types.min_values = Some(3);
    }),
    ("missed_on_existing", "missed", |_, plan| {
        plan.existing.clear();
        plan.unschedulable.push(Unschedulable {
            pod: key("a"),
            reason: "no".into(),
            pools: Vec::new(),
        });
    }),
    ("missed_in_pool", "missed", |problem, plan| {
        problem.nodes.clear();
        plan.existing.clear();
        plan.unschedulable.push(Unschedulable {
            pod: key("a"),
            reason: "no".into(),
            pools: Vec::new(),
        });
    }),
    ("anti_affinity_on_a_host", "anti-affinity", |problem, _| {
        anti_affinity(problem, "b", names::HOSTNAME)
    }),
    (
        "anti_affinity_in_a_zone",
        "anti-affinity",
        |problem, plan| {
            anti_affinity(problem, "a", names::ZONE);
            require(
                &mut plan.new_nodes[0].requirements,
                names::ZONE,
                &["zone-1", "zone-2"],
            );
        },
    ),
    (
        "anti_affinity_to_a_selected_namespace",
        "anti-affinity",
        |problem, plan| world::apart_from_team(problem, plan, ("b", "c"), "blue"),
    ),
    (
        "spread_held_back_by_a_tainted_node",
        "spread",
        |problem, plan| {
            world::spread_beside_a_tainted_zone(problem, plan, None);
        },
    ),
    ("spread_with_open_zone", "spread", |problem, _| {
        spread_by_zone(problem, &["b"], 1)
    }),
    ("spread_all_in_one", "spread", |problem, plan| {
        spread_by_zone(problem, &["b", "c"], 1);
        require(
            &mut plan.new_nodes[0].requirements,
            names::ZONE,
            &["zone-2"],
        );
    }),
    ("reservation_overdrawn", "reservations", |problem, plan| {
        world::reserve(problem, plan, 2);
        world::buy_once_more(plan, &["b", "c"]);
        world::buy_once_more(plan, &["c"]);
    }),
    ("reservation_under_way", "reservations", |problem, plan| {
        world::reserve(problem, plan, 1);
        let node = world::node(problem);
        node.managed = true;
        node.labels.insert(world::RESERVATION.into(), "r".into());
        let kind = names::CAPACITY_TYPE.to_owned();
        node.labels.insert(kind, "reserved".into());
    }),
    ("reservation_or_not", "reservations", |problem, plan| {
        world::reserve(problem, plan, 2);
        let sold = world::instance_type(problem, "xlarge");
        require(
            &mut sold.offerings[1].requirements,
            names::CAPACITY_TYPE,
            &["spot"],
        );
        let node = &mut plan.new_nodes[0];
        let both = &["reserved", "spot"];
        require(&mut node.requirements, names::CAPACITY_TYPE, both);
        node.capacity_types = both.iter().map(|k| (*k).into()).collect();
    }),
    (
        "one_of_two_reservations",
        "reservations",
        |problem, plan| {
            world::reserve(problem, plan, 2);
            let sold = world::instance_type(problem, "xlarge");
            require(&mut sold.requirements, world::RESERVATION, &["r", "s"]);
            require(
                &mut sold.offerings[1].requirements,
                world::RESERVATION,
                &["s"],
            );
            let both = &["r", "s"];
            require(
                &mut plan.new_nodes[0].requirements,
                world::RESERVATION,
                both,
            );
        },
    ),
    ("reservation_forbidden", "reservations", |problem, plan| {
        world::reserve(problem, plan, 1);
        problem.options.reserved_capacity = false;
    }),
    ("reservation_open", "reservations", |problem, plan| {
        world::reserve(problem, plan, 0);
        plan.new_nodes[0]
            .requirements
            .map
            .remove(world::RESERVATION);
    }),
    (
        "reservation_without_name",
        "reservations",
        |problem, plan| {
            world::reserve(problem, plan, 1);
            std::sync::Arc::make_mut(&mut problem.labels).reservation_id = None;
        },
    ),
    ("missed_out_of_a_reservation", "missed", |problem, plan| {
        world::reserve(problem, plan, 1);
        world::lose(plan, "b");
    }),
    ("missed_within_limits", "missed", |problem, plan| {
        world::pool(problem).limits = Some(world::cores(12));
        world::lose(plan, "b");
    }),
    ("missed_with_variety", "missed", |problem, plan| {
        let pool = world::pool(problem);
        require(
            &mut pool.requirements,
            names::INSTANCE_TYPE,
            &["large", "xlarge"],
        );
        let of_type = pool.requirements.map.get_mut(names::INSTANCE_TYPE);
        of_type.unwrap().min_values = Some(2);
        world::lose(plan, "b");
    }),
    ("label_that_no_pool_defines", "requirements", |_, plan| {
        require(&mut plan.new_nodes[0].requirements, "rack", &["r1"]);
    }),
    ("missed_with_a_port", "missed", |problem, plan| {
        world::edit(problem, "b").host_ports = vec![port(80)];
        world::lose(plan, "b");
    }),
];

#[test]
fn what_reservations_and_limits_do_not_leave_is_not_missed() {
    let (mut problem, mut plan) = good();
    world::reserve(&mut problem, &mut plan, 1);
    assert_eq!(check(&problem, &plan), []);
    let mut short = plan.clone();
    short.new_nodes[0].pods = vec![key("b")];
    world::lose(&mut short, "c");
    assert_eq!(check(&problem, &short), [], "its one machine is bought");

    let (mut problem, mut plan) = good();
    world::pool(&mut problem).limits = Some(world::cores(8));
    plan.new_nodes[0].pods = vec![key("b")];
    world::lose(&mut plan, "c");
    assert_eq!(
        check(&problem, &plan),
        [],
        "the one machine may have all there is"
    );
}

#[test]
fn a_spoilt_plan_is_found() {
    for (name, rule, spoil) in SPOILS {
        let (mut problem, mut plan) = good();
        spoil(&mut problem, &mut plan);
        let findings = check(&problem, &plan);
        assert!(
            findings.iter().any(|f| f.rule == *rule),
            "{name}: expected a finding of rule {rule}, got {findings:#?}"
        );
    }
}

#[test]
fn a_cut_off_plan_may_leave_pods_out() {
    let (problem, mut plan) = good();
    plan.existing.clear();
    plan.cut_off = true;
    assert_eq!(check(&problem, &plan), []);
}

#[test]
fn a_pod_that_fits_nowhere_may_be_unschedulable() {
    let (mut problem, mut plan) = good();
    world::edit(&mut problem, "a")
        .requests
        .set("cpu", Quantity::from_units(500));
    plan.existing = Vec::<ExistingPlacement>::new();
    plan.unschedulable.push(Unschedulable {
        pod: key("a"),
        reason: "too big".into(),
        pools: Vec::new(),
    });
    assert_eq!(check(&problem, &plan), []);
}

#[test]
fn rules_that_mean_others_are_clean() {
    let (mut problem, mut plan) = good();
    world::apart_from_team(&mut problem, &mut plan, ("b", "c"), "red");
    assert_eq!(check(&problem, &plan), [], "that namespace is not selected");
    let (mut problem, mut plan) = good();
    world::spread_beside_a_tainted_zone(&mut problem, &mut plan, Some("Honor"));
    assert_eq!(check(&problem, &plan), [], "that node does not count");
}

#[test]
fn spread_over_two_zones_is_clean() {
    let (mut problem, mut plan) = good();
    spread_by_zone(&mut problem, &["b", "c"], 1);
    plan.new_nodes[0].pods = vec![key("b")];
    let mut second = plan.new_nodes[0].clone();
    world::in_zone_2(&mut plan.new_nodes[0]);
    second.pods = vec![key("c")];
    require(&mut second.requirements, names::ZONE, &["zone-1"]);
    plan.new_nodes.push(second);
    assert_eq!(check(&problem, &plan), []);
}
