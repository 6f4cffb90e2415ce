//! Which label keys mean something to scheduling. The core has its own; each provider adds to them at start-up.

use std::collections::{BTreeMap, BTreeSet};

/// Well-known and restricted label keys, aliases, and keys with a closed set of values.
#[derive(Clone, Debug)]
pub struct LabelRegistry {
    /// Keys that an instance type or offering may define without the NodePool naming them.
    pub well_known: BTreeSet<String>,
    /// Domains (and their subdomains) in which users may set no key but a well-known one.
    pub restricted_domains: BTreeSet<String>,
    /// Single keys that users may not set.
    pub restricted_keys: BTreeSet<String>,
    /// Alias key to the key it stands for.
    pub aliases: BTreeMap<String, String>,
    /// Keys whose values are a closed set.
    pub known_values: BTreeMap<String, BTreeSet<String>>,
    /// Resources that the provider tells of its machines: NodeOverlays may not speak of them.
    pub native_resources: BTreeSet<String>,
    /// The key by which reserved offerings, and claims that are bought out of a reservation, name it.
    pub reservation_id: Option<String>,
}

impl Default for LabelRegistry {
    fn default() -> Self {
        use karpenter_api::labels as l;
        Self {
            well_known: l::WELL_KNOWN.iter().map(|s| (*s).to_owned()).collect(),
            restricted_domains: BTreeSet::from([l::GROUP.to_owned()]),
            restricted_keys: BTreeSet::from([l::HOSTNAME.to_owned()]),
            aliases: l::ALIASES
                .iter()
                .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
                .collect(),
            known_values: BTreeMap::from([(
                l::CAPACITY_TYPE.to_owned(),
                [
                    l::CAPACITY_ON_DEMAND,
                    l::CAPACITY_SPOT,
                    l::CAPACITY_RESERVED,
                ]
                .iter()
                .map(|s| (*s).to_owned())
                .collect(),
            )]),
            native_resources: crate::overlay::NATIVE_RESOURCES.map(str::to_owned).into(),
            reservation_id: None,
        }
    }
}

impl LabelRegistry {
    /// The key that `key` stands for.
    #[must_use]
    pub fn normalize<'a>(&'a self, key: &'a str) -> &'a str {
        self.aliases.get(key).map_or(key, String::as_str)
    }
    /// Whether `key` is well known.
    #[must_use]
    pub fn is_well_known(&self, key: &str) -> bool {
        self.well_known.contains(key)
    }
    /// Whether users may not put `key` into a template, a requirement or a selector.
    #[must_use]
    pub fn is_restricted(&self, key: &str) -> bool {
        if self.is_well_known(key) {
            return false;
        }
        let domain = key.split_once('/').map_or("", |(d, _)| d);
        self.restricted_keys.contains(key)
            || self.restricted_domains.iter().any(|r| {
                domain == r
                    || domain
                        .strip_suffix(r.as_str())
                        .is_some_and(|rest| rest.ends_with('.'))
            })
    }
}

impl karpenter_api::validation::LabelRules for LabelRegistry {
    fn normalize<'a>(&'a self, key: &'a str) -> &'a str {
        Self::normalize(self, key)
    }
    fn is_restricted(&self, key: &str) -> bool {
        Self::is_restricted(self, key)
    }
    fn known_values(&self, key: &str) -> Option<&BTreeSet<String>> {
        self.known_values.get(key)
    }
}
