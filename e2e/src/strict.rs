//! What a strict API server would say of objects in files, where none is asked: fields that there are not, and of our own
//! kinds all that their definitions refuse.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;

use karpenter_fake_kube::crd::{check, definition, shape};
use karpenter_fake_kube::registry::ResourceInfo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::json::{name, text};

/// One thing that is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objection {
    /// Kind and name.
    pub object: String,
    /// Path of the field.
    pub field: String,
    /// What is there and what was expected.
    pub message: String,
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.object, self.field, self.message)
    }
}

impl Objection {
    /// Whether a line such as `NodePool a: spec.field: expected ...` says it already, of this field, of one around it or
    /// of one in it.
    #[must_use]
    pub fn is_told_by(&self, line: &str) -> bool {
        let Some(rest) = line.strip_prefix(&format!("{}: ", self.object)) else {
            return false;
        };
        let told = rest.split(": ").next().unwrap_or_default();
        let within = |inner: &str, outer: &str| {
            inner
                .strip_prefix(outer)
                .is_some_and(|more| more.is_empty() || more.starts_with(['.', '[']))
        };
        within(&self.field, told) || within(told, &self.field) || rest.contains(&self.field)
    }
}

/// Most pods or machines that one object is taken to ask for; more is a typing error.
pub const MAX_REPLICAS: i64 = 200_000;

/// Why an object cannot be part of a story: a field that its kind has not, or a number that no cluster in one process
/// holds.
#[must_use]
pub fn unfit(object: &Value) -> Option<Objection> {
    let too_many = too_many(object).map(|(field, message)| (field.to_owned(), message));
    let all = unknown_fields(object).into_iter();
    all.chain(told(object, too_many)).next()
}

/// The field of an object or of a patch that asks for more than [`MAX_REPLICAS`], and what it should say.
#[must_use]
pub fn too_many(object: &Value) -> Option<(&'static str, String)> {
    let fields = ["spec.replicas", "spec.parallelism", "spec.completions"];
    fields.into_iter().find_map(|field| {
        let value = object.pointer(&format!("/{}", field.replace('.', "/")))?;
        // Far beyond any whole number that a JSON number holds exactly, it is still too large.
        #[allow(clippy::cast_precision_loss)]
        let is_too_large = value.as_f64()? > MAX_REPLICAS as f64;
        is_too_large.then(|| {
            let message = format!("expected a number from 0 to {MAX_REPLICAS}, got {value}");
            (field, message)
        })
    })
}

/// Fields of an object that its kind has not: misspelt ones, which would be dropped without a word.
#[must_use]
pub fn unknown_fields(object: &Value) -> Vec<Objection> {
    let version = text(object, "/apiVersion");
    let paths = match custom(object) {
        Some(Ok(info)) => match info.storage_version().and_then(|v| v.schema.as_ref()) {
            Some(schema) => shape::prune(&schema.root, &mut object.clone()),
            None => Vec::new(),
        },
        Some(Err(_)) => Vec::new(),
        None => builtin(object),
    };
    let expected = format!(
        "unknown field; expected one that {version} {} has",
        text(object, "/kind")
    );
    told(object, paths.into_iter().map(|p| (p, expected.clone())))
}

/// What the definitions of our own kinds refuse, unknown fields included.
#[must_use]
pub fn objections(object: &Value) -> Vec<Objection> {
    let info = match custom(object) {
        Some(Ok(info)) => info,
        Some(Err(expected)) => {
            let message = format!("{:?}; expected {expected}", text(object, "/apiVersion"));
            return told(object, [("apiVersion".to_owned(), message)]);
        }
        None => return unknown_fields(object),
    };
    let mut all = unknown_fields(object);
    if let Some(schema) = info.storage_version().and_then(|v| v.schema.as_ref()) {
        let mut admitted = object.clone();
        shape::prune(&schema.root, &mut admitted);
        shape::default(&schema.root, &mut admitted);
        let errors = check::check(&schema.root, &admitted, None);
        let errors = errors.into_iter().map(|error| {
            let shown = error.to_string();
            let message = shown.strip_prefix(&format!("{}: ", error.field));
            (error.field.clone(), message.unwrap_or(&shown).to_owned())
        });
        all.extend(told(object, errors));
    }
    all
}

fn told(object: &Value, all: impl IntoIterator<Item = (String, String)>) -> Vec<Objection> {
    let shown = format!("{} {}", text(object, "/kind"), name(object));
    all.into_iter()
        .map(|(field, message)| Objection {
            object: shown.clone(),
            field,
            message,
        })
        .collect()
}

/// Reads an object as what it says it is.
///
/// # Errors
/// When it cannot be read: the field that stands in the way, as far as it can be found, and what was expected there.
pub fn read<T: DeserializeOwned>(object: &Value) -> Result<T, Objection> {
    serde_json::from_value(object.clone()).map_err(|error| Objection {
        object: format!("{} {}", text(object, "/kind"), name(object)),
        field: culprit::<T>(object, &error.to_string()),
        message: error.to_string(),
    })
}

/// The innermost field without which an object can be read, or is refused for something else. The reader's error names
/// none.
fn culprit<T: DeserializeOwned>(object: &Value, error: &str) -> String {
    let (mut pointer, mut shown) = (String::new(), String::new());
    loop {
        let below: Vec<(String, String)> = match object.pointer(&pointer) {
            Some(Value::Object(map)) => map
                .keys()
                .map(|key| {
                    let step = key.replace('~', "~0").replace('/', "~1");
                    let dot = if shown.is_empty() { "" } else { "." };
                    (format!("{pointer}/{step}"), format!("{shown}{dot}{key}"))
                })
                .collect(),
            Some(Value::Array(items)) => (0..items.len())
                .map(|i| (format!("{pointer}/{i}"), format!("{shown}[{i}]")))
                .collect(),
            _ => Vec::new(),
        };
        let helps = |(place, _): &(String, String)| match try_without::<T>(object, place) {
            Ok(()) => true,
            // What cannot be left out says nothing of what is wrong.
            Err(other) => other != error && !other.contains("missing field"),
        };
        let Some((place, field)) = below.into_iter().find(helps) else {
            break;
        };
        (pointer, shown) = (place, field);
    }
    if shown.is_empty() {
        "the object".to_owned()
    } else {
        shown
    }
}

fn try_without<T: DeserializeOwned>(object: &Value, pointer: &str) -> Result<(), String> {
    let mut object = object.clone();
    let (around, last) = pointer.rsplit_once('/').unwrap_or_default();
    let last = last.replace("~1", "/").replace("~0", "~");
    match object.pointer_mut(around) {
        Some(Value::Object(map)) => {
            map.remove(&last);
        }
        Some(Value::Array(items)) => {
            if let Some(index) = last.parse().ok().filter(|i| *i < items.len()) {
                items.remove(index);
            }
        }
        _ => {}
    }
    let read: Result<T, _> = serde_json::from_value(object);
    read.map(|_| ()).map_err(|e| e.to_string())
}

/// Our own kinds by group and kind.
type Definitions = BTreeMap<(String, String), ResourceInfo>;

/// The definition of an object of ours, or the `apiVersion` that it should have; none for built-in and foreign kinds.
fn custom(object: &Value) -> Option<Result<&'static ResourceInfo, String>> {
    static ALL: OnceLock<[Definitions; 2]> = OnceLock::new();
    let [plain, ec2] = ALL.get_or_init(|| {
        // The EC2 provider has label keys of its own that its NodePools may name.
        let ec2 = karpenter_provider_ec2::nodeclass::label_domain();
        [definitions(&[]), definitions(&[ec2])]
    });
    let class = text(object, "/spec/template/spec/nodeClassRef/kind");
    let class = match class {
        "" => text(object, "/spec/nodeClassRef/kind"),
        class => class,
    };
    let all = if class == "EC2NodeClass" { ec2 } else { plain };
    let (group, version) = text(object, "/apiVersion").split_once('/')?;
    let key = (group.to_owned(), text(object, "/kind").to_owned());
    let info = all.get(&key)?;
    let stored = info.storage_version()?;
    Some(if stored.name == version {
        Ok(info)
    } else {
        Err(info.api_version(&stored.name))
    })
}

fn definitions(domains: &[karpenter_api::crd::LabelDomain]) -> Definitions {
    let mut crds = karpenter_api::crd::core(domains);
    crds.push(karpenter_provider_kwok::nodeclass::crd());
    crds.push(karpenter_provider_ec2::nodeclass::crd());
    let read = crds.into_iter().filter_map(|mut crd| {
        definition::default_definition(&mut crd);
        definition::resource_of(&crd)
    });
    read.map(|info| ((info.group.clone(), info.kind.clone()), info))
        .collect()
}

/// Paths of an object of a built-in kind that get lost when it is read as what it says it is. What cannot be read at
/// all is told by who reads it.
fn builtin(object: &Value) -> Vec<String> {
    use k8s_openapi::api::{apps, batch, coordination, core, policy, scheduling, storage};

    let read = match (text(object, "/apiVersion"), text(object, "/kind")) {
        ("v1", "Pod") => again::<core::v1::Pod>(object),
        ("v1", "Node") => again::<core::v1::Node>(object),
        ("v1", "Namespace") => again::<core::v1::Namespace>(object),
        ("v1", "Service") => again::<core::v1::Service>(object),
        ("v1", "ServiceAccount") => again::<core::v1::ServiceAccount>(object),
        ("v1", "ConfigMap") => again::<core::v1::ConfigMap>(object),
        ("v1", "PodTemplate") => again::<core::v1::PodTemplate>(object),
        ("v1", "LimitRange") => again::<core::v1::LimitRange>(object),
        ("v1", "PersistentVolume") => again::<core::v1::PersistentVolume>(object),
        ("v1", "PersistentVolumeClaim") => again::<core::v1::PersistentVolumeClaim>(object),
        ("apps/v1", "Deployment") => again::<apps::v1::Deployment>(object),
        ("apps/v1", "ReplicaSet") => again::<apps::v1::ReplicaSet>(object),
        ("apps/v1", "StatefulSet") => again::<apps::v1::StatefulSet>(object),
        ("apps/v1", "DaemonSet") => again::<apps::v1::DaemonSet>(object),
        ("batch/v1", "Job") => again::<batch::v1::Job>(object),
        ("policy/v1", "PodDisruptionBudget") => again::<policy::v1::PodDisruptionBudget>(object),
        ("coordination.k8s.io/v1", "Lease") => again::<coordination::v1::Lease>(object),
        ("scheduling.k8s.io/v1", "PriorityClass") => again::<scheduling::v1::PriorityClass>(object),
        ("storage.k8s.io/v1", "StorageClass") => again::<storage::v1::StorageClass>(object),
        ("storage.k8s.io/v1", "CSINode") => again::<storage::v1::CSINode>(object),
        _ => None,
    };
    let mut lost = Vec::new();
    if let (Some(Value::Object(read)), Value::Object(object)) = (read, object) {
        // A status, and who wrote what, are the server's: a newer one may say more than we know.
        for (key, value) in object.iter().filter(|(key, _)| *key != "status") {
            compare(value, read.get(key), key, &mut lost);
        }
    }
    lost.retain(|path| !path.starts_with("metadata.managedFields"));
    lost
}

fn again<T: DeserializeOwned + Serialize>(object: &Value) -> Option<Value> {
    let read: T = serde_json::from_value(object.clone()).ok()?;
    serde_json::to_value(read).ok()
}

fn compare(given: &Value, read: Option<&Value>, path: &str, lost: &mut Vec<String>) {
    match (given, read) {
        (Value::Null, _) => {}
        (Value::Object(map), None) if map.is_empty() => {}
        (Value::Array(items), None) if items.is_empty() => {}
        (_, None) => lost.push(path.to_owned()),
        (Value::Object(given), Some(Value::Object(read))) => {
            for (key, value) in given {
                compare(value, read.get(key), &format!("{path}.{key}"), lost);
            }
        }
        (Value::Array(given), Some(Value::Array(read))) => {
            for (index, value) in given.iter().enumerate() {
                compare(value, read.get(index), &format!("{path}[{index}]"), lost);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pool(spec: &Value) -> Value {
        let mut pool = json!({
            "apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": { "name": "a" },
            "spec": { "template": { "spec": {
                "nodeClassRef": { "group": "karpenter.kwok.sh", "kind": "KWOKNodeClass", "name": "default" },
                "requirements": [],
            } } },
        });
        json_patch::merge(&mut pool, &json!({ "spec": spec }));
        pool
    }

    fn said(object: &Value) -> Vec<String> {
        objections(object).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_sound_object_is_let_through() {
        assert!(said(&pool(&json!({}))).is_empty());
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": "web", "creationTimestamp": null, "managedFields": [{ "novel": 1 }] },
            "spec": { "selector": { "matchLabels": { "a": "b" } }, "strategy": {}, "template": { "spec": { "containers": [
                { "name": "c", "resources": { "requests": { "cpu": 1, "example.com/gpu": "1" } } },
            ] } } },
            "status": { "novel": 1 },
        });
        assert!(said(&deployment).is_empty(), "{:?}", said(&deployment));
    }

    #[test]
    fn what_is_misspelt_is_named() {
        assert_eq!(
            said(&pool(
                &json!({ "disruption": { "consolidateAfter": "1m", "colour": "red" } })
            )),
            [
                "NodePool a: spec.disruption.colour: unknown field; expected one that karpenter.sh/v1 NodePool has"
            ]
        );
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" },
            "spec": { "containers": [{ "name": "c", "resources": { "request": { "cpu": "1" } } }], "contianers": [1] },
        });
        assert_eq!(
            said(&pod),
            [
                "Pod p: spec.containers[0].resources.request: unknown field; expected one that v1 Pod has",
                "Pod p: spec.contianers: unknown field; expected one that v1 Pod has",
            ]
        );
    }

    #[test]
    fn what_a_definition_refuses_is_named() {
        let wrong = said(&pool(
            &json!({ "disruption": { "consolidateAfter": "1m", "consolidationPolicy": "WhenFull" } }),
        ));
        assert_eq!(wrong.len(), 1);
        let start =
            "NodePool a: spec.disruption.consolidationPolicy: Unsupported value: \"WhenFull\"";
        assert!(wrong[0].starts_with(start), "{wrong:?}");
        let mut old = pool(&json!({}));
        old["apiVersion"] = "karpenter.sh/v2".into();
        assert_eq!(
            said(&old),
            ["NodePool a: apiVersion: \"karpenter.sh/v2\"; expected karpenter.sh/v1"]
        );
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_field() {
        use k8s_openapi::api::core::v1::Pod;

        let pod = |image: Value, cpu: Value| {
            json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p", "labels": { "a/b": "c" } },
                "spec": { "containers": [
                    { "name": "good" },
                    { "name": "c", "image": image, "resources": { "requests": { "cpu": cpu } } },
                ] },
            })
        };
        assert!(read::<Pod>(&pod(json!("pause"), json!(1))).is_ok());
        let refused = |object: &Value| read::<Pod>(object).unwrap_err().to_string();
        assert_eq!(
            refused(&pod(json!(5), json!(1))),
            "Pod p: spec.containers[1].image: invalid type: integer `5`, expected a string"
        );
        assert_eq!(
            refused(&pod(json!("pause"), json!([1]))),
            "Pod p: spec.containers[1].resources.requests.cpu: invalid type: sequence, expected Quantity"
        );
        let mut label = pod(json!("pause"), json!(1));
        label["metadata"]["labels"]["a/b"] = json!({});
        let start = "Pod p: metadata.labels.a/b: invalid type: map";
        assert!(refused(&label).starts_with(start), "{}", refused(&label));
    }

    #[test]
    fn what_was_told_of_a_field_or_around_it_is_not_told_again() {
        let objection = Objection {
            object: "NodePool a".to_owned(),
            field: "spec.requirements[0].operator".to_owned(),
            message: "m".to_owned(),
        };
        assert!(objection.is_told_by("NodePool a: spec.requirements[0]: operator \"x\""));
        assert!(objection.is_told_by("NodePool a: spec.requirements[0].operator: x"));
        assert!(!objection.is_told_by("NodePool a: spec.requirements[1]: x"));
        assert!(!objection.is_told_by("NodePool b: spec.requirements[0]: x"));
        assert!(!objection.is_told_by("NodePool a: spec.req: x"));
    }
}
