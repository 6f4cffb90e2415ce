//! Sets of fields of an object, in the form `fieldsV1` keeps them: a tree of `f:name`, `k:{keys}` and `v:value`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde_json::{Map, Value};

use crate::crd::schema::ListType;
use crate::structure::Structure;

/// A set of paths. A node is in the set itself when `member`; what is below is relative to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    /// Whether this very path is in the set.
    pub member: bool,
    /// Paths below.
    pub below: BTreeMap<String, FieldSet>,
}

impl FieldSet {
    fn leaf() -> Self {
        Self {
            member: true,
            below: BTreeMap::new(),
        }
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }

    fn combine(
        &self,
        other: &Self,
        member: fn(bool, bool) -> bool,
        keep_left: bool,
        keep_right: bool,
    ) -> Self {
        let empty = Self::default();
        let mut below = BTreeMap::new();
        let right = other
            .below
            .keys()
            .filter(|k| keep_right && !self.below.contains_key(*k));
        let keys = self
            .below
            .keys()
            .filter(|k| keep_left || other.below.contains_key(*k))
            .chain(right);
        for key in keys {
            let left = self.below.get(key).unwrap_or(&empty);
            let right = other.below.get(key).unwrap_or(&empty);
            let node = left.combine(right, member, keep_left, keep_right);
            if !node.is_empty() {
                below.insert(key.clone(), node);
            }
        }
        Self {
            member: member(self.member, other.member),
            below,
        }
    }

    /// In either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a || b, true, true)
    }

    /// In this one and not in the other.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a && !b, true, false)
    }

    /// In both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a && b, false, false)
    }

    /// The set without everything at and below a path.
    pub fn remove(&mut self, path: &[&str]) {
        match path {
            [] => {}
            [last] => {
                self.below.remove(*last);
            }
            [first, rest @ ..] => {
                if let Some(node) = self.below.get_mut(*first) {
                    node.remove(rest);
                    if node.is_empty() {
                        self.below.remove(*first);
                    }
                }
            }
        }
    }

    /// `fieldsV1`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        if self.member && !self.below.is_empty() {
            map.insert(".".into(), Value::Object(Map::new()));
        }
        for (key, node) in &self.below {
            map.insert(key.clone(), node.to_json());
        }
        Value::Object(map)
    }

    /// Reads `fieldsV1`.
    #[must_use]
    pub fn from_json(value: &Value) -> Self {
        let mut root = Self::read(value);
        root.member = false;
        root
    }

    fn read(value: &Value) -> Self {
        let Some(map) = value.as_object() else {
            return Self::leaf();
        };
        let below: BTreeMap<String, Self> = map
            .iter()
            .filter(|(key, _)| *key != ".")
            .map(|(key, node)| (key.clone(), Self::read(node)))
            .collect();
        Self {
            member: below.is_empty() || map.contains_key("."),
            below,
        }
    }

    /// Paths as messages show them: `.spec.containers[name="a"].image`.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.write_paths("", &mut paths);
        paths
    }

    fn write_paths(&self, at: &str, paths: &mut Vec<String>) {
        // Members of a level first, then what is below them, as the real server lists them.
        for (key, _) in self.below.iter().filter(|(_, node)| node.member) {
            paths.push(format!("{at}{}", element_text(key)));
        }
        for (key, node) in &self.below {
            node.write_paths(&format!("{at}{}", element_text(key)), paths);
        }
    }
}

fn element_text(key: &str) -> String {
    match key.split_once(':') {
        Some(("f", name)) => format!(".{name}"),
        Some(("v", value)) => format!("[={value}]"),
        Some(("k", keys)) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let parts: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
            format!("[{}]", parts.join(","))
        }
        _ => format!("[{key}]"),
    }
}

/// The name of a field in a set.
#[must_use]
pub fn field(name: &str) -> String {
    format!("f:{name}")
}

/// What tells an element of a keyed list from others, as a set names it.
#[must_use]
pub fn element(list: &ListType, item: &Value) -> String {
    match list {
        ListType::Map(keys) => format!("k:{}", Value::Object(keys_of(keys, item))),
        _ => format!("v:{item}"),
    }
}

fn keys_of(keys: &[String], item: &Value) -> Map<String, Value> {
    keys.iter()
        .filter_map(|key| {
            let value = item.get(key).cloned();
            // The only key with a default in a built-in list.
            let value = value.or_else(|| (key == "protocol").then(|| "TCP".into()));
            value.map(|v| (key.clone(), v))
        })
        .collect()
}

/// All fields of a value at `path` that hold values: what an apply configuration says.
#[must_use]
pub fn of<'v>(structure: &Structure<'_>, path: &mut Vec<&'v str>, value: &'v Value) -> FieldSet {
    fields(structure, path, value, false)
}

/// All fields of a value at `path`, the maps and lists that hold others as well: what came with a value that was not
/// there before.
fn whole<'v>(structure: &Structure<'_>, path: &mut Vec<&'v str>, value: &'v Value) -> FieldSet {
    fields(structure, path, value, true)
}

fn fields<'v>(
    structure: &Structure<'_>,
    path: &mut Vec<&'v str>,
    value: &'v Value,
    containers: bool,
) -> FieldSet {
    let mut set = FieldSet {
        member: containers,
        below: BTreeMap::new(),
    };
    match value {
        Value::Object(map) if !map.is_empty() && !structure.map_is_atomic(path) => {
            for (key, below) in map {
                path.push(key);
                set.below
                    .insert(field(key), fields(structure, path, below, containers));
                path.pop();
            }
        }
        Value::Array(items) if !items.is_empty() => match structure.list(path) {
            ListType::Atomic => set.member = true,
            list => {
                for item in items {
                    let mut below = match list {
                        ListType::Map(_) => fields(structure, path, item, containers),
                        _ => FieldSet::default(),
                    };
                    below.member = true;
                    set.below.insert(element(&list, item), below);
                }
            }
        },
        _ => set.member = true,
    }
    set
}

/// Elements of lists that the list has already, as messages tell them.
#[must_use]
pub fn duplicates(structure: &Structure<'_>, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    look_for_duplicates(structure, &mut Vec::new(), value, "", &mut found);
    found
}

fn look_for_duplicates<'v>(
    structure: &Structure<'_>,
    path: &mut Vec<&'v str>,
    value: &'v Value,
    at: &str,
    found: &mut Vec<String>,
) {
    match value {
        Value::Object(map) if !structure.map_is_atomic(path) => {
            for (key, below) in map {
                path.push(key);
                look_for_duplicates(structure, path, below, &format!("{at}.{key}"), found);
                path.pop();
            }
        }
        Value::Array(items) => {
            let list = structure.list(path);
            if list == ListType::Atomic {
                return;
            }
            let mut seen = BTreeSet::new();
            for item in items {
                let element = element(&list, item);
                let text = element_text(&element);
                // What has no key is refused for that.
                if element != NO_KEYS && !seen.insert(element) {
                    found.push(format!("{at}: duplicate entries for key {text}"));
                }
                if list != ListType::Set {
                    look_for_duplicates(structure, path, item, &format!("{at}{text}"), found);
                }
            }
        }
        _ => {}
    }
}

/// An element of a keyed list that has none of the keys.
const NO_KEYS: &str = "k:{}";

/// How two states differ: what was added or modified, and what was removed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Added or modified.
    pub changed: FieldSet,
    /// Removed.
    pub removed: FieldSet,
}

static NO_MAP: LazyLock<Value> = LazyLock::new(|| Value::Object(Map::new()));
static NO_LIST: LazyLock<Value> = LazyLock::new(|| Value::Array(Vec::new()));

/// A value that is there and null, as an empty one of the other's kind.
fn filled<'v>(value: &'v Value, other: &Value) -> &'v Value {
    match (value, other) {
        (Value::Null, Value::Object(_)) => &NO_MAP,
        (Value::Null, Value::Array(_)) => &NO_LIST,
        _ => value,
    }
}

/// Compares two states at `path`.
#[must_use]
pub fn compare<'v>(
    structure: &Structure<'_>,
    path: &mut Vec<&'v str>,
    old: &'v Value,
    new: &'v Value,
) -> Difference {
    let mut difference = Difference::default();
    if old == new {
        return difference;
    }
    match (filled(old, new), filled(new, old)) {
        (Value::Object(a), Value::Object(b)) if !structure.map_is_atomic(path) => {
            for (key, before) in a {
                path.push(key);
                match b.get(key) {
                    Some(after) => {
                        difference.take(field(key), compare(structure, path, before, after))
                    }
                    None => difference.lost(field(key), whole(structure, path, before)),
                }
                path.pop();
            }
            for (key, after) in b.iter().filter(|(key, _)| !a.contains_key(*key)) {
                path.push(key);
                difference.gained(field(key), whole(structure, path, after));
                path.pop();
            }
        }
        (Value::Array(a), Value::Array(b)) if structure.list(path) != ListType::Atomic => {
            let list = structure.list(path);
            let index = |items: &'v [Value]| -> BTreeMap<String, &'v Value> {
                items
                    .iter()
                    .map(|item| (element(&list, item), item))
                    .collect()
            };
            let (a, b) = (index(a), index(b));
            let element_of = |path: &mut Vec<&'v str>, item: &'v Value| {
                let mut set = match list {
                    ListType::Map(_) => whole(structure, path, item),
                    _ => FieldSet::default(),
                };
                set.member = true;
                set
            };
            for (key, before) in &a {
                match b.get(key) {
                    Some(after) => {
                        difference.take(key.clone(), compare(structure, path, before, after))
                    }
                    None => difference.lost(key.clone(), element_of(path, before)),
                }
            }
            for (key, after) in b.iter().filter(|(key, _)| !a.contains_key(*key)) {
                difference.gained(key.clone(), element_of(path, after));
            }
        }
        (old, new) => {
            difference.changed = whole(structure, path, new);
            difference.removed = whole(structure, path, old).minus(&difference.changed);
        }
    }
    difference
}

impl Difference {
    fn take(&mut self, key: String, below: Self) {
        self.gained(key.clone(), below.changed);
        self.lost(key, below.removed);
    }
    fn gained(&mut self, key: String, set: FieldSet) {
        if !set.is_empty() {
            self.changed.below.insert(key, set);
        }
    }
    fn lost(&mut self, key: String, set: FieldSet) {
        if !set.is_empty() {
            self.removed.below.insert(key, set);
        }
    }
}
