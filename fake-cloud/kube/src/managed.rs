//! Field ownership (`metadata.managedFields`) of writes that are not applies.

use serde_json::{Value, json};

use crate::apply::managers::{self, Manager, Operation};
use crate::apply::{FieldSet, fields};
use crate::meta::at;
use crate::ops::{Part, State, Target, WriteOptions};
use crate::structure::Structure;

/// Notes who owns the fields that a write changed: the writer owns what it set, nobody what it removed. The server's
/// own loops name no manager; they take fields from others without owning them.
pub fn track_write(
    state: &State,
    target: &Target,
    old: Option<(&Value, Part)>,
    new: &mut Value,
    options: &WriteOptions,
) {
    let blank = blank(target);
    let (before, part) = old.unwrap_or((&blank, Part::Main));
    let mut owners = owners_before(before, new);
    if owners.is_empty() && options.manager.is_none() && options.applied.is_none() {
        crate::meta::metadata(new).remove("managedFields");
        return;
    }
    let time = state.now();
    if let (Some(applied), Some(name)) = (&options.applied, &options.manager) {
        owners.push(Manager {
            name: name.clone(),
            operation: Operation::Apply,
            api_version: target.api_version(),
            subresource: subresource(part),
            time,
            fields: applied.clone(),
        });
        managers::write(new, owners);
        return;
    }
    let structure = Structure::of(target);
    let difference = {
        let mut difference = fields::compare(&structure, &mut Vec::new(), before, new);
        for set in [&mut difference.changed, &mut difference.removed] {
            managers::strip(set, part, target.has_status());
        }
        difference
    };
    let lost = difference.changed.union(&difference.removed);
    if !lost.is_empty() {
        for owner in &mut owners {
            owner.fields = owner.fields.minus(&lost);
        }
        if let Some(name) = &options.manager {
            own(&mut owners, target, name, part, time, &difference.changed);
        }
    }
    managers::write(new, owners);
}

/// What a new object is compared with: nothing for custom resources, for built-in ones the fields that their Go types
/// always write. Nobody owns those themselves, only what is in them.
fn blank(target: &Target) -> Value {
    let template = || json!({"metadata": {}, "spec": {"containers": null}});
    if target.info.custom {
        return json!({"metadata": {}});
    }
    let spec = match (target.info.group.as_str(), target.info.plural.as_str()) {
        ("", "pods") => json!({"containers": null}),
        ("apps", "deployments") => {
            json!({"selector": null, "template": template(), "strategy": {}})
        }
        ("apps", "replicasets") => json!({"selector": null, "template": template()}),
        ("apps", "daemonsets" | "statefulsets") => {
            json!({"selector": null, "template": template(), "updateStrategy": {}})
        }
        ("batch", "jobs") => json!({"template": template()}),
        ("batch", "cronjobs") => {
            json!({"jobTemplate": {"metadata": {}, "spec": {"template": template()}}})
        }
        ("", "nodes") => {
            let status = crate::defaults::blank_node_status();
            return json!({"metadata": {}, "spec": {}, "status": status});
        }
        ("", "events") => {
            return json!({"metadata": {}, "source": {}, "reportingComponent": "", "reportingInstance": ""});
        }
        (crate::events::GROUP, "events") => return json!({"metadata": {}, "deprecatedSource": {}}),
        ("", "persistentvolumeclaims") => json!({"resources": {}}),
        ("apiextensions.k8s.io", "customresourcedefinitions") => {
            json!({"names": {}, "versions": null})
        }
        _ => json!({}),
    };
    json!({"metadata": {}, "spec": spec, "status": {}})
}

fn own(
    owners: &mut Vec<Manager>,
    target: &Target,
    name: &str,
    part: Part,
    time: String,
    changed: &FieldSet,
) {
    let mut me = Manager {
        name: name.to_owned(),
        operation: Operation::Update,
        api_version: target.api_version(),
        subresource: subresource(part),
        time,
        fields: changed.clone(),
    };
    match owners.iter_mut().find(|o| o.is_same(&me)) {
        Some(existing) => {
            me.fields = existing.fields.union(changed);
            *existing = me;
        }
        None => owners.push(me),
    }
}

/// The subresource's name in an entry.
#[must_use]
pub fn subresource(part: Part) -> String {
    match part {
        Part::Main => String::new(),
        Part::Status => "status".to_owned(),
        Part::EphemeralContainers => "ephemeralcontainers".to_owned(),
    }
}

/// The owners a write starts from: those the client sent, if it sent any; those that were there otherwise. A single
/// empty entry is the documented way of forgetting them all.
fn owners_before(before: &Value, new: &Value) -> Vec<Manager> {
    let sent = at(new, &["metadata", "managedFields"]).and_then(Value::as_array);
    match sent {
        Some(entries) if !entries.is_empty() => managers::of(new),
        _ => managers::of(before),
    }
}
