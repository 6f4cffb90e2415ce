//! NodePools and NodeClaims of v1beta1.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::kubelet::Moving;
use super::{AWS_GROUP, CORE, CORE_BETA, ConvertError, Converted, NODE_CLASS};
use super::{error, names, object_in, renamed, text};
use crate::duration::NEVER;
use crate::labels;

const UNDERUTILIZED_BETA: &str = "WhenUnderutilized";
const UNDERUTILIZED: &str = "WhenEmptyOrUnderutilized";
const EMPTY: &str = "WhenEmpty";
const AT_ONCE: &str = "0s";

/// `expireAfter` of each v1beta1 pool that names one.
pub(super) type Expiries = BTreeMap<String, Value>;

pub(super) fn expiries(docs: &[Value]) -> Expiries {
    docs.iter()
        .filter(|d| text(d, "apiVersion") == CORE_BETA && text(d, "kind") == "NodePool")
        .filter_map(|d| {
            let name = d.pointer("/metadata/name")?.as_str()?;
            let expiry = d.pointer("/spec/disruption/expireAfter")?;
            Some((name.to_owned(), expiry.clone()))
        })
        .collect()
}

/// Converts a NodePool; what it wants of the kubelet is for its class.
pub(super) fn convert_pool(
    doc: &mut Value,
    object: &str,
    out: &mut Converted,
) -> Result<Moving, ConvertError> {
    let map = renamed(doc, CORE, object)?;
    names::annotations(map.get_mut("metadata"));
    let spec = object_in(map, "spec", object, "spec")?;
    let expire_after = disruption(spec, object, out)?;
    let template = object_in(spec, "template", object, "spec.template")?;
    names::annotations(template.get_mut("metadata"));
    let path = "spec.template.spec";
    let spec = object_in(template, "spec", object, path)?;
    if let Some(expire_after) = expire_after {
        spec.insert("expireAfter".to_owned(), expire_after);
    }
    if spec.remove("resources").is_some() {
        let field = format!("{path}.resources");
        out.warn(object, &field, "dropped: pools have none in v1");
    }
    machine(spec, object, path)
}

/// Converts a NodeClaim, with the expiry of its pool.
pub(super) fn convert_claim(
    doc: &mut Value,
    object: &str,
    expiries: &Expiries,
    out: &mut Converted,
) -> Result<Moving, ConvertError> {
    let pool = doc
        .pointer("/metadata/labels")
        .map_or("", |l| text(l, labels::NODEPOOL))
        .to_owned();
    let map = renamed(doc, CORE, object)?;
    names::annotations(map.get_mut("metadata"));
    let spec = object_in(map, "spec", object, "spec")?;
    match expiries.get(&pool) {
        Some(expiry) => {
            spec.insert("expireAfter".to_owned(), expiry.clone());
        }
        None => out.warn(
            object,
            "spec.expireAfter",
            "not set: its NodePool is not among the documents or names none, so v1's default of 720h holds",
        ),
    }
    machine(spec, object, "spec")
}

/// What the specs of templates and claims have in common.
fn machine(
    spec: &mut Map<String, Value>,
    object: &str,
    path: &str,
) -> Result<Moving, ConvertError> {
    names::taints(spec);
    let class = node_class_ref(spec, object, &format!("{path}.nodeClassRef"))?;
    let kubelet = spec.remove("kubelet").filter(|k| !k.is_null());
    Ok(Moving {
        object: object.to_owned(),
        path: path.to_owned(),
        class,
        kubelet,
    })
}

/// Rewrites the reference; the name of the class if it is an EC2NodeClass.
fn node_class_ref(
    spec: &mut Map<String, Value>,
    object: &str,
    path: &str,
) -> Result<Option<String>, ConvertError> {
    let Some(Value::Object(old)) = spec.get("nodeClassRef") else {
        return Err(error(object, path, "missing; expected {name: NAME}"));
    };
    let read = |field: &str| {
        old.get(field)
            .and_then(Value::as_str)
            .filter(|t| !t.is_empty())
    };
    let name = read("name").ok_or_else(|| {
        let field = format!("{path}.name");
        error(object, &field, "missing; expected the name of a NodeClass")
    })?;
    let group = read("group")
        .or_else(|| read("apiVersion").map(|v| v.split_once('/').map_or("", |(group, _)| group)))
        .unwrap_or(AWS_GROUP);
    let kind = read("kind").unwrap_or(NODE_CLASS);
    let class = (group == AWS_GROUP && kind == NODE_CLASS).then(|| name.to_owned());
    let new = json!({ "group": group, "kind": kind, "name": name });
    spec.insert("nodeClassRef".to_owned(), new);
    Ok(class)
}

/// Rewrites `spec.disruption` and takes `expireAfter` out of it.
fn disruption(
    spec: &mut Map<String, Value>,
    object: &str,
    out: &mut Converted,
) -> Result<Option<Value>, ConvertError> {
    let path = "spec.disruption";
    if spec.get("disruption").is_none_or(Value::is_null) {
        let made = json!({ "consolidateAfter": AT_ONCE });
        spec.insert("disruption".to_owned(), made);
        return Ok(None);
    }
    let block = object_in(spec, "disruption", object, path)?;
    let expire_after = block.remove("expireAfter").filter(|e| !e.is_null());
    let after = block
        .get("consolidateAfter")
        .and_then(Value::as_str)
        .map(str::to_owned);
    let field = format!("{path}.consolidateAfter");
    let policy = block.get("consolidationPolicy").and_then(Value::as_str);
    let (policy, after) = match policy {
        None | Some(UNDERUTILIZED_BETA) => {
            let after = match after.as_deref() {
                Some(NEVER) => NEVER,
                None | Some(AT_ONCE) => AT_ONCE,
                Some(other) => {
                    let message = format!(
                        "{other:?} was not allowed beside {UNDERUTILIZED_BETA}; {AT_ONCE:?} written"
                    );
                    out.warn(object, &field, message);
                    AT_ONCE
                }
            };
            (UNDERUTILIZED, after.to_owned())
        }
        Some(EMPTY) => {
            let after = after.unwrap_or_else(|| {
                let message = format!("missing beside {EMPTY}; {AT_ONCE:?} written");
                out.warn(object, &field, message);
                AT_ONCE.to_owned()
            });
            (EMPTY, after)
        }
        Some(UNDERUTILIZED) => (UNDERUTILIZED, after.unwrap_or_else(|| AT_ONCE.to_owned())),
        Some(other) => {
            let message = format!("{other:?}; expected {EMPTY} or {UNDERUTILIZED_BETA}");
            let field = format!("{path}.consolidationPolicy");
            return Err(error(object, &field, message));
        }
    };
    block.insert("consolidationPolicy".to_owned(), policy.into());
    block.insert("consolidateAfter".to_owned(), after.into());
    Ok(expire_after)
}
