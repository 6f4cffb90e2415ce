//! Which lists and maps of a kind merge, and by what: from the schema for custom resources, from a table for built-in
//! ones (the facts are those of the published OpenAPI: `x-kubernetes-list-map-keys`, `x-kubernetes-patch-merge-key`).

use crate::crd::schema::{ListType, Schema};
use crate::ops::Target;

/// A path of field names from an object's root; elements of lists add nothing to it.
pub type FieldPath<'a> = [&'a str];

/// How a list behaves under a strategic merge patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategic {
    /// Elements are merged by this field.
    ByKey(&'static str),
    /// A set of scalars.
    Scalars,
    /// Replaced as a whole.
    Replace,
}

/// The merge structure of one resource.
#[derive(Clone, Copy)]
pub struct Structure<'a> {
    group: &'a str,
    plural: &'a str,
    schema: Option<&'a Schema>,
    custom: bool,
}

impl<'a> Structure<'a> {
    /// The structure of a request's resource, in the stored version.
    #[must_use]
    pub fn of(target: &'a Target) -> Self {
        let schema = target
            .info
            .storage_version()
            .and_then(|v| v.schema.as_ref());
        Self {
            group: &target.info.group,
            plural: &target.info.plural,
            schema: schema.map(|s| &s.root),
            custom: target.info.custom,
        }
    }

    fn node(&self, path: &FieldPath<'_>) -> Option<&'a Schema> {
        let mut node = self.schema?;
        for name in path {
            while let Some(items) = &node.items {
                node = items;
            }
            node = node.properties.get(*name).or(node.values.as_deref())?;
        }
        Some(node)
    }

    /// How the list at `path` is merged by server-side apply.
    #[must_use]
    pub fn list(&self, path: &FieldPath<'_>) -> ListType {
        if let ["metadata", below @ ..] = path {
            return match below {
                ["ownerReferences"] => ListType::Map(vec!["uid".to_owned()]),
                ["finalizers"] => ListType::Set,
                _ => ListType::Atomic,
            };
        }
        if self.custom {
            return self.node(path).map(|n| n.list.clone()).unwrap_or_default();
        }
        match self.strategic(path) {
            Strategic::Replace => ListType::Atomic,
            Strategic::Scalars => ListType::Set,
            Strategic::ByKey(key) => {
                // Apply tells some lists apart by more than the strategic merge key.
                let second = match (path.last(), key) {
                    (Some(&"ports"), _) => Some("protocol"),
                    (Some(&"topologySpreadConstraints"), _) => Some("whenUnsatisfiable"),
                    _ => None,
                };
                ListType::Map(
                    [Some(key), second]
                        .into_iter()
                        .flatten()
                        .map(str::to_owned)
                        .collect(),
                )
            }
        }
    }

    /// Whether the map at `path` is one value to server-side apply.
    #[must_use]
    pub fn map_is_atomic(&self, path: &FieldPath<'_>) -> bool {
        if path.first() == Some(&"metadata") {
            return false;
        }
        if self.custom {
            return self.node(path).is_some_and(|n| n.atomic_map);
        }
        matches!(
            path.last(),
            Some(
                &"selector"
                    | &"labelSelector"
                    | &"namespaceSelector"
                    | &"nodeSelector"
                    | &"fieldRef"
                    | &"resourceFieldRef"
                    | &"secretKeyRef"
                    | &"configMapKeyRef"
                    | &"involvedObject"
                    | &"regarding"
                    | &"related"
                    | &"claimRef"
                    | &"dataSource"
                    | &"scaleTargetRef"
                    | &"roleRef"
                    | &"requiredDuringSchedulingIgnoredDuringExecution"
            )
        )
    }

    /// How a strategic merge patch treats the list at `path`.
    #[must_use]
    pub fn strategic(&self, path: &FieldPath<'_>) -> Strategic {
        use Strategic::{ByKey, Replace, Scalars};
        let Some((last, above)) = path.split_last() else {
            return Replace;
        };
        let in_containers = || {
            matches!(
                above.last(),
                Some(&"containers" | &"initContainers" | &"ephemeralContainers")
            )
        };
        match *last {
            "ownerReferences" if above.last() == Some(&"metadata") => ByKey("uid"),
            "finalizers" if above.last() == Some(&"metadata") => Scalars,
            "containers"
            | "initContainers"
            | "ephemeralContainers"
            | "volumes"
            | "imagePullSecrets"
            | "schedulingGates"
            | "resourceClaims"
                if above.last() == Some(&"spec") =>
            {
                ByKey("name")
            }
            "env" if in_containers() => ByKey("name"),
            "ports" if in_containers() => ByKey("containerPort"),
            "volumeMounts" if in_containers() => ByKey("mountPath"),
            "volumeDevices" if in_containers() => ByKey("devicePath"),
            "hostAliases" => ByKey("ip"),
            "topologySpreadConstraints" => ByKey("topologyKey"),
            "conditions" if path.first() == Some(&"status") => ByKey("type"),
            "podIPs" | "hostIPs" if path.first() == Some(&"status") => ByKey("ip"),
            "ports" if self.is("", "services") => ByKey("port"),
            "addresses" if self.is("", "nodes") => ByKey("type"),
            "podCIDRs" if self.is("", "nodes") => Scalars,
            "secrets" if self.is("", "serviceaccounts") => ByKey("name"),
            "drivers" if self.is("storage.k8s.io", "csinodes") => ByKey("name"),
            "webhooks" if self.group == "admissionregistration.k8s.io" => ByKey("name"),
            _ => Replace,
        }
    }

    fn is(&self, group: &str, plural: &str) -> bool {
        self.group == group && self.plural == plural
    }
}
