//! What the server serves: the built-in resources and those that CustomResourceDefinitions add.

pub mod builtin;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::crd::{Column, CrdSchema};
use crate::error::ApiError;
use crate::events;

/// Where a custom resource keeps what its scale subresource shows. Paths are JSON pointers' segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    /// Desired replicas, such as `["spec", "replicas"]`.
    pub spec: Vec<String>,
    /// Observed replicas.
    pub status: Vec<String>,
    /// The serialised selector, if there is one.
    pub selector: Option<Vec<String>>,
}

/// How a resource changes its own `generation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// It has none.
    None,
    /// Counts changes of everything but metadata and status.
    Spec,
}

/// One served version of a resource.
#[derive(Clone, Debug)]
pub struct VersionInfo {
    /// Such as `v1`.
    pub name: String,
    /// Whether clients may use it.
    pub served: bool,
    /// Structure and rules of custom resources; none for built-in kinds.
    pub schema: Option<Arc<CrdSchema>>,
    /// Printed columns of custom resources.
    pub columns: Vec<Column>,
    /// Whether `status` is written apart.
    pub status: bool,
    /// The scale subresource, if there is one.
    pub scale: Option<ScalePaths>,
    /// What clients are warned of who use a deprecated version.
    pub deprecation: Option<String>,
    /// Fields that a definition lets lists be selected by, such as `spec.color`.
    pub selectable: Vec<String>,
}

/// One resource.
#[derive(Clone, Debug)]
pub struct ResourceInfo {
    /// API group, empty for core.
    pub group: String,
    /// Plural.
    pub plural: String,
    /// Singular.
    pub singular: String,
    /// Kind.
    pub kind: String,
    /// Kind of lists.
    pub list_kind: String,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Short names.
    pub short_names: Vec<String>,
    /// Categories, such as `all`.
    pub categories: Vec<String>,
    /// Subresources other than `status` and `scale`.
    pub extra: &'static [&'static str],
    /// Versions; the first is preferred.
    pub versions: Vec<VersionInfo>,
    /// Index of the version that is stored.
    pub storage: usize,
    /// Generation rule.
    pub generation: Generation,
    /// Whether a definition (CRD) made it.
    pub custom: bool,
    /// Whether its definition is on its way out.
    pub terminating: bool,
    /// Only `create` works (reviews, bindings).
    pub create_only: bool,
}

impl ResourceInfo {
    /// `plural.group`, the store's key (`pods.` for core).
    #[must_use]
    pub fn key(&self) -> String {
        // Events are the same ones in both of their groups.
        let group = if events::is_new(self) {
            ""
        } else {
            &self.group
        };
        key_of(group, &self.plural)
    }

    /// `plural` or `plural.group`, as messages name it.
    #[must_use]
    pub fn qualified(&self) -> String {
        crate::error::qualified(&self.group, &self.plural)
    }

    /// `group/version` or `version`.
    #[must_use]
    pub fn api_version(&self, version: &str) -> String {
        if self.group.is_empty() {
            version.to_owned()
        } else {
            format!("{}/{version}", self.group)
        }
    }

    /// The stored version.
    #[must_use]
    pub fn storage_version(&self) -> Option<&VersionInfo> {
        self.versions.get(self.storage)
    }

    /// A served version by name.
    #[must_use]
    pub fn served(&self, version: &str) -> Option<&VersionInfo> {
        self.versions.iter().find(|v| v.served && v.name == version)
    }

    /// Whether this is the built-in resource `group`/`plural`.
    #[must_use]
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.group == group && self.plural == plural
    }

    /// Whether a PUT of an object that is not there creates it, as the real server's registries have it.
    #[must_use]
    pub fn put_creates(&self) -> bool {
        matches!(
            (self.group.as_str(), self.plural.as_str()),
            ("", "endpoints" | "events" | "limitranges" | "services")
                | (events::GROUP, "events")
                | ("coordination.k8s.io", "leases")
                | ("rbac.authorization.k8s.io", _)
        )
    }

    /// Whether a PUT must say which version it replaces.
    #[must_use]
    pub fn put_needs_version(&self) -> bool {
        self.custom
            || matches!(
                (self.group.as_str(), self.plural.as_str()),
                ("coordination.k8s.io", "leases")
                    | ("policy", "poddisruptionbudgets")
                    | ("node.k8s.io", "runtimeclasses")
                    | ("admissionregistration.k8s.io" | "apiextensions.k8s.io", _)
                    | (
                        "storage.k8s.io",
                        "csinodes" | "csidrivers" | "csistoragecapacities" | "volumeattachments"
                    )
            )
    }

    /// Subresources of a version, in discovery order.
    #[must_use]
    pub fn subresources(&self, version: &VersionInfo) -> Vec<&'static str> {
        let mut all: Vec<&'static str> = self.extra.to_vec();
        if version.scale.is_some() {
            all.push("scale");
        }
        if version.status {
            all.push("status");
        }
        all
    }
}

/// The store's key of a resource.
#[must_use]
pub fn key_of(group: &str, plural: &str) -> String {
    format!("{plural}.{group}")
}

/// All resources, by `(group, plural)`.
pub struct Registry {
    resources: BTreeMap<String, BTreeMap<String, Arc<ResourceInfo>>>,
    /// Counts definitions added, changed and removed, so that derived documents can be cached.
    revision: u64,
}

impl Default for Registry {
    fn default() -> Self {
        let mut registry = Self {
            resources: BTreeMap::new(),
            revision: 0,
        };
        for info in builtin::all() {
            registry.insert(info);
        }
        registry
    }
}

impl Registry {
    /// A resource.
    #[must_use]
    pub fn get(&self, group: &str, plural: &str) -> Option<&Arc<ResourceInfo>> {
        self.resources.get(group)?.get(plural)
    }

    /// A resource by kind.
    #[must_use]
    pub fn by_kind(&self, group: &str, kind: &str) -> Option<&Arc<ResourceInfo>> {
        self.resources
            .get(group)?
            .values()
            .find(|r| r.kind == kind && !r.create_only)
    }

    /// Whether a group is one of Kubernetes' own.
    #[must_use]
    pub fn is_own_group(&self, group: &str) -> bool {
        self.resources
            .get(group)
            .is_some_and(|r| r.values().any(|info| !info.custom))
    }

    /// What is said of a resource of a group that is not served: what is in none of Kubernetes' own groups is left to
    /// whoever serves definitions, and it knows no such page.
    #[must_use]
    pub fn unserved(&self, group: &str) -> ApiError {
        if self.is_own_group(group) {
            ApiError::no_such_resource()
        } else {
            ApiError::no_such_page()
        }
    }

    /// Adds or replaces a resource.
    pub fn insert(&mut self, info: ResourceInfo) {
        self.revision += 1;
        self.resources
            .entry(info.group.clone())
            .or_default()
            .insert(info.plural.clone(), Arc::new(info));
    }

    /// Removes a resource.
    pub fn remove(&mut self, group: &str, plural: &str) {
        self.revision += 1;
        if let Some(of_group) = self.resources.get_mut(group) {
            of_group.remove(plural);
            if of_group.is_empty() {
                self.resources.remove(group);
            }
        }
    }

    /// Counts changes of the registry.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// All groups with their resources, sorted.
    pub fn groups(&self) -> impl Iterator<Item = (&str, &BTreeMap<String, Arc<ResourceInfo>>)> {
        self.resources.iter().map(|(g, r)| (g.as_str(), r))
    }

    /// Served versions of a group, newest first as the resources list them.
    #[must_use]
    pub fn versions(&self, group: &str) -> Vec<String> {
        let mut versions: Vec<String> = Vec::new();
        for info in self
            .resources
            .get(group)
            .into_iter()
            .flat_map(BTreeMap::values)
        {
            for v in info.versions.iter().filter(|v| v.served) {
                if !versions.contains(&v.name) {
                    versions.push(v.name.clone());
                }
            }
        }
        versions.sort_by_key(|v| std::cmp::Reverse(version_rank(v)));
        versions
    }
}

/// Kubernetes' order of version names: GA over beta over alpha, then higher numbers first; others last by name.
#[must_use]
pub fn version_rank(version: &str) -> (u8, u32, u32, std::cmp::Reverse<String>) {
    let name = std::cmp::Reverse(version.to_owned());
    let Some(rest) = version.strip_prefix('v') else {
        return (0, 0, 0, name);
    };
    let digits = |s: &str| s.parse::<u32>().ok();
    if let Some(major) = digits(rest) {
        return (3, major, 0, name);
    }
    for (tag, rank) in [("beta", 2), ("alpha", 1)] {
        if let Some((major, minor)) = rest.split_once(tag)
            && let (Some(major), Some(minor)) = (digits(major), digits(minor))
        {
            return (rank, major, minor, name);
        }
    }
    (0, 0, 0, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_the_api_orders_them() {
        let mut versions = vec!["v1alpha1", "v2", "foo", "v1", "v1beta2", "v1beta1", "v11"];
        versions.sort_by_key(|v| std::cmp::Reverse(version_rank(v)));
        assert_eq!(
            versions,
            ["v11", "v2", "v1", "v1beta2", "v1beta1", "v1alpha1", "foo"]
        );
    }

    #[test]
    fn built_in_resources_are_found_by_plural_and_by_kind() {
        let registry = Registry::default();
        let pods = registry.get("", "pods").unwrap();
        assert_eq!((pods.kind.as_str(), pods.namespaced), ("Pod", true));
        assert_eq!(pods.key(), "pods.");
        assert!(pods.extra.contains(&"eviction"));
        assert_eq!(
            registry.by_kind("apps", "Deployment").unwrap().plural,
            "deployments"
        );
        assert!(registry.get("apps", "pods").is_none());
    }
}
