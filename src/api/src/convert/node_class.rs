//! EC2NodeClasses of v1beta1.

use serde_json::{Map, Value, json};

use super::{AWS, ConvertError, Converted, error, names, object_in, renamed};

/// Families that have an alias.
const ALIASED: [&str; 5] = [
    "AL2",
    "AL2023",
    "Bottlerocket",
    "Windows2019",
    "Windows2022",
];
const LATEST: &str = "latest";
/// Tag that Karpenter 1.0 and later writes itself and refuses in `spec.tags`.
const CLUSTER_NAME_TAG: &str = "eks:eks-cluster-name";
/// Hop limit that v1beta1 gave a `metadataOptions` block which names none.
const HOP_LIMIT_BETA: u8 = 2;

pub(super) fn convert(
    doc: &mut Value,
    object: &str,
    out: &mut Converted,
) -> Result<(), ConvertError> {
    let map = renamed(doc, AWS, object)?;
    let version = map
        .get("metadata")
        .and_then(|m| m.get("annotations"))
        .and_then(|a| a.get(names::ALIAS_VERSION))
        .and_then(Value::as_str)
        .unwrap_or(LATEST)
        .to_owned();
    names::annotations(map.get_mut("metadata"));
    let spec = object_in(map, "spec", object, "spec")?;
    images(spec, &version, object, out)?;
    metadata_options(spec, object, out);
    let tags = spec.get_mut("tags").and_then(Value::as_object_mut);
    if tags.and_then(|t| t.remove(CLUSTER_NAME_TAG)).is_some() {
        let field = format!("spec.tags[{CLUSTER_NAME_TAG}]");
        out.warn(
            object,
            &field,
            "dropped: v1 refuses it, Karpenter sets it itself",
        );
    }
    Ok(())
}

fn images(
    spec: &mut Map<String, Value>,
    version: &str,
    object: &str,
    out: &mut Converted,
) -> Result<(), ConvertError> {
    let field = "spec.amiFamily";
    let has_terms = spec
        .get("amiSelectorTerms")
        .and_then(Value::as_array)
        .is_some_and(|terms| !terms.is_empty());
    let family = spec
        .get("amiFamily")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let needs_terms = || {
        let message =
            format!("{family:?} without amiSelectorTerms names no images; expected terms");
        error(object, "spec.amiSelectorTerms", message)
    };
    match family.as_str() {
        "Ubuntu" if has_terms => {
            spec.insert("amiFamily".to_owned(), "AL2".into());
            let message = "Ubuntu is no family in v1; AL2 written, which boots the same way";
            out.warn(object, field, message);
            ubuntu_volume(spec, object, out);
        }
        "Custom" | "Ubuntu" if !has_terms => return Err(needs_terms()),
        "Custom" => {}
        known if ALIASED.contains(&known) => {
            if !has_terms {
                alias(spec, known, version, object, out);
            }
        }
        _ => {
            let message = format!(
                "{family:?}; expected one of {}, Custom, Ubuntu",
                ALIASED.join(", ")
            );
            return Err(error(object, field, message));
        }
    }
    Ok(())
}

fn alias(
    spec: &mut Map<String, Value>,
    family: &str,
    version: &str,
    object: &str,
    out: &mut Converted,
) {
    let field = "spec.amiFamily";
    let version = if family.starts_with("Windows") && version != LATEST {
        let message = format!("version {version:?} left out: {family} has only {LATEST}");
        out.warn(object, field, message);
        LATEST
    } else {
        version
    };
    let alias = format!("{}@{version}", family.to_lowercase());
    if family == "AL2" {
        let message = format!(
            "alias {alias} is refused for Kubernetes 1.33 and later; al2023@{LATEST} is what follows it"
        );
        out.warn(object, field, message);
    }
    spec.remove("amiFamily");
    let terms = json!([{ "alias": alias }]);
    spec.insert("amiSelectorTerms".to_owned(), terms);
}

/// Gives a class without volumes the one that v1beta1 gave its Ubuntu nodes.
fn ubuntu_volume(spec: &mut Map<String, Value>, object: &str, out: &mut Converted) {
    let given = spec
        .get("blockDeviceMappings")
        .and_then(Value::as_array)
        .is_some_and(|list| !list.is_empty());
    if given {
        return;
    }
    let volume = json!([{
        "deviceName": "/dev/sda1",
        "rootVolume": true,
        "ebs": { "encrypted": true, "volumeType": "gp3", "volumeSize": "20Gi" },
    }]);
    spec.insert("blockDeviceMappings".to_owned(), volume);
    let message = "the root volume that Ubuntu nodes had by default is written out";
    out.warn(object, "spec.blockDeviceMappings", message);
}

/// Writes the hop limit that a partial block had.
fn metadata_options(spec: &mut Map<String, Value>, object: &str, out: &mut Converted) {
    let Some(options) = spec
        .get_mut("metadataOptions")
        .and_then(Value::as_object_mut)
    else {
        return;
    };
    let limit = options.get("httpPutResponseHopLimit");
    if limit.is_none_or(Value::is_null) {
        options.insert("httpPutResponseHopLimit".to_owned(), HOP_LIMIT_BETA.into());
        let message = format!("{HOP_LIMIT_BETA} written: it was v1beta1's default, v1's is 1");
        out.warn(
            object,
            "spec.metadataOptions.httpPutResponseHopLimit",
            message,
        );
    }
}
