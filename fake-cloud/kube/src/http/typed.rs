//! Objects of built-in kinds as their types read them: fields that no type knows are dropped, told or refused, values of
//! the wrong type are refused, quantities are written in their canonical form. Custom kinds have their schemas for this.

use k8s_openapi::api::{
    admissionregistration::v1 as admission, apps::v1 as apps, autoscaling::v2 as autoscaling,
    batch::v1 as batch, coordination::v1 as coordination, core::v1 as core,
    discovery::v1 as discovery, events::v1 as events, networking::v1 as networking,
    node::v1 as node, policy::v1 as policy, rbac::v1 as rbac, scheduling::v1 as scheduling,
    storage::v1 as storage,
};
use karpenter_api::quantity::Quantity;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::error::{ApiError, Result};
use crate::meta::text;
use crate::ops::{Target, WriteOptions};
use crate::structure::Structure;

const QUANTITY_TEXT: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/// Maps whose values are quantities, wherever they stand.
const QUANTITY_MAPS: [&str; 13] = [
    "requests",
    "limits",
    "overhead",
    "capacity",
    "allocatable",
    "hard",
    "used",
    "max",
    "min",
    "default",
    "defaultRequest",
    "maxLimitRequestRatio",
    "allocatedResources",
];

/// Reads an object of a built-in kind.
///
/// # Errors
/// 400 for values of the wrong type, and for unknown fields under strict field validation.
pub fn read(target: &Target, object: &mut Value, options: &mut WriteOptions) -> Result<()> {
    if !is_ours(target, object) {
        return Ok(());
    }
    micro_times(object).map_err(|why| target.unreadable(why))?;
    let unknown = strip(target, object)?;
    let texts = std::mem::take(&mut options.written).typed(&unknown);
    options.told(target, texts)
}

/// Times that are told to the microsecond, with six digits and no others.
fn micro_times(object: &Value) -> std::result::Result<(), String> {
    const PLACES: [&str; 4] = [
        "/spec/acquireTime",
        "/spec/renewTime",
        "/eventTime",
        "/series/lastObservedTime",
    ];
    const SECONDS_LEN: usize = "2006-01-02T15:04:05".len();
    const DIGITS: usize = 6;
    for text in PLACES.iter().filter_map(|p| object.pointer(p)?.as_str()) {
        let fraction = text.get(SECONDS_LEN..).unwrap_or_default();
        let digits = fraction.strip_prefix('.').unwrap_or_default();
        let count = digits.chars().take_while(char::is_ascii_digit).count();
        let (rest, wanted) = match digits.get(DIGITS..) {
            _ if count < DIGITS => (fraction, ".000000"),
            Some(rest) if count > DIGITS => (rest, "Z07:00"),
            _ => continue,
        };
        return Err(format!(
            "parsing time {text:?} as \"2006-01-02T15:04:05.000000Z07:00\": cannot parse {rest:?} as {wanted:?}"
        ));
    }
    Ok(())
}

/// What is wrong with bytes in base64, in the words of the real decoder.
fn as_go_says(why: &str) -> String {
    let place = why.strip_prefix("Invalid symbol ");
    let place = place.and_then(|rest| rest.split_once("offset "));
    let at = place.map(|(_, rest)| rest.chars().take_while(char::is_ascii_digit));
    at.map_or_else(
        || why.to_owned(),
        |at| {
            format!(
                "illegal base64 data at input byte {}",
                at.collect::<String>()
            )
        },
    )
}

/// Whether an object is of the request's kind, and that is a built-in one.
fn is_ours(target: &Target, object: &Value) -> bool {
    let ours = |key: &str, wanted: &str| {
        matches!(text(object, &[key]), "" | " ") || text(object, &[key]) == wanted
    };
    !target.info.custom
        && object.is_object()
        && ours("kind", &target.info.kind)
        && ours("apiVersion", &target.api_version())
}

/// Drops from an object the fields that its type does not know, and answers their paths.
fn strip(target: &Target, object: &mut Value) -> Result<Vec<String>> {
    let mut unknown = Vec::new();
    if !is_ours(target, object) {
        return Ok(unknown);
    }
    if holds_quantities(target) {
        quantities(object).map_err(|()| target.unreadable(QUANTITY_TEXT.to_owned()))?;
    }
    let Some(known) = as_type(target, object) else {
        return Ok(unknown);
    };
    let known = known.map_err(|error| target.unreadable(as_go_says(&error.to_string())))?;
    prune(object, &known, "", &mut unknown);
    Ok(unknown)
}

/// Refuses an apply configuration with fields that its type does not know and with elements that come twice, in the words of what compares owned fields.
///
/// # Errors
/// 500 for both, 400 for values of the wrong type.
pub fn check_applied(target: &Target, document: &Value) -> Result<()> {
    let unknown = strip(target, &mut document.clone())?;
    let mut fields: Vec<String> = unknown
        .iter()
        .map(|path| format!(".{path}: field not declared in schema"))
        .collect();
    fields.extend(crate::apply::fields::duplicates(
        &Structure::of(target),
        document,
    ));
    let what = match fields.len() {
        0 => return Ok(()),
        1 => fields.remove(0),
        _ => format!("errors:\n  {}", fields.join("\n  ")),
    };
    let (group, version) = (&target.info.group, target.api_version());
    let version = if group.is_empty() {
        format!("/{version}")
    } else {
        version
    };
    let (namespace, name) = (
        text(document, &["metadata", "namespace"]),
        text(document, &["metadata", "name"]),
    );
    Err(ApiError::bare(format!(
        "failed to create typed patch object ({namespace}/{name}; {version}, Kind={}): {what}",
        target.info.kind
    )))
}

/// Drops from an object what its type did not keep.
fn prune(object: &mut Value, known: &Value, path: &str, unknown: &mut Vec<String>) {
    match (object, known) {
        (Value::Object(map), Value::Object(known)) => map.retain(|key, below| {
            let path = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            match known.get(key) {
                Some(known) => prune(below, known, &path, unknown),
                // A type does not show what is null.
                None if below.is_null() => {}
                None => {
                    unknown.push(path);
                    return false;
                }
            }
            true
        }),
        (Value::Array(items), Value::Array(known)) => {
            for (i, (item, known)) in items.iter_mut().zip(known).enumerate() {
                prune(item, known, &format!("{path}[{i}]"), unknown);
            }
        }
        _ => {}
    }
}

fn holds_quantities(target: &Target) -> bool {
    matches!(
        (target.info.group.as_str(), target.info.plural.as_str()),
        (
            "",
            "pods"
                | "nodes"
                | "podtemplates"
                | "replicationcontrollers"
                | "persistentvolumes"
                | "persistentvolumeclaims"
                | "limitranges"
                | "resourcequotas"
        ) | ("apps" | "batch", _)
    )
}

/// Writes every quantity in its canonical form.
fn quantities(value: &mut Value) -> std::result::Result<(), ()> {
    match value {
        Value::Array(items) => items.iter_mut().try_for_each(quantities),
        Value::Object(map) => {
            for (key, below) in map.iter_mut() {
                match below {
                    Value::Object(amounts) if QUANTITY_MAPS.contains(&key.as_str()) => {
                        amounts.values_mut().try_for_each(canonical)?;
                    }
                    Value::String(_) | Value::Number(_) if key == "sizeLimit" => canonical(below)?,
                    below => quantities(below)?,
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn canonical(value: &mut Value) -> std::result::Result<(), ()> {
    let text = match &*value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        // A map of the same name that holds something else.
        _ => return Ok(()),
    };
    let (quantity, format) = Quantity::parse_with_format(&text).map_err(|_| ())?;
    *value = quantity.to_string_as(format).into();
    Ok(())
}

/// What a type makes of an object.
fn through<T: Serialize + DeserializeOwned>(object: &Value) -> serde_json::Result<Value> {
    serde_json::to_value(serde_json::from_value::<T>(object.clone())?)
}

/// What the object's own type makes of it; none for kinds that are not read.
fn as_type(target: &Target, object: &Value) -> Option<serde_json::Result<Value>> {
    let through: fn(&Value) -> serde_json::Result<Value> =
        match (target.info.group.as_str(), target.info.plural.as_str()) {
            ("", "configmaps") => through::<core::ConfigMap>,
            ("", "endpoints") => through::<core::Endpoints>,
            ("", "events") => through::<core::Event>,
            ("", "limitranges") => through::<core::LimitRange>,
            ("", "namespaces") => through::<core::Namespace>,
            ("", "nodes") => through::<core::Node>,
            ("", "persistentvolumes") => through::<core::PersistentVolume>,
            ("", "persistentvolumeclaims") => through::<core::PersistentVolumeClaim>,
            ("", "pods") => through::<core::Pod>,
            ("", "podtemplates") => through::<core::PodTemplate>,
            ("", "replicationcontrollers") => through::<core::ReplicationController>,
            ("", "resourcequotas") => through::<core::ResourceQuota>,
            ("", "secrets") => through::<core::Secret>,
            ("", "services") => through::<core::Service>,
            ("", "serviceaccounts") => through::<core::ServiceAccount>,
            ("admissionregistration.k8s.io", "mutatingwebhookconfigurations") => {
                through::<admission::MutatingWebhookConfiguration>
            }
            ("admissionregistration.k8s.io", "validatingwebhookconfigurations") => {
                through::<admission::ValidatingWebhookConfiguration>
            }
            ("apps", "controllerrevisions") => through::<apps::ControllerRevision>,
            ("apps", "daemonsets") => through::<apps::DaemonSet>,
            ("apps", "deployments") => through::<apps::Deployment>,
            ("apps", "replicasets") => through::<apps::ReplicaSet>,
            ("apps", "statefulsets") => through::<apps::StatefulSet>,
            ("autoscaling", "horizontalpodautoscalers") => {
                through::<autoscaling::HorizontalPodAutoscaler>
            }
            ("batch", "cronjobs") => through::<batch::CronJob>,
            ("batch", "jobs") => through::<batch::Job>,
            ("coordination.k8s.io", "leases") => through::<coordination::Lease>,
            ("discovery.k8s.io", "endpointslices") => through::<discovery::EndpointSlice>,
            (crate::events::GROUP, "events") => through::<events::Event>,
            ("networking.k8s.io", "ingressclasses") => through::<networking::IngressClass>,
            ("networking.k8s.io", "ingresses") => through::<networking::Ingress>,
            ("networking.k8s.io", "networkpolicies") => through::<networking::NetworkPolicy>,
            ("node.k8s.io", "runtimeclasses") => through::<node::RuntimeClass>,
            ("policy", "poddisruptionbudgets") => through::<policy::PodDisruptionBudget>,
            ("rbac.authorization.k8s.io", "clusterroles") => through::<rbac::ClusterRole>,
            ("rbac.authorization.k8s.io", "clusterrolebindings") => {
                through::<rbac::ClusterRoleBinding>
            }
            ("rbac.authorization.k8s.io", "roles") => through::<rbac::Role>,
            ("rbac.authorization.k8s.io", "rolebindings") => through::<rbac::RoleBinding>,
            ("scheduling.k8s.io", "priorityclasses") => through::<scheduling::PriorityClass>,
            ("storage.k8s.io", "csidrivers") => through::<storage::CSIDriver>,
            ("storage.k8s.io", "csinodes") => through::<storage::CSINode>,
            ("storage.k8s.io", "csistoragecapacities") => through::<storage::CSIStorageCapacity>,
            ("storage.k8s.io", "storageclasses") => through::<storage::StorageClass>,
            ("storage.k8s.io", "volumeattachments") => through::<storage::VolumeAttachment>,
            _ => return None,
        };
    let mut typed = object.clone();
    // Types check both against their own; whoever leaves them out means the resource of the path.
    let map = crate::meta::as_map(&mut typed);
    map.insert("apiVersion".into(), json!(target.api_version()));
    map.insert("kind".into(), json!(target.info.kind));
    Some(through(&typed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::FieldValidation;
    use crate::registry::Registry;
    use std::sync::Arc;

    fn read_as(plural: &str, object: Value, how: FieldValidation) -> (Result<Value>, Vec<String>) {
        let registry = Registry::default();
        let target = Target::new(Arc::clone(registry.get("", plural).unwrap()), 0, None);
        let mut options = WriteOptions {
            field_validation: how,
            ..WriteOptions::default()
        };
        let mut object = object;
        let result = read(&target, &mut object, &mut options);
        (result.map(|()| object), options.warnings)
    }

    #[test]
    fn unknown_fields_are_dropped_told_or_refused() {
        let pod = json!({"metadata": {"name": "a", "labels": {"x": "y"}, "generation": null},
            "spec": {"containers": [{"name": "c", "image": "i", "colour": "red"}], "foo": 1}});
        let told = [
            "unknown field \"spec.containers[0].colour\"",
            "unknown field \"spec.foo\"",
        ];
        let (read, warnings) = read_as("pods", pod.clone(), FieldValidation::Warn);
        let read = read.unwrap();
        assert_eq!(
            read["spec"],
            json!({"containers": [{"name": "c", "image": "i"}]})
        );
        assert_eq!(read["metadata"]["labels"]["x"], "y");
        assert_eq!(warnings, told);
        assert!(
            read_as("pods", pod.clone(), FieldValidation::Ignore)
                .1
                .is_empty()
        );
        let error = read_as("pods", pod, FieldValidation::Strict).0.unwrap_err();
        assert_eq!(error.code, 400);
        assert!(
            error
                .message
                .ends_with(&format!("strict decoding error: {}", told.join(", "))),
            "{error}"
        );
    }

    #[test]
    fn quantities_are_canonical_and_checked() {
        let pod = |cpu: Value| json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}});
        let of = |cpu: Value| read_as("pods", pod(cpu), FieldValidation::Warn).0;
        for (given, canonical) in [
            (json!(0.5), "500m"),
            (json!("1000m"), "1"),
            (json!(2), "2"),
            (json!("1024Ki"), "1Mi"),
        ] {
            let read = of(given).unwrap();
            assert_eq!(
                read["spec"]["containers"][0]["resources"]["requests"]["cpu"],
                canonical
            );
        }
        assert!(
            of(json!("lots"))
                .unwrap_err()
                .message
                .contains("quantities must match")
        );
    }

    #[test]
    fn values_of_another_type_are_refused() {
        let error = read_as(
            "configmaps",
            json!({"data": {"k": 1}}),
            FieldValidation::Warn,
        )
        .0
        .unwrap_err();
        assert_eq!(error.code, 400);
        assert!(
            error
                .message
                .starts_with("ConfigMap in version \"v1\" cannot be handled as a ConfigMap"),
            "{error}"
        );
    }
}
