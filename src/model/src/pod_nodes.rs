//! Where a pod's node selector and node affinity let it go (`scheduling.md` §1.4), and which of them no plan
//! can serve (§6.2).

use std::sync::Arc;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};
use karpenter_api::labels::NODEPOOL;

use crate::requirement::RequirementError;
use crate::storage::StorageRefusal;
use crate::{LabelRegistry, Pod, Requirement, Requirements};

/// The node requirements of a pod, all alternatives laid out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeDemands {
    /// One for each required affinity term (they are ORed), the node selector folded into each; the selector
    /// alone when there are no terms. Empty when terms are there and none can match anything.
    pub alternatives: Vec<Requirements>,
    /// Preferred terms, heaviest first, ties in the order written.
    pub preferred: Vec<(i32, Requirements)>,
}

/// Why a pod cannot be planned for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PodRefusal {
    /// The pod asks for nodes of no NodePool.
    #[error("it asks for nodes that no NodePool owns ({NODEPOOL} DoesNotExist)")]
    OptedOut,
    /// Something could not be read.
    #[error("{0}")]
    Invalid(Arc<str>),
    /// A selector or affinity term is no requirement.
    #[error(transparent)]
    Requirement(#[from] RequirementError),
    /// Fields of nodes are asked for.
    #[error("node affinity uses matchFields, which no node yet to be bought can meet")]
    MatchFields,
    /// A key users may not ask for.
    #[error("label {key} is restricted: pods may not select nodes by it")]
    RestrictedLabel {
        /// The key.
        key: Arc<str>,
    },
    /// An operator that NodePools have and kube-scheduler has not.
    #[error(
        "requirement {key}: operator {operator:?} is unknown to kube-scheduler; expected one of In, NotIn, Exists, DoesNotExist, Gt, Lt"
    )]
    Operator {
        /// Label key.
        key: String,
        /// The operator as written.
        operator: String,
    },
    /// A bound below zero.
    #[error("requirement {key}: operator {operator} takes an integer of at least 0, got {value}")]
    NegativeBound {
        /// Label key.
        key: String,
        /// Operator.
        operator: String,
        /// The bound.
        value: String,
    },
    /// No value that the key can ever have.
    #[error(
        "requirement {key}: none of {values:?} is a value of this label; expected one of {known:?}"
    )]
    UnknownValue {
        /// Label key.
        key: String,
        /// What is asked.
        values: Vec<String>,
        /// What there is.
        known: Vec<String>,
    },
    /// A PersistentVolumeClaim of it is in the way.
    #[error(transparent)]
    Storage(#[from] StorageRefusal),
    /// Required terms that match nothing.
    #[error("its required node affinity has no term that matches any node")]
    NoTerm,
}

impl Pod {
    /// Required node affinity terms as written.
    #[must_use]
    pub fn required_node_terms(&self) -> Option<&[NodeSelectorTerm]> {
        let node = self.affinity.as_ref()?.node_affinity.as_ref()?;
        node.required_during_scheduling_ignored_during_execution
            .as_ref()
            .map(|selector| selector.node_selector_terms.as_slice())
    }

    /// Its node requirements. `matchFields` are passed over, as they are for DaemonSet pods, which their
    /// controller pins to a node by name; [`Pod::refusal`] rejects other pods that have them.
    ///
    /// # Errors
    /// The first expression that is no requirement.
    pub fn node_demands(&self, labels: &LabelRegistry) -> Result<NodeDemands, RequirementError> {
        let selector = Requirements::from_labels(&self.node_selector, labels);
        let with = |term: &NodeSelectorTerm, mut base: Requirements| {
            for expression in term.match_expressions.iter().flatten() {
                base.add(Requirement::from_selector(expression, labels)?);
            }
            Ok::<_, RequirementError>(base)
        };
        let alternatives = match self.required_node_terms() {
            None => vec![selector],
            // Kubernetes: a term that states nothing matches nothing.
            Some(terms) => terms
                .iter()
                .filter(|t| {
                    states(t.match_expressions.as_deref()) || states(t.match_fields.as_deref())
                })
                .map(|t| with(t, selector.clone()))
                .collect::<Result<_, _>>()?,
        };
        let node = self
            .affinity
            .as_ref()
            .and_then(|a| a.node_affinity.as_ref());
        let mut preferred = node
            .and_then(|n| {
                n.preferred_during_scheduling_ignored_during_execution
                    .as_deref()
            })
            .unwrap_or_default()
            .iter()
            .map(|t| Ok((t.weight, with(&t.preference, Requirements::new())?)))
            .collect::<Result<Vec<_>, RequirementError>>()?;
        preferred.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
        Ok(NodeDemands {
            alternatives,
            preferred,
        })
    }

    /// Why no plan may be made for this pod, if so (`scheduling.md` §6.2; volumes as far as they
    /// were looked up).
    #[must_use]
    pub fn refusal(&self, labels: &LabelRegistry) -> Option<PodRefusal> {
        self.check(labels).err()
    }

    fn check(&self, labels: &LabelRegistry) -> Result<(), PodRefusal> {
        if let Some(reason) = &self.invalid {
            return Err(PodRefusal::Invalid(reason.clone()));
        }
        let demands = self.node_demands(labels)?;
        if self.opts_out(labels) {
            return Err(PodRefusal::OptedOut);
        }
        for key in self.node_selector.keys() {
            check_key(key, labels)?;
        }
        for term in self.required_node_terms().into_iter().flatten() {
            if states(term.match_fields.as_deref()) {
                return Err(PodRefusal::MatchFields);
            }
            for expression in term.match_expressions.iter().flatten() {
                check_expression(expression, labels)?;
            }
        }
        for (key, value) in &self.node_selector {
            check_known(labels.normalize(key), std::slice::from_ref(value), labels)?;
        }
        if demands.alternatives.is_empty() {
            return Err(PodRefusal::NoTerm);
        }
        match self.storage.as_deref().and_then(|s| s.refusal.clone()) {
            Some(refusal) => Err(refusal.into()),
            None => Ok(()),
        }
    }

    /// Whether each of its required terms asks for nodes of no NodePool, as written: a contradiction of two pool names
    /// says something else. What it merely prefers is a wish, which nobody waits for.
    fn opts_out(&self, labels: &LabelRegistry) -> bool {
        let opts_out = |term: &NodeSelectorTerm| {
            let mut written = term.match_expressions.iter().flatten();
            written.any(|e| labels.normalize(&e.key) == NODEPOOL && e.operator == "DoesNotExist")
        };
        // A term that states nothing matches nothing.
        let states_something = |t: &&NodeSelectorTerm| {
            states(t.match_expressions.as_deref()) || states(t.match_fields.as_deref())
        };
        let terms = self.required_node_terms().into_iter().flatten();
        let mut telling = terms.filter(states_something).peekable();
        telling.peek().is_some() && telling.all(opts_out)
    }
}

fn states(list: Option<&[NodeSelectorRequirement]>) -> bool {
    list.is_some_and(|l| !l.is_empty())
}

fn check_key(key: &str, labels: &LabelRegistry) -> Result<(), PodRefusal> {
    if labels.is_restricted(labels.normalize(key)) {
        return Err(PodRefusal::RestrictedLabel { key: key.into() });
    }
    Ok(())
}

fn check_expression(
    expression: &NodeSelectorRequirement,
    labels: &LabelRegistry,
) -> Result<(), PodRefusal> {
    check_key(&expression.key, labels)?;
    let values = expression.values.as_deref().unwrap_or_default();
    match expression.operator.as_str() {
        "Gte" | "Lte" => Err(PodRefusal::Operator {
            key: expression.key.clone(),
            operator: expression.operator.clone(),
        }),
        "Gt" | "Lt" => match values.first() {
            Some(value) if value.parse::<i64>().is_ok_and(|n| n < 0) => {
                Err(PodRefusal::NegativeBound {
                    key: expression.key.clone(),
                    operator: expression.operator.clone(),
                    value: value.clone(),
                })
            }
            _ => Ok(()),
        },
        "In" => check_known(labels.normalize(&expression.key), values, labels),
        _ => Ok(()),
    }
}

fn check_known(key: &str, values: &[String], labels: &LabelRegistry) -> Result<(), PodRefusal> {
    match labels.known_values.get(key) {
        Some(known) if !values.iter().any(|v| known.contains(v)) => Err(PodRefusal::UnknownValue {
            key: key.to_owned(),
            values: values.to_vec(),
            known: known.iter().cloned().collect(),
        }),
        _ => Ok(()),
    }
}
