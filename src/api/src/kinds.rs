//! What every kind of ours shares: the `kube::Resource` glue and the fragments that several kinds use.
//!
//! The structs keep fields they do not know in `rest`, so that reading and writing an object of a newer
//! version loses nothing; still, controllers patch and never replace.

use std::collections::BTreeMap;

pub use k8s_openapi::api::core::v1::Taint;
pub use k8s_openapi::apimachinery::pkg::api::resource::Quantity as RawQuantity;
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    Condition, ObjectMeta, OwnerReference, Time,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Unknown fields of an object, kept as they came.
pub type Rest = BTreeMap<String, Value>;

/// Static names of a kind, for code that works with several kinds.
pub trait ManagedKind: kube::Resource<DynamicType = ()> {
    /// API group, such as `karpenter.sh`.
    const GROUP: &'static str;
    /// Served and stored version, such as `v1`.
    const VERSION: &'static str;
    /// Kind, such as `NodePool`.
    const KIND: &'static str;
    /// Plural resource name, such as `nodepools`.
    const PLURAL: &'static str;
}

/// Implements `kube::Resource` and [`ManagedKind`] for a struct with a `metadata: ObjectMeta` field.
/// `$scope` is `ClusterResourceScope` or `NamespaceResourceScope` of `kube::core`.
#[macro_export]
macro_rules! impl_kind {
    ($ty:ty, $group:expr, $version:expr, $kind:expr, $plural:expr, $scope:ty) => {
        impl kube::Resource for $ty {
            type DynamicType = ();
            type Scope = $scope;
            fn kind(_: &()) -> std::borrow::Cow<'_, str> {
                $kind.into()
            }
            fn group(_: &()) -> std::borrow::Cow<'_, str> {
                $group.into()
            }
            fn version(_: &()) -> std::borrow::Cow<'_, str> {
                $version.into()
            }
            fn plural(_: &()) -> std::borrow::Cow<'_, str> {
                $plural.into()
            }
            fn meta(&self) -> &$crate::kinds::ObjectMeta {
                &self.metadata
            }
            fn meta_mut(&mut self) -> &mut $crate::kinds::ObjectMeta {
                &mut self.metadata
            }
        }
        impl $crate::kinds::ManagedKind for $ty {
            const GROUP: &'static str = $group;
            const VERSION: &'static str = $version;
            const KIND: &'static str = $kind;
            const PLURAL: &'static str = $plural;
        }
    };
}

/// `apiVersion` and `kind` of a serialised object; defaulted when absent, as in list items.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TypeInfo {
    /// `group/version`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// Kind.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
}

/// A reference to the cluster-scoped NodeClass of a provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeClassRef {
    /// API group, such as `karpenter.k8s.aws`.
    #[serde(default)]
    pub group: String,
    /// Kind, such as `EC2NodeClass`.
    #[serde(default)]
    pub kind: String,
    /// Object name.
    #[serde(default)]
    pub name: String,
}

/// One scheduling requirement as users write it; `karpenter_model::Requirement` is what is computed with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequirementSpec {
    /// Label key.
    pub key: String,
    /// `In`, `NotIn`, `Exists`, `DoesNotExist`, `Gt`, `Lt`, `Gte`, `Lte`.
    pub operator: String,
    /// Values; meaning depends on the operator.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
    /// Least number of distinct values of the key among the instance types that stay possible (1..=50).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_values: Option<i64>,
}
