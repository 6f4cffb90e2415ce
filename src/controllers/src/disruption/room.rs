//! Whether pods find room on several replacements wherever kube-scheduler puts them: it spreads what a plan packs, and a
//! pod that is left over would need one more machine than was counted on.

use std::collections::BTreeMap;
use std::sync::Arc;

use karpenter_model::{Pod, PodKey, ResourceList};

use super::candidate::Candidate;
use super::method::Replacement;
use super::snapshot::Snapshot;

/// Why replacements could come out too small together; fine if every pod finds room on them, spread as it likes.
pub(super) fn check(
    snapshot: &Snapshot,
    candidates: &[&Candidate],
    replacements: &[Replacement],
) -> Result<(), String> {
    let pods = candidates.iter().flat_map(|c| &c.pods);
    let pods: BTreeMap<&PodKey, &Arc<Pod>> = pods.map(|p| (&p.key, p)).collect();
    let planned = replacements.iter().flat_map(|r| &r.planned.pods);
    let mut queue: Vec<&Arc<Pod>> = planned.filter_map(|p| pods.get(p).copied()).collect();
    let machines: Option<Vec<Machine>> = replacements
        .iter()
        .map(|r| Machine::of(snapshot, r, &pods))
        .collect();
    let Some(machines) = machines else {
        return Ok(());
    };
    let fits = |queue: &[&Arc<Pod>]| {
        let mut machines = machines.clone();
        queue.iter().all(|pod| place(&mut machines, &pod.requests))
    };
    let largest: ResourceList = ResourceList::max(machines.iter().map(|m| &m.free));
    let size = |pod: &Arc<Pod>| share(&pod.requests, &largest);
    queue.sort_by(|a, b| a.key.cmp(&b.key));
    let mut fit = fits(&queue);
    // The worst order there is: small ones everywhere, and then no machine has room for a large one.
    queue.sort_by(|a, b| size(a).total_cmp(&size(b)).then_with(|| a.key.cmp(&b.key)));
    fit &= fits(&queue);
    if fit {
        Ok(())
    } else {
        Err(format!(
            "{} machines would do, but only if every pod went to the right one",
            replacements.len()
        ))
    }
}

/// A machine that fills.
#[derive(Clone)]
struct Machine {
    /// What it has for pods that move.
    whole: ResourceList,
    /// What of it is left.
    free: ResourceList,
}

impl Machine {
    /// The machine that a replacement is most likely to be; none if nobody knows its type any more.
    fn of(
        snapshot: &Snapshot,
        replacement: &Replacement,
        pods: &BTreeMap<&PodKey, &Arc<Pod>>,
    ) -> Option<Self> {
        let planned = &replacement.planned;
        let sold = &snapshot.pools.get(&planned.pool)?.types;
        let mut whole = sold
            .get(&planned.cheapest.instance_type)?
            .allocatable
            .clone();
        // What is asked for beyond the pods that move is there already: DaemonSets, and pods that wait.
        whole.subtract(&planned.requests);
        for pod in planned.pods.iter().filter_map(|p| pods.get(p)) {
            whole.add(&pod.requests);
        }
        let free = whole.clone();
        Some(Self { whole, free })
    }
}

/// Puts a pod where most is free, as kube-scheduler would; whether there was room.
fn place(machines: &mut [Machine], requests: &ResourceList) -> bool {
    let room = machines.iter_mut().filter(|m| requests.fits(&m.free));
    let emptiest = room.max_by(|a, b| {
        let left = |m: &Machine| -share(requests, &m.whole) - taken(m);
        left(a).total_cmp(&left(b))
    });
    match emptiest {
        Some(machine) => {
            machine.free.subtract(requests);
            true
        }
        None => false,
    }
}

/// The greatest part of any resource of a machine that is taken.
fn taken(machine: &Machine) -> f64 {
    let mut used = machine.whole.clone();
    used.subtract(&machine.free);
    share(&used, &machine.whole)
}

/// The greatest part that `some` is of any resource of `all`.
pub(super) fn share(some: &ResourceList, all: &ResourceList) -> f64 {
    let parts = some.iter().map(|(name, amount)| {
        let whole = all.get(name).nanos() as f64;
        if whole > 0.0 {
            amount.nanos() as f64 / whole
        } else {
            0.0
        }
    });
    parts.fold(0.0, f64::max)
}
