//! The requirement algebra of `scheduling.md` §1 for one label key: a set of values, or all but a set, with
//! integer bounds.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::NodeSelectorRequirement;
use karpenter_api::kinds::RequirementSpec;

use crate::LabelRegistry;
pub use crate::requirements::{Incompatible, Requirements, Undefined};

/// Values printed by the text form before the rest is only counted.
const MAX_PRINTED_VALUES: usize = 5;

/// What is allowed for one label key.
///
/// `complement` false: exactly `values`. `complement` true: anything but `values`, within the bounds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// Whether the label has to be there. What is merged of `Exists` and `NotIn`, or of lists that have nothing in common,
    /// does not say so by its values (upstream takes these for a label that may be missing; kube-scheduler, which
    /// looks at each expression by itself, does not).
    pub present: bool,
}

/// How a requirement is written in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// One of the values.
    In,
    /// None of the values; a missing label is fine.
    NotIn,
    /// Any value.
    Exists,
    /// No value.
    DoesNotExist,
    /// An integer greater than the value.
    Gt,
    /// An integer less than the value.
    Lt,
    /// An integer greater than or equal to the value.
    Gte,
    /// An integer less than or equal to the value.
    Lte,
}

impl Operator {
    /// The name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::In => "In",
            Self::NotIn => "NotIn",
            Self::Exists => "Exists",
            Self::DoesNotExist => "DoesNotExist",
            Self::Gt => "Gt",
            Self::Lt => "Lt",
            Self::Gte => "Gte",
            Self::Lte => "Lte",
        }
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Operator {
    type Err = ();
    fn from_str(s: &str) -> Result<Self, ()> {
        Ok(match s {
            "In" => Self::In,
            "NotIn" => Self::NotIn,
            "Exists" => Self::Exists,
            "DoesNotExist" => Self::DoesNotExist,
            "Gt" => Self::Gt,
            "Lt" => Self::Lt,
            "Gte" => Self::Gte,
            "Lte" => Self::Lte,
            _ => return Err(()),
        })
    }
}

/// Why something written as a requirement is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequirementError {
    /// The operator is not one of the eight.
    #[error(
        "requirement {key}: operator {operator:?} is unknown; expected one of In, NotIn, Exists, DoesNotExist, Gt, Lt, Gte, Lte"
    )]
    UnknownOperator {
        /// Label key.
        key: String,
        /// The operator as written.
        operator: String,
    },
    /// The number of values does not suit the operator.
    #[error("requirement {key}: operator {operator} takes {expected}, got {got:?}")]
    ValueCount {
        /// Label key.
        key: String,
        /// Operator.
        operator: Operator,
        /// What it takes.
        expected: &'static str,
        /// What was written.
        got: Vec<String>,
    },
    /// A bound is not an integer.
    #[error("requirement {key}: operator {operator} takes an integer, got {value:?}")]
    NotAnInteger {
        /// Label key.
        key: String,
        /// Operator.
        operator: Operator,
        /// The value as written.
        value: String,
    },
}

impl Requirement {
    /// A requirement as the API writes it; `key` must be free of aliases ([`LabelRegistry::normalize`]).
    ///
    /// # Errors
    /// When the values do not suit the operator.
    pub fn new<V: AsRef<str>>(
        key: impl Into<Arc<str>>,
        operator: Operator,
        values: impl IntoIterator<Item = V>,
    ) -> Result<Self, RequirementError> {
        let key = key.into();
        let values: BTreeSet<Arc<str>> =
            values.into_iter().map(|v| Arc::from(v.as_ref())).collect();
        let count = |expected| RequirementError::ValueCount {
            key: key.to_string(),
            operator,
            expected,
            got: values.iter().map(ToString::to_string).collect(),
        };
        match operator {
            Operator::In if values.is_empty() => return Err(count("at least one value")),
            Operator::In => {
                return Ok(Self {
                    values,
                    present: true,
                    ..Self::does_not_exist(key)
                });
            }
            Operator::NotIn => {
                return Ok(Self {
                    values,
                    present: false,
                    ..Self::exists(key)
                });
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                return Err(count("no values"));
            }
            Operator::Exists => return Ok(Self::exists(key)),
            Operator::DoesNotExist => return Ok(Self::does_not_exist(key)),
            Operator::Gt | Operator::Lt | Operator::Gte | Operator::Lte => {}
        }
        let mut it = values.iter();
        let (Some(text), None) = (it.next(), it.next()) else {
            return Err(count("exactly one integer"));
        };
        let Some(bound) = parse_integer(text) else {
            return Err(RequirementError::NotAnInteger {
                key: key.to_string(),
                operator,
                value: text.to_string(),
            });
        };
        // Past the end of the integers nothing is left.
        let (gte, lte) = match operator {
            Operator::Gt => (bound.checked_add(1), None),
            Operator::Lt => (None, bound.checked_sub(1)),
            Operator::Gte => (Some(bound), None),
            _ => (None, Some(bound)),
        };
        if gte.is_none() && lte.is_none() {
            return Ok(Self {
                present: true,
                ..Self::does_not_exist(key)
            });
        }
        Ok(Self {
            gte,
            lte,
            ..Self::exists(key)
        })
    }

    /// Any value.
    #[must_use]
    pub fn exists(key: impl Into<Arc<str>>) -> Self {
        Self {
            complement: true,
            present: true,
            ..Self::does_not_exist(key)
        }
    }

    /// No value.
    #[must_use]
    pub fn does_not_exist(key: impl Into<Arc<str>>) -> Self {
        Self {
            key: key.into(),
            complement: false,
            values: BTreeSet::new(),
            gte: None,
            lte: None,
            min_values: None,
            present: false,
        }
    }

    /// One of `values`; none at all is `DoesNotExist`.
    #[must_use]
    pub fn is_in<V: AsRef<str>>(
        key: impl Into<Arc<str>>,
        values: impl IntoIterator<Item = V>,
    ) -> Self {
        let values: BTreeSet<Arc<str>> =
            values.into_iter().map(|v| Arc::from(v.as_ref())).collect();
        Self {
            present: !values.is_empty(),
            values,
            ..Self::does_not_exist(key)
        }
    }

    /// From an API object, the key's aliases resolved.
    ///
    /// # Errors
    /// When operator and values make no requirement.
    pub fn from_spec(
        spec: &RequirementSpec,
        labels: &LabelRegistry,
    ) -> Result<Self, RequirementError> {
        let mut r = Self::parse(&spec.key, &spec.operator, &spec.values, labels)?;
        r.min_values = spec.min_values;
        Ok(r)
    }

    /// From an expression of a node selector term, the key's aliases resolved.
    ///
    /// # Errors
    /// When operator and values make no requirement.
    pub fn from_selector(
        expression: &NodeSelectorRequirement,
        labels: &LabelRegistry,
    ) -> Result<Self, RequirementError> {
        let values = expression.values.as_deref().unwrap_or_default();
        Self::parse(&expression.key, &expression.operator, values, labels)
    }

    fn parse(
        key: &str,
        operator: &str,
        values: &[String],
        labels: &LabelRegistry,
    ) -> Result<Self, RequirementError> {
        let op = operator
            .parse()
            .map_err(|()| RequirementError::UnknownOperator {
                key: key.to_owned(),
                operator: operator.to_owned(),
            })?;
        Self::new(labels.normalize(key), op, values)
    }

    /// The operator that says what this allows, bounds left aside.
    #[must_use]
    pub fn operator(&self) -> Operator {
        match (self.complement, self.values.is_empty()) {
            (true, false) => Operator::NotIn,
            (true, true) => Operator::Exists,
            (false, false) => Operator::In,
            (false, true) => Operator::DoesNotExist,
        }
    }

    /// Whether a missing label satisfies this.
    #[must_use]
    pub fn allows_absence(&self) -> bool {
        !self.present && self.says_absence()
    }

    /// Whether its operator alone would let the label be missing.
    fn says_absence(&self) -> bool {
        matches!(self.operator(), Operator::NotIn | Operator::DoesNotExist)
    }

    /// Whether nothing is allowed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.complement && self.values.is_empty()
    }

    /// The only value allowed, if there is just one.
    #[must_use]
    pub fn single(&self) -> Option<&Arc<str>> {
        if self.complement || self.values.len() != 1 {
            return None;
        }
        self.values.first()
    }

    /// Whether `value` is allowed.
    #[must_use]
    pub fn has(&self, value: &str) -> bool {
        self.values.contains(value) != self.complement && self.within(value)
    }

    fn within(&self, value: &str) -> bool {
        if self.gte.is_none() && self.lte.is_none() {
            return true;
        }
        parse_integer(value).is_some_and(|v| {
            self.gte.is_none_or(|least| v >= least) && self.lte.is_none_or(|most| v <= most)
        })
    }

    /// What both allow. The key is that of `self`.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut out = Self {
            min_values: self.min_values.max(other.min_values),
            present: self.present || other.present,
            ..Self::does_not_exist(self.key.clone())
        };
        let gte = self.gte.max(other.gte);
        let lte = least(self.lte, other.lte);
        if crossed(gte, lte) {
            return out;
        }
        out.gte = gte;
        out.lte = lte;
        let values: BTreeSet<Arc<str>> = match (self.complement, other.complement) {
            (true, true) => self.values.union(&other.values).cloned().collect(),
            (true, false) => other.values.difference(&self.values).cloned().collect(),
            (false, true) => self.values.difference(&other.values).cloned().collect(),
            (false, false) => self.values.intersection(&other.values).cloned().collect(),
        };
        out.values = values.into_iter().filter(|v| out.within(v)).collect();
        out.complement = self.complement && other.complement;
        if !out.complement {
            out.gte = None;
            out.lte = None;
        }
        out
    }

    /// Whether [`Self::intersection`] allows anything. Two complements always do unless their bounds cross, even
    /// where the exclusions leave nothing between the bounds (upstream's quirk, kept).
    #[must_use]
    pub fn has_intersection(&self, other: &Self) -> bool {
        let gte = self.gte.max(other.gte);
        let lte = least(self.lte, other.lte);
        if crossed(gte, lte) {
            return false;
        }
        match (self.complement, other.complement) {
            (true, true) => true,
            (true, false) => other.values.iter().any(|v| self.has(v)),
            (false, true) => self.values.iter().any(|v| other.has(v)),
            (false, false) => {
                let (few, many) = if self.values.len() <= other.values.len() {
                    (self, other)
                } else {
                    (other, self)
                };
                few.values.iter().any(|v| many.values.contains(v))
            }
        }
    }

    /// One value that is allowed, always the same: the first of a list, else the lowest integer from zero up that
    /// the bounds and exclusions leave. None when nothing is.
    #[must_use]
    pub fn any(&self) -> Option<Arc<str>> {
        if !self.complement {
            return self.values.first().cloned();
        }
        let mut n = self.gte.unwrap_or(0).max(0);
        let last = self.lte.unwrap_or(i64::MAX);
        // At most one more step than there are exclusions.
        while n <= last {
            let text = n.to_string();
            if !self.values.contains(text.as_str()) {
                return Some(text.into());
            }
            n = n.checked_add(1)?;
        }
        None
    }

    /// As the API writes it: both bounds make two entries, exclusions beside bounds a further one, and so do exclusions of
    /// a label that has to be there, so that nothing is lost (upstream drops them).
    #[must_use]
    pub fn to_specs(&self) -> Vec<RequirementSpec> {
        let entry = |operator: Operator, values: Vec<String>| RequirementSpec {
            key: self.key.to_string(),
            operator: operator.as_str().to_owned(),
            values,
            min_values: self.min_values,
        };
        let bounds = [(Operator::Gte, self.gte), (Operator::Lte, self.lte)];
        let mut out: Vec<_> = bounds
            .into_iter()
            .filter_map(|(op, bound)| Some(entry(op, vec![bound?.to_string()])))
            .collect();
        let unbounded = out.is_empty();
        if unbounded && self.present && self.says_absence() {
            out.push(entry(Operator::Exists, Vec::new()));
        }
        if unbounded || !self.values.is_empty() {
            let values = self.values.iter().map(ToString::to_string).collect();
            out.push(entry(self.operator(), values));
        }
        out
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.present && self.is_empty() {
            return write!(f, "{} In [] (contradicts itself)", self.key);
        }
        write!(f, "{} {}", self.key, self.operator())?;
        if !self.values.is_empty() {
            f.write_str(" [")?;
            for (i, v) in self.values.iter().take(MAX_PRINTED_VALUES).enumerate() {
                write!(f, "{}{v}", if i == 0 { "" } else { " " })?;
            }
            match self.values.len().saturating_sub(MAX_PRINTED_VALUES) {
                0 => {}
                more => write!(f, " and {more} more")?,
            }
            f.write_str("]")?;
        }
        if let Some(n) = self.gte {
            write!(f, " >={n}")?;
        }
        if let Some(n) = self.lte {
            write!(f, " <={n}")?;
        }
        if let Some(n) = self.min_values {
            write!(f, " minValues {n}")?;
        }
        Ok(())
    }
}

/// The integer a label value stands for in a comparison. Kubernetes' parser: an optional sign and digits.
pub(crate) fn parse_integer(text: &str) -> Option<i64> {
    text.parse().ok()
}

fn least(a: Option<i64>, b: Option<i64>) -> Option<i64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

fn crossed(gte: Option<i64>, lte: Option<i64>) -> bool {
    matches!((gte, lte), (Some(least), Some(most)) if least > most)
}
