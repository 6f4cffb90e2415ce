//! The requirement algebra of `scheduling.md` §1: sets of label values with integer bounds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What is allowed for one label key.
///
/// `complement` false: exactly `values`. `complement` true: anything but `values`, within the bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// Label key, aliases already resolved.
    pub key: Arc<str>,
    /// Whether `values` are the excluded ones.
    pub complement: bool,
    /// Included or excluded values.
    pub values: BTreeSet<Arc<str>>,
    /// Least integer allowed.
    pub gte: Option<i64>,
    /// Greatest integer allowed.
    pub lte: Option<i64>,
    /// Least number of distinct values among the instance types left.
    pub min_values: Option<i64>,
}

/// Requirements by key. A missing key allows anything (`Exists`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requirements {
    /// By label key.
    pub map: BTreeMap<Arc<str>, Requirement>,
}
