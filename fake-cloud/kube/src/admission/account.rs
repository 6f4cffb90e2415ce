//! The ServiceAccount plugin: a pod's account must be there; it says what images are pulled with and whether containers
//! find a token where clients look for one.

use serde_json::{Value, json};

use crate::error::{ApiError, Result};
use crate::meta::{self, text};
use crate::ops::{State, Target};
use crate::tokens;

/// Where clients in containers look for their token.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Whether a pod of an account, or a pod, is to have a token.
const AUTOMOUNT: &str = "automountServiceAccountToken";

/// Admits a pod.
///
/// # Errors
/// 403 when there is no such account.
pub fn admit(state: &mut State, target: &Target, pod: &mut Value) -> Result<()> {
    let pod_name = meta::name(pod).to_owned();
    let spec = meta::as_map(meta::child(pod, "spec"));
    meta::default_to(spec, "serviceAccountName", "default");
    let name = spec
        .get("serviceAccountName")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    spec.insert("serviceAccount".into(), name.as_str().into());
    let namespace = &target.namespace;
    let Some(account) = state
        .store
        .get("serviceaccounts.", namespace, &name)
        .cloned()
    else {
        let why = format!(
            "error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found"
        );
        return Err(ApiError::forbidden(&target.info, &pod_name, &why));
    };
    let none = spec
        .get("imagePullSecrets")
        .and_then(Value::as_array)
        .is_none_or(Vec::is_empty);
    if let Some(secrets) = account.get("imagePullSecrets").filter(|_| none) {
        spec.insert("imagePullSecrets".into(), secrets.clone());
    }
    let wanted = |o: Option<&Value>| o.and_then(Value::as_bool);
    let mounts = wanted(spec.get(AUTOMOUNT)).or_else(|| wanted(account.get(AUTOMOUNT)));
    if mounts.unwrap_or(true) {
        mount(state, spec);
    }
    Ok(())
}

/// Gives every container that mounts nothing there itself the token's volume.
fn mount(state: &mut State, spec: &mut serde_json::Map<String, Value>) {
    let volumes = spec.get("volumes").and_then(Value::as_array);
    let known = volumes
        .into_iter()
        .flatten()
        .map(|v| text(v, &["name"]))
        .find(|name| name.starts_with(tokens::PREFIX))
        .map(str::to_owned);
    let mut name = known.clone();
    for list in ["initContainers", "containers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let mounts = container.get("volumeMounts").and_then(Value::as_array);
            let taken = mounts
                .into_iter()
                .flatten()
                .any(|m| text(m, &["mountPath"]) == MOUNT_PATH);
            if taken || !container.is_object() {
                continue;
            }
            let name = name.get_or_insert_with(|| state.generate_name("tokens", tokens::PREFIX));
            let mount = json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH});
            meta::push(meta::child(container, "volumeMounts"), mount);
        }
    }
    if let (None, Some(name)) = (known, name) {
        let volumes = spec.entry("volumes").or_insert(Value::Null);
        meta::push(volumes, json!({ "name": name }));
    }
}
