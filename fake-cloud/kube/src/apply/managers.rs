//! Who owns which fields: the entries of `metadata.managedFields`.

use serde_json::{Value, json};

use super::fields::FieldSet;
use crate::meta::{self, at, text};
use crate::ops::Part;

/// How a manager came by its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// By applying.
    Apply,
    /// By anything else.
    Update,
}

impl Operation {
    const fn word(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// One owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manager {
    /// Its name.
    pub name: String,
    /// How it owns.
    pub operation: Operation,
    /// Version of the object it spoke.
    pub api_version: String,
    /// Subresource it wrote, empty for the object.
    pub subresource: String,
    /// When it last changed something; empty when it only said what was so already.
    pub time: String,
    /// What it owns.
    pub fields: FieldSet,
}

impl Manager {
    /// Whether two entries are of one owner. Who applies is the same in whatever version.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let version = |m: &Self| match m.operation {
            Operation::Apply => String::new(),
            Operation::Update => m.api_version.clone(),
        };
        (&self.name, self.operation, &self.subresource)
            == (&other.name, other.operation, &other.subresource)
            && version(self) == version(other)
    }

    /// As messages name it.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

/// The owners of an object.
#[must_use]
pub fn of(object: &Value) -> Vec<Manager> {
    at(object, &["metadata", "managedFields"])
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter(|entry| entry.get("manager").is_some())
        .map(|entry| Manager {
            name: text(entry, &["manager"]).to_owned(),
            operation: if text(entry, &["operation"]) == "Apply" {
                Operation::Apply
            } else {
                Operation::Update
            },
            api_version: text(entry, &["apiVersion"]).to_owned(),
            subresource: text(entry, &["subresource"]).to_owned(),
            time: text(entry, &["time"]).to_owned(),
            fields: entry
                .get("fieldsV1")
                .map(FieldSet::from_json)
                .unwrap_or_default(),
        })
        .collect()
}

/// Writes the owners into an object; those that own nothing are dropped.
pub fn write(object: &mut Value, mut managers: Vec<Manager>) {
    managers.retain(|m| !m.fields.is_empty());
    // Applies first, then by age, as the real server sorts them.
    managers.sort_by(|a, b| {
        let rank = |m: &Manager| m.operation == Operation::Update;
        (rank(a), &a.time, &a.name, &a.subresource).cmp(&(
            rank(b),
            &b.time,
            &b.name,
            &b.subresource,
        ))
    });
    let entries: Vec<Value> = managers
        .iter()
        .map(|m| {
            let mut entry = json!({
                "manager": m.name, "operation": m.operation.word(), "apiVersion": m.api_version,
                "fieldsType": "FieldsV1", "fieldsV1": m.fields.to_json(),
            });
            if !m.time.is_empty() {
                meta::as_map(&mut entry).insert("time".into(), m.time.as_str().into());
            }
            if !m.subresource.is_empty() {
                meta::as_map(&mut entry)
                    .insert("subresource".into(), m.subresource.as_str().into());
            }
            entry
        })
        .collect();
    let value = (!entries.is_empty()).then(|| entries.into());
    meta::set(meta::metadata(object), "managedFields", value);
}

/// Drops from a set what nobody owns: identity, what the server writes, and the part another endpoint writes.
pub fn strip(set: &mut FieldSet, part: Part, has_status: bool) {
    const SERVERS: [&str; 10] = [
        "f:name",
        "f:namespace",
        "f:creationTimestamp",
        "f:selfLink",
        "f:uid",
        "f:generation",
        "f:managedFields",
        "f:resourceVersion",
        "f:deletionTimestamp",
        "f:deletionGracePeriodSeconds",
    ];
    set.remove(&["f:apiVersion"]);
    set.remove(&["f:kind"]);
    for field in SERVERS {
        set.remove(&["f:metadata", field]);
    }
    if let Some(metadata) = set.below.get_mut("f:metadata") {
        metadata.member = false;
        if metadata.below.is_empty() {
            set.below.remove("f:metadata");
        }
    }
    match part {
        Part::Main if has_status => set.remove(&["f:status"]),
        Part::Main => {}
        Part::EphemeralContainers => set.remove(&["f:status"]),
        Part::Status => set
            .below
            .retain(|key, _| key == "f:status" || key == "f:metadata"),
    }
}
