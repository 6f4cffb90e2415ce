//! What requests do to the store: each verb once, whoever asks (in process or over HTTP).

pub mod apply;
pub mod binding;
pub mod create;
pub mod delete;
pub mod eviction;
pub mod patch;
pub mod replace;
pub mod scale;

use std::collections::BTreeMap;
use std::sync::Arc;

use karpenter_runtime::rng::Rng;
use karpenter_runtime::{Clock, RngTree};
use serde_json::Value;

use crate::error::{ApiError, Result};
use crate::http::strict::{self, Written};
use crate::meta;
use crate::registry::{Registry, ResourceInfo, VersionInfo};
use crate::store::Store;

/// All of a server's state, behind one lock.
pub struct State {
    /// Objects.
    pub store: Store,
    /// Resources.
    pub registry: Registry,
    /// The server's clock.
    pub clock: Clock,
    names: Names,
}

/// Randomness of the server: one stream a resource for UIDs and one a prefix for generated names, so that objects
/// of one kind do not shift another's.
struct Names {
    root: RngTree,
    uids: BTreeMap<String, Rng>,
    suffixes: BTreeMap<(String, String), Rng>,
}

/// Characters `generateName` appends.
const GENERATED_SUFFIX_LEN: usize = 5;
/// Longest prefix kept by `generateName`, so that the name stays within a label's 63 characters.
const GENERATED_PREFIX_LEN_MAX: usize = 63 - GENERATED_SUFFIX_LEN;

impl State {
    /// An empty state.
    #[must_use]
    pub fn new(clock: Clock, rng: &RngTree) -> Self {
        Self {
            store: Store::default(),
            registry: Registry::default(),
            clock,
            names: Names {
                root: rng.child("kube", "api-server"),
                uids: BTreeMap::new(),
                suffixes: BTreeMap::new(),
            },
        }
    }

    /// A fresh UID for an object of `resource`.
    pub fn uid(&mut self, resource: &str) -> String {
        let root = &self.names.root;
        self.names
            .uids
            .entry(resource.to_owned())
            .or_insert_with(|| root.child("uid", resource).rng())
            .uuid()
    }

    /// A fresh name from `prefix` for an object of `resource`.
    pub fn generate_name(&mut self, resource: &str, prefix: &str) -> String {
        let root = &self.names.root;
        let suffix = self
            .names
            .suffixes
            .entry((resource.to_owned(), prefix.to_owned()))
            .or_insert_with(|| root.child(resource, prefix).rng())
            .suffix(GENERATED_SUFFIX_LEN);
        let kept: String = prefix.chars().take(GENERATED_PREFIX_LEN_MAX).collect();
        format!("{kept}{suffix}")
    }

    /// Now, as `metav1.Time`.
    #[must_use]
    pub fn now(&self) -> String {
        meta::time(self.clock.wall())
    }

    /// An object, or 404.
    ///
    /// # Errors
    /// 404.
    pub fn require(&self, target: &Target, name: &str) -> Result<Arc<Value>> {
        self.store
            .get(&target.key, &target.namespace, name)
            .cloned()
            .ok_or_else(|| ApiError::not_found(&target.info, name))
    }

    /// The resource `group`/`plural` in its stored version, in `namespace` (the default one where it needs one).
    ///
    /// # Errors
    /// 404 when it is not served.
    pub fn target(&self, group: &str, plural: &str, namespace: Option<&str>) -> Result<Target> {
        let info = self
            .registry
            .get(group, plural)
            .ok_or_else(ApiError::no_such_resource)?;
        Ok(Target::new(Arc::clone(info), info.storage, namespace))
    }
}

/// A resource in one of its versions and, for namespaced ones, a namespace: what a request is about.
#[derive(Clone, Debug)]
pub struct Target {
    /// The resource.
    pub info: Arc<ResourceInfo>,
    /// Index of the version the client speaks.
    pub version: usize,
    /// Namespace, empty for cluster-scoped resources and for all namespaces.
    pub namespace: String,
    /// The store's key.
    pub key: String,
}

impl Target {
    /// A target.
    #[must_use]
    pub fn new(info: Arc<ResourceInfo>, version: usize, namespace: Option<&str>) -> Self {
        let namespace = if info.namespaced {
            namespace.unwrap_or_default().to_owned()
        } else {
            String::new()
        };
        let key = info.key();
        Self {
            info,
            version,
            namespace,
            key,
        }
    }

    /// The version the client speaks.
    #[must_use]
    pub fn version_info(&self) -> Option<&VersionInfo> {
        self.info.versions.get(self.version)
    }

    /// Whether `status` is written apart.
    #[must_use]
    pub fn has_status(&self) -> bool {
        self.version_info().is_some_and(|v| v.status)
    }

    /// 400 for what cannot be read as an object of this resource.
    #[must_use]
    pub fn unreadable(&self, why: String) -> ApiError {
        let kind = &self.info.kind;
        let version = self.version_info().map_or("", |v| v.name.as_str());
        ApiError::unreadable(kind, version, kind, why)
    }

    /// `apiVersion` of stored objects.
    #[must_use]
    pub fn storage_api_version(&self) -> String {
        self.info
            .storage_version()
            .map(|v| self.info.api_version(&v.name))
            .unwrap_or_default()
    }

    /// `apiVersion` of the objects the client sends and gets.
    #[must_use]
    pub fn api_version(&self) -> String {
        self.version_info()
            .map(|v| self.info.api_version(&v.name))
            .unwrap_or_default()
    }
}

/// What is done about fields the schema does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Dropped in silence.
    Ignore,
    /// Dropped with a warning.
    #[default]
    Warn,
    /// Refused.
    Strict,
}

/// How a write is to be done.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// Check and answer, but store nothing.
    pub dry_run: bool,
    /// Field manager; none for the server's own loops, whose fields nobody owns.
    pub manager: Option<String>,
    /// Unknown fields, and those that come twice.
    pub field_validation: FieldValidation,
    /// How the document was written; whoever reads the object tells what is wrong with that, once.
    pub written: Written,
    /// Who writes, where it is not the administrator or one of the server's own loops.
    pub user: Option<crate::access::User>,
    /// The write came from a client, whose document may hold anything: it is read as its kind reads it.
    pub wire: bool,
    /// The write is a patch: what a PUT may not change says so in other words.
    pub patching: bool,
    /// Custom resources must carry a resourceVersion on PUT.
    pub require_version: bool,
    /// Fields of an apply configuration that creates its object; the manager owns these and nothing else.
    pub applied: Option<crate::apply::FieldSet>,
    /// Out: warnings for the client.
    pub warnings: Vec<String>,
}

impl WriteOptions {
    /// Warns of what field validation found, or refuses it as what cannot be read.
    ///
    /// # Errors
    /// 400 when validation is strict and there is anything to tell.
    pub fn told(&mut self, target: &Target, texts: Vec<String>) -> Result<()> {
        match self.field_validation {
            FieldValidation::Ignore => {}
            FieldValidation::Warn => self
                .warnings
                .extend(texts.iter().map(|t| strict::as_warning(t))),
            FieldValidation::Strict if texts.is_empty() => {}
            FieldValidation::Strict => {
                let why = format!("strict decoding error: {}", texts.join(", "));
                return Err(target.unreadable(why));
            }
        }
        Ok(())
    }
}

/// Part of an object that a write is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The object without its status.
    Main,
    /// The status.
    Status,
    /// The ephemeral containers of a pod.
    EphemeralContainers,
}
