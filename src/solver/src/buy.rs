//! What to buy. One machine at a time, filled before the next is opened: of all types that could take the pod at
//! the head of the queue, the one whose price buys most work from the queue. Looking at price per work done, not at
//! whether one more pod fits, is what keeps machines from growing dear or staying small.

use std::collections::BTreeSet;

use karpenter_model::Undefined;
use karpenter_model::pod::HostPort;
use karpenter_model::resources::names::{CPU, MEMORY};
use karpenter_model::taints::first_untolerated;
use karpenter_model::{LabelRegistry, Plan, Problem, Requirements};

use crate::catalog::{Catalog, Pool, UnitPrices};
use crate::class::{Attempt, Class, Classes};
use crate::dense::{Dense, Names, add, times};
use crate::finish::{self, Purchase};
use crate::{Budget, Queue, class_at};

/// What a machine costs beyond its price, dollars per hour: daemons, addresses, attention. Small enough that it only
/// decides between prices that are nearly equal.
const NODE_COST: f64 = 0.002;
/// Worth of a pod that asks for nothing, so that it counts at all.
const POD_WORTH: f64 = 1e-6;
/// Most classes behind the head that are considered for its machine; bounds the work on a queue of one-offs.
const MAX_COMPANIONS: usize = 64;

/// Price per worth of work, type, and how many pods of which queue positions.
type Scored = (f64, usize, Vec<(usize, usize)>);

/// A class of the queue as it would share a machine.
struct Sharer<'a> {
    position: usize,
    class: &'a Class,
    count: usize,
    worth: f64,
}

#[allow(clippy::too_many_arguments)] // The whole state of a solve, each piece with its own lifetime.
pub(crate) fn place(
    problem: &Problem,
    names: &Names,
    classes: &Classes,
    queue: &mut Queue,
    catalog: &mut Catalog,
    plan: &mut Plan,
    budget: &mut Budget,
) {
    let prices = catalog.unit_prices();
    let rows = queue.waiting.len();
    for position in 0..rows {
        let mut open = true;
        while open {
            let Some((class, count)) = queue
                .waiting
                .get(position)
                .map(|(c, pods)| (*c, pods.len()))
            else {
                break;
            };
            if count == 0 || budget.exhausted() {
                break;
            }
            open = false;
            let Some(head) = class_at(classes, class) else {
                break;
            };
            for attempt in &head.attempts {
                if let Some(purchase) = best_purchase(
                    problem, names, classes, queue, catalog, position, attempt, &prices, budget,
                ) {
                    finish::commit(problem, names, queue, catalog, plan, purchase);
                    open = true;
                    break;
                }
            }
        }
    }
}

/// The best purchase for the head of the queue, over the pools of the highest weight that can serve it at all.
#[allow(clippy::too_many_arguments)]
fn best_purchase(
    problem: &Problem,
    names: &Names,
    classes: &Classes,
    queue: &Queue,
    catalog: &Catalog,
    position: usize,
    attempt: &Attempt,
    prices: &UnitPrices,
    budget: &mut Budget,
) -> Option<Purchase> {
    let mut best: Option<(f64, Purchase)> = None;
    let mut weight = None;
    for (index, pool) in catalog.pools.iter().enumerate() {
        if weight.is_some_and(|w| w != pool.view.weight) && best.is_some() {
            break;
        }
        weight = Some(pool.view.weight);
        let Some(requirements) =
            requirements_in(pool, attempt, queue, classes, position, &problem.labels)
        else {
            continue;
        };
        let sharers = sharers(
            problem,
            classes,
            queue,
            pool,
            position,
            attempt,
            &requirements,
            prices,
        );
        if let Some((score, purchase)) =
            in_pool(problem, names, pool, index, requirements, &sharers, budget)
            && best.as_ref().is_none_or(|(least, _)| score < *least)
        {
            best = Some((score, purchase));
        }
    }
    best.map(|(_, purchase)| purchase)
}

/// The claim's requirements if the head goes to this pool; none if it cannot.
fn requirements_in(
    pool: &Pool,
    attempt: &Attempt,
    queue: &Queue,
    classes: &Classes,
    position: usize,
    labels: &LabelRegistry,
) -> Option<Requirements> {
    let class = queue
        .waiting
        .get(position)
        .and_then(|(c, _)| classes.get(*c))?;
    joined(pool, &pool.view.requirements, class, attempt, labels)
}

fn joined(
    pool: &Pool,
    base: &Requirements,
    class: &Class,
    attempt: &Attempt,
    labels: &LabelRegistry,
) -> Option<Requirements> {
    let taints = pool
        .view
        .taints
        .iter()
        .filter(|t| !(attempt.soft && t.effect == "PreferNoSchedule"));
    if first_untolerated(taints, &class.tolerations).is_some() {
        return None;
    }
    if !base.is_compatible(&attempt.requirements, Undefined::WellKnown(labels)) {
        return None;
    }
    let mut out = base.clone();
    out.add_all(&attempt.requirements);
    Some(out)
}

/// The head and the classes behind it that ask for nothing the claim does not already say: they can share its
/// machine without narrowing it.
#[allow(clippy::too_many_arguments)]
fn sharers<'a>(
    problem: &Problem,
    classes: &'a Classes,
    queue: &Queue,
    pool: &Pool,
    position: usize,
    attempt: &Attempt,
    requirements: &Requirements,
    prices: &UnitPrices,
) -> Vec<Sharer<'a>> {
    let mut out: Vec<Sharer<'a>> = Vec::new();
    for (at, index, count) in queue.counts().skip(position) {
        if count == 0 || out.len() > MAX_COMPANIONS {
            continue;
        }
        let Some(class) = classes.get(index) else {
            continue;
        };
        let head = at == position;
        let first = class.attempts.first();
        let shares = head
            || first.is_some_and(|a| {
                a.soft == attempt.soft
                    && joined(pool, requirements, class, a, &problem.labels)
                        .is_some_and(|r| r == *requirements)
            });
        if shares {
            let requests = &class.example.requests;
            let worth = POD_WORTH + prices.dollars(requests.get(CPU), requests.get(MEMORY));
            out.push(Sharer {
                position: at,
                class,
                count,
                worth,
            });
        }
    }
    out
}

/// The best purchase in one pool and its price per worth of work.
fn in_pool(
    problem: &Problem,
    names: &Names,
    pool: &Pool,
    index: usize,
    requirements: Requirements,
    sharers: &[Sharer<'_>],
    budget: &mut Budget,
) -> Option<(f64, Purchase)> {
    let mut offers = Vec::new();
    for (at, sold) in pool.types.iter().enumerate() {
        if !sold
            .instance_type
            .requirements
            .does_intersect(&requirements)
            || !pool.admits(&sold.instance_type.capacity)
        {
            continue;
        }
        if let Some(offer) = sold.instance_type.cheapest(&requirements, &problem.labels) {
            offers.push((at, offer.price));
        }
    }
    if !budget.spend(u64::try_from(offers.len()).unwrap_or(u64::MAX).max(1)) {
        return None;
    }
    let mut scored: Vec<Scored> = Vec::new();
    for (at, price) in &offers {
        let Some(sold) = pool.types.get(*at) else {
            continue;
        };
        let (worth, filled) = fill(&sold.room, sharers);
        // The head has to be served, or the machine is not for it.
        if filled
            .first()
            .is_some_and(|(position, _)| sharers.first().is_some_and(|h| h.position == *position))
        {
            scored.push(((price + NODE_COST) / worth, *at, filled));
        }
    }
    let name = |at: usize| pool.types.get(at).map(|s| s.instance_type.name.clone());
    scored.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| name(a.1).cmp(&name(b.1))));
    let mut relaxed: Option<(f64, Purchase)> = None;
    for (score, at, filled) in scored {
        let purchase = finish::purchase(
            problem,
            names,
            pool,
            index,
            at,
            &requirements,
            needed(sharers, &filled),
            filled,
            &offers,
        )?;
        if !purchase.min_values_relaxed {
            return Some((score, purchase));
        }
        // Fewer pods leave more types: one of the next may have the variety that is wanted.
        if problem.options.best_effort_min_values && relaxed.is_none() {
            relaxed = Some((score, purchase));
        }
    }
    relaxed
}

/// How many pods of each sharer a machine with this room takes, and what they are worth.
fn fill(room: &Dense, sharers: &[Sharer<'_>]) -> (f64, Vec<(usize, usize)>) {
    let mut room = room.clone();
    let mut ports: Vec<HostPort> = Vec::new();
    let mut worth = 0.0;
    let mut filled = Vec::new();
    for sharer in sharers {
        if ports_clash(&sharer.class.ports, &ports) {
            continue;
        }
        let most = if sharer.class.ports.is_empty() {
            sharer.count
        } else {
            1
        };
        let n = times(&sharer.class.requests, &room, most);
        if n == 0 {
            continue;
        }
        add(
            &mut room,
            &sharer.class.requests,
            -i128::try_from(n).unwrap_or(0),
        );
        ports.extend(sharer.class.ports.iter().cloned());
        #[allow(clippy::cast_precision_loss)] // Counts of pods.
        let gained = sharer.worth * n as f64;
        worth += gained;
        filled.push((sharer.position, n));
    }
    (worth, filled)
}

/// Requests of what was filled.
fn needed(sharers: &[Sharer<'_>], filled: &[(usize, usize)]) -> Dense {
    let mut need = Dense::new();
    for (position, n) in filled {
        if let Some(sharer) = sharers.iter().find(|s| s.position == *position) {
            add(
                &mut need,
                &sharer.class.requests,
                i128::try_from(*n).unwrap_or(0),
            );
        }
    }
    need
}

/// Whether any two ports of the lists exclude each other.
pub(crate) fn ports_clash(a: &[HostPort], b: &[HostPort]) -> bool {
    let any = |p: &HostPort| matches!(p.ip.as_ref(), "0.0.0.0" | "::");
    let wildcards: BTreeSet<(i32, &str)> = b
        .iter()
        .filter(|p| any(p))
        .map(|p| (p.port, p.protocol.as_ref()))
        .collect();
    a.iter().any(|p| {
        wildcards.contains(&(p.port, p.protocol.as_ref()))
            || b.iter()
                .any(|q| p.port == q.port && p.protocol == q.protocol && (any(p) || p.ip == q.ip))
    })
}
