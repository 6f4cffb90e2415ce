//! A problem and the plan that is to be judged, with what is looked up by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use karpenter_model::plan::PlannedNode;
use karpenter_model::{
    InstanceType, NodeView, Offering, Plan, Pod, PodKey, PoolView, Problem, Requirement,
};

use crate::labels::{Bought, Labelled, allows, forbids};

/// What is judged.
pub(crate) struct Case<'a> {
    pub(crate) problem: &'a Problem,
    pub(crate) plan: &'a Plan,
    pub(crate) pods: BTreeMap<&'a PodKey, &'a Arc<Pod>>,
    pub(crate) nodes: BTreeMap<&'a str, &'a Arc<NodeView>>,
    pub(crate) pools: BTreeMap<&'a str, &'a Arc<PoolView>>,
    /// Machines to be bought, those of unknown pools left out.
    pub(crate) purchases: Vec<Purchase<'a>>,
}

/// A machine to be bought.
pub(crate) struct Purchase<'a> {
    /// How findings call it.
    pub(crate) what: String,
    pub(crate) node: &'a PlannedNode,
    pub(crate) pool: &'a PoolView,
    /// What the claim lists of what the pool sells, in the claim's order.
    pub(crate) sold: Vec<Sold<'a>>,
}

/// An instance type that a claim lists.
pub(crate) struct Sold<'a> {
    pub(crate) instance_type: &'a Arc<InstanceType>,
    /// The available offerings that the claim allows.
    pub(crate) offers: Vec<&'a Offering>,
}

impl<'a> Case<'a> {
    pub(crate) fn new(problem: &'a Problem, plan: &'a Plan) -> Self {
        let pools: BTreeMap<&str, &Arc<PoolView>> =
            problem.pools.iter().map(|p| (p.name.as_ref(), p)).collect();
        let mut types: BTreeMap<&str, BTreeMap<&str, &Arc<InstanceType>>> = BTreeMap::new();
        let mut purchases = Vec::new();
        for (index, node) in plan.new_nodes.iter().enumerate() {
            let Some(pool) = pools.get(node.pool.as_ref()) else {
                continue;
            };
            let by_name = types.entry(&node.pool).or_insert_with(|| {
                // Of several of a name it is the first.
                let all = pool.instance_types.iter().rev();
                all.map(|t| (t.name.as_ref(), t)).collect()
            });
            let listed = node.instance_types.iter();
            let sold = listed.filter_map(|name| by_name.get(name.as_ref()).copied());
            purchases.push(Purchase {
                what: format!("new node {index} of pool {}", node.pool),
                node,
                pool,
                sold: sold
                    .map(|instance_type| Sold {
                        instance_type,
                        offers: offers(&node.requirements.map, instance_type),
                    })
                    .collect(),
            });
        }
        Self {
            problem,
            plan,
            pods: problem.pods.iter().map(|p| (&p.key, p)).collect(),
            nodes: problem.nodes.iter().map(|n| (n.name.as_ref(), n)).collect(),
            pools,
            purchases,
        }
    }

    /// The pods among `keys` that there are.
    pub(crate) fn pods_of(&self, keys: &'a [PodKey]) -> Vec<&'a Arc<Pod>> {
        keys.iter()
            .filter_map(|k| self.pods.get(k).copied())
            .collect()
    }
}

impl<'a> Purchase<'a> {
    /// The nodes that may come of buying a listed type.
    pub(crate) fn nodes<'b>(&'b self, sold: &'b Sold<'a>) -> impl Iterator<Item = Bought<'a>> + 'b {
        sold.offers.iter().map(|offering| Bought {
            labels: &self.pool.labels,
            requirements: &self.node.requirements.map,
            instance_type: sold.instance_type,
            offering,
        })
    }
}

/// What can be bought: every available offering of the type that the claim allows.
pub(crate) fn offers<'a>(
    requirements: &BTreeMap<Arc<str>, Requirement>,
    instance_type: &'a InstanceType,
) -> Vec<&'a Offering> {
    let type_allows = requirements
        .iter()
        .all(|(key, want)| meets(want, instance_type.requirements.map.get(key)));
    if !type_allows {
        return Vec::new();
    }
    instance_type
        .offerings
        .iter()
        .filter(|o| {
            o.available
                && requirements
                    .iter()
                    .all(|(key, want)| meets(want, o.requirements.map.get(key)))
        })
        .collect()
}

/// Whether what is sold (`have`; none = it says nothing about the key) can be what is wanted.
fn meets(want: &Requirement, have: Option<&Requirement>) -> bool {
    let Some(have) = have else { return true };
    if forbids(have) {
        return want.complement
            && !want.values.is_empty()
            && want.gte.is_none()
            && want.lte.is_none()
            || forbids(want);
    }
    if have.complement {
        return !forbids(want);
    }
    have.values.iter().any(|v| allows(want, v)) || forbids(have)
}

/// The zone of a node, for findings.
pub(crate) fn zone(node: &impl Labelled) -> String {
    let zone = node.label(karpenter_api::labels::ZONE).flatten();
    zone.unwrap_or("some zone").to_owned()
}
