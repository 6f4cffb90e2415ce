//! What a rule counts on the nodes of a cluster, none of them gone and nothing planned: worked out once for all questions
//! about the cluster, each of which takes off what is gone in it.

use std::sync::Arc;

use karpenter_model::{Problem, Requirements};
use smallvec::SmallVec;

use super::{Heeded, Over, change};
use crate::class::Class;
use crate::cluster::Cluster;
use crate::rooms::Bits;
use crate::rules::{Demand, Rule, Who};
use crate::topology::Topology;

/// What of a class decides which nodes' domains count for one of its spreads: what it requires of their labels, its
/// tolerations, as text, if taints matter, and the labels that nodes need for its other spreads.
type Filter = Option<(Vec<Requirements>, Option<String>, Vec<Arc<str>>)>;

/// What of a rule has to be the same for two to share their counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Same {
    key: Arc<str>,
    who: Who,
    demand: Demand,
    required: bool,
    filter: Filter,
}

impl Same {
    /// That of a rule of a class.
    pub(super) fn of(class: &Class, rule: &Rule) -> Self {
        Self {
            key: rule.key.clone(),
            who: rule.who.clone(),
            demand: rule.demand,
            required: rule.required,
            filter: filter(class, rule),
        }
    }

    /// What makes a node or a machine count; none: all do.
    pub(super) fn heeded(&self, class: &Class) -> Option<Heeded> {
        let (required, tolerations, labels) = self.filter.as_ref()?;
        Some(Heeded {
            required: required.clone(),
            tolerations: tolerations.as_ref().map(|_| class.tolerations.clone()),
            labels: labels.clone(),
        })
    }
}

fn filter(class: &Class, rule: &Rule) -> Filter {
    let Demand::Spread {
        honor_affinity,
        honor_taints,
        ..
    } = rule.demand
    else {
        return None;
    };
    let affinity = honor_affinity && class.required.iter().any(|r| !r.is_empty());
    // As kube-scheduler: a node without the label of one spread that must hold is none for the others either.
    let others = class.rules.iter().filter(|r| {
        let is_spread = matches!(r.demand, Demand::Spread { .. });
        is_spread && r.required && rule.required && r.key != rule.key && !r.is_by_host()
    });
    let mut labels: Vec<Arc<str>> = others.map(|r| Arc::clone(&r.key)).collect();
    labels.sort();
    labels.dedup();
    (affinity || honor_taints || !labels.is_empty()).then(|| {
        let required = if affinity {
            class.required.clone()
        } else {
            Vec::new()
        };
        let tolerations = honor_taints.then(|| format!("{:?}", class.tolerations));
        (required, tolerations, labels)
    })
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    /// Pods that are meant, by domain, or by place that stands for a host.
    pub(super) counts: Vec<usize>,
    /// All of them.
    pub(super) total: usize,
    /// Nodes that do not count.
    pub(super) passed_over: Bits,
    /// Nodes that do, by domain.
    pub(super) nodes: Vec<usize>,
    /// Places where at least so many are, for the numbers that decide.
    pub(super) reached: SmallVec<[(usize, Bits); 2]>,
}

/// What is counted on.
pub(super) struct Counting<'a> {
    pub(super) problem: &'a Problem,
    pub(super) cluster: &'a Cluster,
    pub(super) topology: &'a Topology<'a>,
}

impl Counting<'_> {
    /// Counts for a rule of a class.
    pub(super) fn counted(&self, class: &Class, rule: &Rule, same: &Same, over: Over) -> Counted {
        let mut out = Counted {
            passed_over: self.passed_over(class, same),
            ..Counted::default()
        };
        if let Over::Key(key) = over
            && let Some(domains) = self.topology.of_nodes(key)
        {
            out.nodes = domains.left(&out.passed_over);
        }
        let kinds = self.cluster.meant(&rule.who, self.problem.options.threads);
        for kind in kinds.filter(|kind| rule.counts(&kind.example)) {
            for (place, n) in &kind.at {
                let position = match over {
                    Over::Hosts => Some(self.topology.host(*place)),
                    Over::Key(key) => self.topology.domain(key, *place),
                };
                let counts = !out.passed_over.has(*place);
                if let Some(position) = position.filter(|_| counts) {
                    change(&mut out.counts, position, |count| *count += n);
                    out.total += n;
                }
            }
        }
        let deciding: SmallVec<[usize; 2]> = match rule.demand {
            Demand::Spread { max_skew, .. } => {
                SmallVec::from_slice(&[max_skew, max_skew.saturating_add(1)])
            }
            Demand::Together | Demand::Apart => SmallVec::from_slice(&[1]),
        };
        let reached = deciding.into_iter().map(|least| {
            let mut bits = Bits::default();
            if over == Over::Hosts {
                let hosts = out.counts.iter().enumerate();
                for (host, _) in hosts.filter(|(_, n)| **n >= least.max(1)) {
                    for place in self.topology.places_of_host(host) {
                        bits.set(place, true);
                    }
                }
            }
            (least, bits)
        });
        out.reached = reached.collect();
        out
    }

    /// Nodes that do not count for a rule of the class.
    fn passed_over(&self, class: &Class, same: &Same) -> Bits {
        let mut bits = Bits::default();
        let Some(heeded) = same.heeded(class) else {
            return bits;
        };
        for (place, node) in self.cluster.nodes.iter().enumerate() {
            bits.set(place, !heeded.has(node, &self.problem.labels));
        }
        bits
    }
}
