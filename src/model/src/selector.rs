//! Label selectors of Kubernetes, read once.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Which label sets are meant: all expressions must hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    /// Sorted and free of duplicates, so that equal selectors compare equal.
    expressions: BTreeSet<Expression>,
    /// Whether nothing is meant, whatever the labels.
    nothing: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Expression {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Test {
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Exists,
    DoesNotExist,
}

impl Selector {
    /// Matches nothing.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            expressions: BTreeSet::new(),
            nothing: true,
        }
    }

    /// From the API; a selector that Kubernetes would refuse matches nothing.
    #[must_use]
    pub fn from_k8s(raw: &LabelSelector) -> Self {
        let mut expressions: BTreeSet<Expression> = raw
            .match_labels
            .iter()
            .flatten()
            .map(|(key, value)| Expression {
                key: key.clone(),
                test: Test::In(BTreeSet::from([value.clone()])),
            })
            .collect();
        for e in raw.match_expressions.iter().flatten() {
            let values: BTreeSet<String> = e.values.iter().flatten().cloned().collect();
            let test = match (e.operator.as_str(), values.is_empty()) {
                ("In", false) => Test::In(values),
                ("NotIn", false) => Test::NotIn(values),
                ("Exists", true) => Test::Exists,
                ("DoesNotExist", true) => Test::DoesNotExist,
                _ => return Self::nothing(),
            };
            expressions.insert(Expression {
                key: e.key.clone(),
                test,
            });
        }
        Self {
            expressions,
            nothing: false,
        }
    }

    /// What both match.
    #[must_use]
    pub fn and_all(mut self, other: Self) -> Self {
        self.expressions.extend(other.expressions);
        self.nothing |= other.nothing;
        self
    }

    /// The same, and `key` must have `value` (matchLabelKeys).
    #[must_use]
    pub fn and(mut self, key: &str, value: &str) -> Self {
        self.expressions.insert(Expression {
            key: key.to_owned(),
            test: Test::In(BTreeSet::from([value.to_owned()])),
        });
        self
    }

    /// The same, and `key` must not have `value` (mismatchLabelKeys).
    #[must_use]
    pub fn and_not(mut self, key: &str, value: &str) -> Self {
        self.expressions.insert(Expression {
            key: key.to_owned(),
            test: Test::NotIn(BTreeSet::from([value.to_owned()])),
        });
        self
    }

    /// A label and the one value of it that everything meant has, if the selector says so: what an index can go by.
    #[must_use]
    pub fn label(&self) -> Option<(&str, &str)> {
        self.expressions.iter().find_map(|e| match &e.test {
            Test::In(values) if values.len() == 1 => {
                Some((e.key.as_str(), values.first()?.as_str()))
            }
            _ => None,
        })
    }

    /// Whether these labels are meant.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.nothing
            && self.expressions.iter().all(|e| {
                let value = labels.get(&e.key);
                match &e.test {
                    Test::In(set) => value.is_some_and(|v| set.contains(v)),
                    Test::NotIn(set) => value.is_none_or(|v| !set.contains(v)),
                    Test::Exists => value.is_some(),
                    Test::DoesNotExist => value.is_none(),
                }
            })
    }
}
