//! Amazon Linux 2023: a `NodeConfig` for nodeadm, after the user's parts.

use serde_json::{Value, json};

use super::kubelet::{config, node_labels_flag};
use super::mime::{self, Part, SHELL};
use super::{Inputs, UserDataError};

const NODE_CONFIG: &str = "application/node.eks.aws";

pub(super) fn render(inputs: &Inputs<'_>) -> Result<String, UserDataError> {
    if inputs.settings.cluster_cidr.is_empty() {
        return Err(UserDataError::NoClusterCidr);
    }
    let mut parts = match inputs.custom.filter(|c| !c.trim().is_empty()) {
        Some(custom) if mime::is_mime(custom) => mime::parse(custom)?
            .into_iter()
            // Of the headers only the type is kept.
            .map(|p| Part::new(p.content_type().unwrap_or(SHELL), p.content.clone()))
            .collect(),
        Some(custom) if is_yaml_mapping(custom) => vec![Part::new(NODE_CONFIG, custom)],
        Some(script) => vec![Part::new(SHELL, script)],
        None => Vec::new(),
    };
    parts.push(Part::new(NODE_CONFIG, node_config(inputs)));
    Ok(mime::render(&parts))
}

fn is_yaml_mapping(text: &str) -> bool {
    matches!(serde_saphyr::from_str::<Value>(text), Ok(Value::Object(_)))
}

fn node_config(inputs: &Inputs<'_>) -> String {
    let s = inputs.settings;
    let flags: Vec<String> = node_labels_flag(&inputs.labels).into_iter().collect();
    let mut kubelet = json!({ "config": config(inputs) });
    if let (false, Some(map)) = (flags.is_empty(), kubelet.as_object_mut()) {
        map.insert("flags".to_owned(), json!(flags));
    }
    let storage = if inputs.raid0 {
        json!({ "strategy": "RAID0" })
    } else {
        json!({})
    };
    let config = json!({
        "apiVersion": "node.eks.aws/v1alpha1",
        "kind": "NodeConfig",
        "metadata": {},
        "spec": {
            "cluster": {
                "apiServerEndpoint": s.cluster_endpoint,
                "certificateAuthority": s.cluster_ca_bundle,
                "cidr": s.cluster_cidr,
                "name": s.cluster_name,
            },
            "containerd": {},
            "instance": { "localStorage": storage },
            "kubelet": kubelet,
        },
    });
    let mut out = String::from("# Karpenter Generated NodeConfig\n");
    yaml(&mut out, &config, 0);
    out
}

/// Block YAML with sorted keys; strings are quoted as JSON, which YAML reads.
fn yaml(out: &mut String, value: &Value, indent: usize) {
    let pad = " ".repeat(indent);
    match value {
        Value::Object(map) => {
            let mut keys: Vec<_> = map.iter().collect();
            keys.sort_by_key(|(key, _)| *key);
            for (key, value) in keys {
                out.push_str(&format!("{pad}{}:", scalar_key(key)));
                nested(out, value, indent + 2);
            }
        }
        Value::Array(items) => {
            for item in items {
                match item {
                    Value::Object(map) if !map.is_empty() => {
                        let mut inner = String::new();
                        yaml(&mut inner, item, indent + 2);
                        out.push_str(&format!("{pad}- {}", inner.trim_start()));
                    }
                    scalar => out.push_str(&format!("{pad}- {scalar}\n")),
                }
            }
        }
        scalar => out.push_str(&format!("{pad}{scalar}\n")),
    }
}

fn nested(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(map) if map.is_empty() => out.push_str(" {}\n"),
        Value::Array(items) if items.is_empty() => out.push_str(" []\n"),
        Value::Object(_) | Value::Array(_) => {
            out.push('\n');
            yaml(out, value, indent);
        }
        scalar => out.push_str(&format!(" {scalar}\n")),
    }
}

fn scalar_key(key: &str) -> String {
    let plain = key
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || ['-', '_', '.', '/'].contains(&c));
    if plain {
        key.to_owned()
    } else {
        format!("{key:?}")
    }
}
