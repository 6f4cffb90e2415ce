//! Rewrites manifests of Karpenter's v1beta1 API to v1. Nothing converts at run time: v1beta1 left the served versions
//! with Karpenter 1.1, so people do it once, on their files.
//!
//! Works on JSON documents and touches only what has to change; other kinds pass as they are.

mod kubelet;
mod names;
mod node_class;
mod node_pool;

use std::fmt;

use serde_json::{Map, Value};

const CORE_BETA: &str = "karpenter.sh/v1beta1";
const CORE: &str = "karpenter.sh/v1";
const AWS_GROUP: &str = "karpenter.k8s.aws";
const AWS_BETA: &str = "karpenter.k8s.aws/v1beta1";
const AWS: &str = "karpenter.k8s.aws/v1";
const NODE_CLASS: &str = "EC2NodeClass";

/// Something that a person should read before applying what came out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning {
    /// Kind and name, such as `NodePool/default`.
    pub object: String,
    /// Path of the field in the document that was read.
    pub field: String,
    /// What was done, or what is left to do.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.object, self.field, self.message)
    }
}

/// Why a document cannot be converted. It is not among the documents that came out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{object}: {field}: {message}")]
pub struct ConvertError {
    /// Kind and name, such as `EC2NodeClass/default`.
    pub object: String,
    /// Path of the field in the document that was read.
    pub field: String,
    /// What is there and what was expected.
    pub message: String,
}

/// What came out of a conversion.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Converted {
    /// The documents in the order they came in; a copy of a class follows its original.
    pub docs: Vec<Value>,
    /// What a person should read.
    pub warnings: Vec<Warning>,
    /// Documents that could not be converted.
    pub errors: Vec<ConvertError>,
}

impl Converted {
    fn warn(&mut self, object: &str, field: &str, message: impl Into<String>) {
        self.warnings.push(Warning {
            object: object.to_owned(),
            field: field.to_owned(),
            message: message.into(),
        });
    }
}

/// Whether a document is one that [`convert`] changes or refuses.
#[must_use]
pub fn is_old(doc: &Value) -> bool {
    let (version, kind) = (text(doc, "apiVersion"), text(doc, "kind"));
    matches!(version, CORE_BETA | AWS_BETA) || refused(version, kind).is_some()
}

/// Converts documents. `List`s are taken apart. Documents that are not of `karpenter.sh/v1beta1` or
/// `karpenter.k8s.aws/v1beta1` pass unchanged.
#[must_use]
pub fn convert(docs: Vec<Value>) -> Converted {
    let mut out = Converted::default();
    let docs: Vec<Value> = docs.into_iter().flat_map(items).collect();
    // Claims take their expiry from their pools.
    let expiries = node_pool::expiries(&docs);
    let mut wishes = Vec::new();
    for mut doc in docs {
        let result = convert_one(&mut doc, &expiries, &mut out, &mut wishes);
        match result {
            Ok(()) => out.docs.push(doc),
            Err(error) => out.errors.push(error),
        }
    }
    kubelet::settle(wishes, &mut out);
    out
}

fn convert_one(
    doc: &mut Value,
    expiries: &node_pool::Expiries,
    out: &mut Converted,
    wishes: &mut Vec<kubelet::Wish>,
) -> Result<(), ConvertError> {
    let object = object_name(doc);
    let (version, kind) = (
        text(doc, "apiVersion").to_owned(),
        text(doc, "kind").to_owned(),
    );
    if let Some(instead) = refused(&version, &kind) {
        let message = format!("{version} is older than v1beta1 and not converted; {instead}");
        return Err(error(&object, "apiVersion", message));
    }
    match (version.as_str(), kind.as_str()) {
        (CORE_BETA, "NodePool") => {
            let wish = node_pool::convert_pool(doc, &object, out)?;
            wishes.push(wish.of(out.docs.len()));
        }
        (CORE_BETA, "NodeClaim") => {
            let wish = node_pool::convert_claim(doc, &object, expiries, out)?;
            wishes.push(wish.of(out.docs.len()));
        }
        (AWS_BETA, NODE_CLASS) => node_class::convert(doc, &object, out)?,
        (CORE_BETA | AWS_BETA, _) => {
            let expected = "expected NodePool, NodeClaim or EC2NodeClass";
            return Err(error(&object, "kind", format!("{kind:?}; {expected}")));
        }
        (CORE, "NodePool" | "NodeClaim") => {
            wishes.extend(kubelet::Wish::of_v1(doc, out.docs.len()))
        }
        _ => names::warn_of_tolerations(doc, &object, out),
    }
    Ok(())
}

/// What to use instead of a kind that is too old.
fn refused(version: &str, kind: &str) -> Option<&'static str> {
    match (version, kind) {
        ("karpenter.sh/v1alpha5", "Provisioner") => Some("write a karpenter.sh/v1 NodePool"),
        ("karpenter.sh/v1alpha5", _) => {
            Some("delete it; NodePools make karpenter.sh/v1 NodeClaims")
        }
        ("karpenter.k8s.aws/v1alpha1", _) => Some("write a karpenter.k8s.aws/v1 EC2NodeClass"),
        _ => None,
    }
}

fn items(doc: Value) -> Vec<Value> {
    let is_list = text(&doc, "kind").ends_with("List");
    match doc {
        Value::Object(mut map) if is_list => match map.remove("items") {
            Some(Value::Array(items)) => items,
            Some(other) => {
                map.insert("items".to_owned(), other);
                vec![Value::Object(map)]
            }
            None => vec![Value::Object(map)],
        },
        other => vec![other],
    }
}

fn object_name(doc: &Value) -> String {
    let name = doc.pointer("/metadata/name").and_then(Value::as_str);
    format!("{}/{}", text(doc, "kind"), name.unwrap_or("?"))
}

fn text<'a>(doc: &'a Value, field: &str) -> &'a str {
    doc.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn error(object: &str, field: &str, message: impl Into<String>) -> ConvertError {
    ConvertError {
        object: object.to_owned(),
        field: field.to_owned(),
        message: message.into(),
    }
}

/// The object in a field, made if it is missing or null.
fn object_in<'a>(
    parent: &'a mut Map<String, Value>,
    field: &str,
    object: &str,
    path: &str,
) -> Result<&'a mut Map<String, Value>, ConvertError> {
    let value = parent.entry(field).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => Ok(map),
        other => Err(error(object, path, format!("{other}; expected an object"))),
    }
}

/// The document as an object, with its new version.
fn renamed<'a>(
    doc: &'a mut Value,
    version: &str,
    object: &str,
) -> Result<&'a mut Map<String, Value>, ConvertError> {
    let map = doc
        .as_object_mut()
        .ok_or_else(|| error(object, "", "expected an object"))?;
    map.insert("apiVersion".to_owned(), version.into());
    Ok(map)
}

#[cfg(test)]
mod tests;
