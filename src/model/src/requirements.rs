//! Requirements by key: the set that a pool, a pod, a claim, an instance type or an offering states.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use karpenter_api::kinds::RequirementSpec;
use karpenter_api::labels::HOSTNAME;

use crate::requirement::RequirementError;
use crate::{LabelRegistry, Requirement};

/// Requirements by key. A missing key allows anything (`Exists`).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirements {
    /// By label key.
    pub map: BTreeMap<Arc<str>, Requirement>,
}

/// Which keys may be asked for without the other side defining them.
#[derive(Clone, Copy, Debug)]
pub enum Undefined<'a> {
    /// None: an existing node has the labels it has.
    Refused,
    /// Well-known ones: what is bought will have some value of them.
    WellKnown(&'a LabelRegistry),
}

/// Why two sets of requirements do not go together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Incompatible {
    /// A key is asked for that the other side does not define.
    #[error("label {key} is not defined{}", .hint.as_ref().map(|h| format!(" (did you mean {h}?)")).unwrap_or_default())]
    Undefined {
        /// The key.
        key: Arc<str>,
        /// A known key that looks like it.
        hint: Option<Arc<str>>,
    },
    /// Keys whose values have nothing in common: what is there, what is asked.
    #[error("{}", .0.iter().map(|(there, asked)| format!("{asked} does not meet {there}")).collect::<Vec<_>>().join(", "))]
    Disjoint(Vec<(Requirement, Requirement)>),
}

impl Requirements {
    /// No requirements.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From what the API writes; several entries of a key are intersected.
    ///
    /// # Errors
    /// The first entry that is no requirement.
    pub fn from_specs<'a>(
        specs: impl IntoIterator<Item = &'a RequirementSpec>,
        labels: &LabelRegistry,
    ) -> Result<Self, RequirementError> {
        let mut out = Self::new();
        for spec in specs {
            out.add(Requirement::from_spec(spec, labels)?);
        }
        Ok(out)
    }

    /// Every label as `In` its value, keys' aliases resolved.
    #[must_use]
    pub fn from_labels(map: &BTreeMap<String, String>, labels: &LabelRegistry) -> Self {
        map.iter()
            .map(|(k, v)| Requirement::is_in(labels.normalize(k), [v]))
            .collect()
    }

    /// Narrows the key of `requirement` to what both allow.
    pub fn add(&mut self, requirement: Requirement) {
        match self.map.get_mut(&requirement.key) {
            Some(present) => *present = present.intersection(&requirement),
            None => {
                self.map.insert(requirement.key.clone(), requirement);
            }
        }
    }

    /// Narrows by every requirement of `other`.
    pub fn add_all(&mut self, other: &Self) {
        for r in other.iter() {
            self.add(r.clone());
        }
    }

    /// Replaces the requirement of its key.
    pub fn set(&mut self, requirement: Requirement) {
        self.map.insert(requirement.key.clone(), requirement);
    }

    /// Forgets a key.
    pub fn remove(&mut self, key: &str) -> Option<Requirement> {
        self.map.remove(key)
    }

    /// What is stated for `key`, if anything is.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Requirement> {
        self.map.get(key)
    }

    /// What holds for `key`: `Exists` when nothing is stated.
    #[must_use]
    pub fn effective(&self, key: &str) -> Cow<'_, Requirement> {
        self.get(key)
            .map_or_else(|| Cow::Owned(Requirement::exists(key)), Cow::Borrowed)
    }

    /// Whether `value` is allowed for `key`.
    #[must_use]
    pub fn allows(&self, key: &str, value: &str) -> bool {
        self.get(key).is_none_or(|r| r.has(value))
    }

    /// Whether something is stated for `key`.
    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// In key order.
    pub fn iter(&self) -> impl Iterator<Item = &Requirement> {
        self.map.values()
    }

    /// How many keys something is stated for.
    #[must_use]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether nothing is stated.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Whether a minValues is stated for any key.
    #[must_use]
    pub fn has_min_values(&self) -> bool {
        self.iter().any(|r| r.min_values.is_some())
    }

    /// Whether every key that both state has values in common, or may be absent on both sides.
    ///
    /// # Errors
    /// [`Incompatible::Disjoint`] with every key that has not.
    pub fn intersects(&self, other: &Self) -> Result<(), Incompatible> {
        let disjoint: Vec<_> = other
            .iter()
            .filter_map(|asked| Some((self.get(&asked.key)?, asked)))
            .filter(|(there, asked)| !meet(there, asked))
            .map(|(there, asked)| (there.clone(), asked.clone()))
            .collect();
        if disjoint.is_empty() {
            Ok(())
        } else {
            Err(Incompatible::Disjoint(disjoint))
        }
    }

    /// [`Self::intersects`] without the report.
    #[must_use]
    pub fn does_intersect(&self, other: &Self) -> bool {
        other
            .iter()
            .all(|asked| self.get(&asked.key).is_none_or(|there| meet(there, asked)))
    }

    /// Whether a thing described by `self` can serve `incoming`: every key that `incoming` insists on is defined
    /// (or may be undefined), and [`Self::intersects`]. Not symmetric.
    ///
    /// # Errors
    /// The first undefined key, else every disjoint one.
    pub fn compatible(
        &self,
        incoming: &Self,
        undefined: Undefined<'_>,
    ) -> Result<(), Incompatible> {
        for asked in incoming.iter() {
            if !self.defines(asked, undefined) {
                return Err(Incompatible::Undefined {
                    key: asked.key.clone(),
                    hint: self.hint(&asked.key, undefined),
                });
            }
        }
        self.intersects(incoming)
    }

    /// [`Self::compatible`] without the report.
    #[must_use]
    pub fn is_compatible(&self, incoming: &Self, undefined: Undefined<'_>) -> bool {
        incoming.iter().all(|asked| match self.get(&asked.key) {
            Some(there) => meet(there, asked),
            None => self.defines(asked, undefined),
        })
    }

    fn defines(&self, asked: &Requirement, undefined: Undefined<'_>) -> bool {
        self.contains(&asked.key)
            || asked.allows_absence()
            || matches!(undefined, Undefined::WellKnown(l) if l.is_well_known(&asked.key))
    }

    fn hint(&self, key: &str, undefined: Undefined<'_>) -> Option<Arc<str>> {
        let tail = key.rsplit('/').next().unwrap_or(key);
        let near = |known: &str| known.contains(key) || (!tail.is_empty() && known.ends_with(tail));
        let well_known = match undefined {
            Undefined::WellKnown(l) => l.well_known.iter().find(|k| near(k)),
            Undefined::Refused => None,
        };
        well_known
            .map(|k| Arc::from(k.as_str()))
            .or_else(|| self.map.keys().find(|k| near(k)).cloned())
    }

    /// As the API writes it, in key order.
    #[must_use]
    pub fn to_specs(&self) -> Vec<RequirementSpec> {
        self.iter().flat_map(Requirement::to_specs).collect()
    }
}

/// Whether two requirements of a key go together.
fn meet(there: &Requirement, asked: &Requirement) -> bool {
    there.has_intersection(asked) || (there.allows_absence() && asked.allows_absence())
}

impl FromIterator<Requirement> for Requirements {
    fn from_iter<T: IntoIterator<Item = Requirement>>(iter: T) -> Self {
        let mut out = Self::new();
        for r in iter {
            out.add(r);
        }
        out
    }
}

impl fmt::Display for Requirements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.iter().filter(|r| &*r.key != HOSTNAME);
        for (i, r) in shown.enumerate() {
            write!(f, "{}{r}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
