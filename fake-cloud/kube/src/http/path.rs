//! What a request's path asks for.

use super::query::decode;

/// A request's path, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Path {
    /// `/api`.
    CoreVersions,
    /// `/apis`.
    Groups,
    /// `/apis/GROUP`.
    Group(String),
    /// `/api/v1`, `/apis/GROUP/VERSION`.
    Resources {
        /// Empty for core.
        group: String,
        /// Version.
        version: String,
    },
    /// Objects.
    Objects(ObjectPath),
    /// Anything else: `/version`, `/healthz`, `/openapi/...`.
    Other(String),
}

/// A path below a group and version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectPath {
    /// Empty for core.
    pub group: String,
    /// Version.
    pub version: String,
    /// Namespace, if the path has one.
    pub namespace: Option<String>,
    /// Plural.
    pub resource: String,
    /// Object's name, if the path has one.
    pub name: Option<String>,
    /// Subresource, if the path has one.
    pub subresource: Option<String>,
    /// Whether it is below `watch`, as old clients put it.
    pub watch: bool,
}

impl Path {
    /// Reads a path; none when it cannot be anything.
    #[must_use]
    pub fn parse(path: &str) -> Option<Self> {
        let segments: Vec<String> = path
            .split('/')
            .filter(|s| !s.is_empty())
            .map(|s| decode(s, false))
            .collect();
        let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
        let path = match parts.as_slice() {
            ["api"] => Self::CoreVersions,
            ["apis"] => Self::Groups,
            ["apis", group] => Self::Group((*group).to_owned()),
            ["api", version] => Self::Resources {
                group: String::new(),
                version: (*version).to_owned(),
            },
            ["apis", group, version] => Self::Resources {
                group: (*group).to_owned(),
                version: (*version).to_owned(),
            },
            ["api", version, rest @ ..] => Self::Objects(objects("", version, rest)?),
            ["apis", group, version, rest @ ..] => Self::Objects(objects(group, version, rest)?),
            _ => Self::Other(path.to_owned()),
        };
        Some(path)
    }
}

fn objects(group: &str, version: &str, rest: &[&str]) -> Option<ObjectPath> {
    let mut path = ObjectPath {
        group: group.to_owned(),
        version: version.to_owned(),
        ..ObjectPath::default()
    };
    let owned = |s: &str| Some(s.to_owned());
    let rest = match rest {
        ["watch", rest @ ..] => {
            path.watch = true;
            rest
        }
        rest => rest,
    };
    let rest = match rest {
        // The namespace itself and its subresources.
        ["namespaces", name, sub @ ("status" | "finalize")] if group.is_empty() => {
            path.resource = "namespaces".to_owned();
            path.name = owned(name);
            path.subresource = owned(sub);
            return Some(path);
        }
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => {
            path.namespace = owned(namespace);
            rest
        }
        rest => rest,
    };
    match rest {
        [resource] => path.resource = (*resource).to_owned(),
        [resource, name] => {
            path.resource = (*resource).to_owned();
            path.name = owned(name);
        }
        [resource, name, subresource] => {
            path.resource = (*resource).to_owned();
            path.name = owned(name);
            path.subresource = owned(subresource);
        }
        _ => return None,
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(
        path: &str,
    ) -> (
        String,
        Option<String>,
        String,
        Option<String>,
        Option<String>,
    ) {
        match Path::parse(path) {
            Some(Path::Objects(o)) => (
                format!("{}/{}", o.group, o.version),
                o.namespace,
                o.resource,
                o.name,
                o.subresource,
            ),
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn reads_paths() {
        let some = |s: &str| Some(s.to_owned());
        assert_eq!(
            object("/api/v1/nodes"),
            ("/v1".into(), None, "nodes".into(), None, None)
        );
        assert_eq!(
            object("/api/v1/namespaces/a/pods/b/eviction"),
            (
                "/v1".into(),
                some("a"),
                "pods".into(),
                some("b"),
                some("eviction")
            )
        );
        assert_eq!(
            object("/api/v1/namespaces/a"),
            ("/v1".into(), None, "namespaces".into(), some("a"), None)
        );
        assert_eq!(
            object("/api/v1/namespaces/a/finalize"),
            (
                "/v1".into(),
                None,
                "namespaces".into(),
                some("a"),
                some("finalize")
            )
        );
        assert_eq!(
            object("/apis/karpenter.sh/v1/nodepools/x/status"),
            (
                "karpenter.sh/v1".into(),
                None,
                "nodepools".into(),
                some("x"),
                some("status")
            )
        );
        assert_eq!(
            object("/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode"),
            (
                "rbac.authorization.k8s.io/v1".into(),
                None,
                "clusterroles".into(),
                some("system:node"),
                None
            )
        );
        assert_eq!(Path::parse("/apis/"), Some(Path::Groups));
        assert_eq!(
            Path::parse("/healthz"),
            Some(Path::Other("/healthz".into()))
        );
        assert_eq!(Path::parse("/api/v1/a/b/c/d"), None);
    }
}
