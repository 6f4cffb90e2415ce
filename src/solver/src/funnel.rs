//! Why a pod goes nowhere: per pool, what each constraint took away and what it left, nearest miss first, and one
//! sentence with the remedy where there is one.

use karpenter_api::Quantity;
use karpenter_api::labels::NODEPOOL;
use karpenter_model::Undefined;
use karpenter_model::plan::{FunnelStep, PoolFunnel};
use karpenter_model::taints::{self, first_in_the_way};
use karpenter_model::{Problem, Requirement};

use crate::catalog::{Catalog, Pool, Sold};
use crate::choose::ports_clash;
use crate::class::{Attempt, Class, Classes, Demand};
use crate::dense::{Names, fits};
use crate::mounts;

/// A pool's funnel with what it takes to judge how near it came.
struct Told {
    funnel: PoolFunnel,
    sentence: String,
    /// Constraints that no type meets, each looked at by itself: fewer is nearer.
    misses: usize,
    /// Steps that left something: more is nearer.
    passed: usize,
}

/// One sentence and the funnels of all pools, nearest miss first.
pub(crate) fn explain(
    problem: &Problem,
    names: &Names,
    classes: &Classes,
    class: &Class,
    catalog: &Catalog,
) -> (String, Vec<PoolFunnel>) {
    // The least the pod asks for is its last attempt: what even that fails on is the reason.
    let last = class.attempts.last();
    let Some((attempt, demand)) = last.and_then(|a| Some((a, classes.demand(a.demand)?))) else {
        return (
            "its required node affinity has no term that matches any node".to_owned(),
            Vec::new(),
        );
    };
    if catalog.pools.is_empty() {
        return (
            "there is no usable NodePool, and no node has room for it".to_owned(),
            Vec::new(),
        );
    }
    let mut told: Vec<Told> = catalog
        .pools
        .iter()
        .map(|p| tell(problem, names, class, (attempt, demand), p))
        .collect();
    told.sort_by(|a, b| {
        a.misses
            .cmp(&b.misses)
            .then_with(|| b.passed.cmp(&a.passed))
            .then_with(|| a.funnel.pool.cmp(&b.funnel.pool))
    });
    let reason = told
        .first()
        .map(|t| format!("NodePool {}: {}", t.funnel.pool, t.sentence))
        .unwrap_or_default();
    (reason, told.into_iter().map(|t| t.funnel).collect())
}

fn tell(
    problem: &Problem,
    names: &Names,
    class: &Class,
    (attempt, demand): (&Attempt, &Demand),
    pool: &Pool,
) -> Told {
    let misses = misses(problem, class, demand, pool);
    let mut steps: Vec<FunnelStep> = Vec::new();
    let all = pool.view.instance_types.len();
    let mut left: Vec<&Sold> = pool.types.iter().map(|s| &**s).collect();
    let mut push = |constraint: String, before: usize, after: usize| {
        steps.push(FunnelStep {
            constraint,
            removed: before.saturating_sub(after),
            left: after,
        });
    };
    push(
        "NodePool requirements and available offerings".to_owned(),
        all,
        left.len(),
    );
    let done = |steps: Vec<FunnelStep>, sentence: String| {
        let passed = steps.iter().filter(|s| s.left > 0).count();
        Told {
            funnel: PoolFunnel {
                pool: pool.view.name.clone(),
                steps,
            },
            sentence,
            misses,
            passed,
        }
    };
    if left.is_empty() {
        return done(
            steps,
            format!("none of its {all} instance types can be had"),
        );
    }
    let taints = &pool.view.taints;
    if let Some(taint) = first_in_the_way(taints, &class.tolerations, demand.soft) {
        let taint = taints::text(taint);
        push(format!("taint {taint}"), left.len(), 0);
        return done(
            steps,
            format!("the pod does not tolerate {taint}; tolerate it to use this pool"),
        );
    }
    let mut so_far = pool.view.requirements.clone();
    for requirement in demand.requirements.iter() {
        let before = left.len();
        let one: karpenter_model::Requirements = [requirement.clone()].into_iter().collect();
        let defined = so_far.is_compatible(&one, Undefined::WellKnown(&problem.labels));
        if defined {
            so_far.add(requirement.clone());
        }
        left.retain(|s| {
            defined
                && s.instance_type.requirements.does_intersect(&so_far)
                && s.instance_type.cheapest(&so_far, &problem.labels).is_some()
        });
        let of_volumes = attempt.of_volumes.contains(&requirement.key);
        let said = if of_volumes {
            format!("{requirement} (its volumes)")
        } else {
            requirement.to_string()
        };
        push(said, before, left.len());
        if left.is_empty() {
            return done(steps, no_label(pool, requirement, of_volumes, before));
        }
    }
    let before = left.len();
    let largest = nearest_room(names, class, &left);
    left.retain(|s| fits(&class.requests, &s.room));
    push(
        format!("requests {}", crate::finish::text(&class.asked)),
        before,
        left.len(),
    );
    if left.is_empty() {
        return done(
            steps,
            format!("none of {before} instance types has room for it{largest}"),
        );
    }
    if !class.ports.is_empty() {
        let before = left.len();
        left.retain(|s| s.ports.is_empty() || !ports_clash(&class.ports, &s.ports));
        let ports = class.ports.iter();
        let ports = ports.map(|p| format!("{}:{}/{}", p.ip, p.port, p.protocol));
        let ports = ports.collect::<Vec<_>>().join(", ");
        push(format!("host ports {ports}"), before, left.len());
        if left.is_empty() {
            return done(
                steps,
                format!(
                    "DaemonSets take a host port of the pod ({ports}) on each of {before} instance types; ask for another"
                ),
            );
        }
    }
    let before = left.len();
    left.retain(|s| !class.keeps_off(s, &so_far));
    if left.len() < before {
        push(
            "anti-affinity of it or of DaemonSets".to_owned(),
            before,
            left.len(),
        );
    }
    if left.is_empty() {
        return done(
            steps,
            format!(
                "anti-affinity, its own or theirs, keeps it off DaemonSets that run on each of {before} instance types"
            ),
        );
    }
    let before = left.len();
    left.retain(|s| pool.admits(&s.instance_type.capacity, None));
    push("limits".to_owned(), before, left.len());
    if left.is_empty() {
        let limits = pool
            .view
            .limits
            .as_ref()
            .map(crate::finish::text)
            .unwrap_or_default();
        return done(
            steps,
            format!(
                "its limits ({limits}) leave no room for any of {before} instance types; raise them"
            ),
        );
    }
    let before = left.len();
    let bought = |s: &&Sold| {
        let mut offers = s.instance_type.offers(&so_far, &problem.labels);
        offers.any(|o| !o.is_reserved())
    };
    if !left.iter().any(bought) {
        push("reservations".to_owned(), before, 0);
        return done(
            steps,
            format!(
                "the reservations that {before} instance types are sold out of have no machine left; enlarge one, or allow another capacity type"
            ),
        );
    }
    let min: Vec<String> = so_far
        .iter()
        .filter_map(|r| r.min_values.map(|n| format!("{} values of {}", n, r.key)))
        .collect();
    push(format!("minValues {}", min.join(", ")), left.len(), 0);
    done(
        steps,
        format!(
            "{} instance types are left, fewer than minValues asks for ({})",
            left.len(),
            min.join(", ")
        ),
    )
}

/// How many constraints no type of the pool meets even by themselves; at least one.
fn misses(problem: &Problem, class: &Class, demand: &Demand, pool: &Pool) -> usize {
    let taints = &pool.view.taints;
    let taint = first_in_the_way(taints, &class.tolerations, demand.soft).is_some();
    let none = |meets: &dyn Fn(&Sold) -> bool| !pool.types.iter().any(|s| meets(s));
    let requirements = demand
        .requirements
        .iter()
        .filter(|r| {
            let one: karpenter_model::Requirements = [(*r).clone()].into_iter().collect();
            let own = &pool.view.requirements;
            if !own.is_compatible(&one, Undefined::WellKnown(&problem.labels)) {
                return true;
            }
            let mut both = own.clone();
            both.add((*r).clone());
            none(&|s| {
                s.instance_type.requirements.does_intersect(&both)
                    && s.instance_type.cheapest(&both, &problem.labels).is_some()
            })
        })
        // A pool that the pod does not mean is farther than any that it does.
        .map(|r| if &*r.key == NODEPOOL { 2 } else { 1 })
        .sum::<usize>();
    let resources = none(&|s| fits(&class.requests, &s.room));
    let limits = none(&|s| pool.admits(&s.instance_type.capacity, None));
    let alone = usize::from(taint) + requirements + usize::from(resources) + usize::from(limits);
    alone.max(1)
}

fn no_label(pool: &Pool, requirement: &Requirement, of_volumes: bool, before: usize) -> String {
    let who = if of_volumes {
        "the pod with its volumes"
    } else {
        "the pod"
    };
    if pool.view.requirements.contains(&requirement.key) {
        let own = pool.view.requirements.effective(&requirement.key);
        return format!("{who} asks for {requirement}, the pool allows {own}");
    }
    format!(
        "{who} asks for {requirement}, which none of {before} instance types has and the pool does not define"
    )
}

/// The resource that even the roomiest type has too little of, with the most that can be asked.
fn nearest_room(names: &Names, class: &Class, types: &[&Sold]) -> String {
    let show = |name, amount| karpenter_model::resources::text(name, amount);
    for (name, at) in names.iter() {
        let want = class.requests.get(at).copied().unwrap_or(0);
        let rooms = types.iter().filter_map(|s| s.room.get(at));
        if want > 0 && rooms.max().is_none_or(|most| want > *most) {
            let exact = types.iter().map(|s| {
                let all = s.instance_type.allocatable.get(name).nanos();
                Quantity::from_nanos(all.saturating_sub(s.daemons.get(name).nanos()))
            });
            let most = if mounts::driver(name).is_some() {
                let rooms = types.iter().filter_map(|s| s.room.get(at));
                names.quantity(at, rooms.copied().max().unwrap_or(0))
            } else {
                exact.max().unwrap_or(Quantity::ZERO)
            };
            let most = most.max(Quantity::ZERO);
            return format!(
                ": it asks for {name} {}, the most to be had is {}",
                show(name, class.asked.get(name)),
                show(name, most)
            );
        }
    }
    ": no single type has enough of everything it asks for".to_owned()
}
