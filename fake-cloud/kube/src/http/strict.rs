//! What field validation finds in how a body is written: fields that come twice, and where they and unknown ones stand.

use std::collections::HashSet;
use std::fmt;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::DuplicateKeyPolicy;

use crate::patch::PatchKind;

/// More than this are not told of one body.
const TOLD_MAX: usize = 100;
/// What the reader of YAML begins with.
const IN_YAML: &str = "yaml: unmarshal errors:\n  ";
/// Fields of an operation of a JSON patch.
const OPERATION: [&str; 4] = ["op", "path", "from", "value"];

/// What is known of a body besides the document that it holds.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// The body, as far as its fields have places that are told.
    json: Option<Bytes>,
    /// What was found while it was read.
    found: Vec<String>,
}

impl Written {
    /// Of an object in JSON.
    #[must_use]
    pub fn json(body: &Bytes) -> Self {
        Self {
            json: Some(body.clone()),
            found: Vec::new(),
        }
    }

    /// Of an object in YAML, which the real server turns into JSON before it looks for more.
    #[must_use]
    pub fn yaml(body: &[u8]) -> Self {
        Self {
            json: None,
            found: twice_in_yaml(body).into_iter().collect(),
        }
    }

    /// Of a patch.
    #[must_use]
    pub fn patch(kind: PatchKind, body: &[u8]) -> Self {
        Self {
            json: None,
            found: of_patch(kind, body),
        }
    }

    /// What is to be told of an object whose type does not know some fields. A type finds both as it reads, and no more in
    /// what it does not know.
    #[must_use]
    pub fn typed(&self, unknown: &[String]) -> Vec<String> {
        let mut told = self.found.clone();
        let mut unknown: Vec<&str> = unknown.iter().map(String::as_str).collect();
        if let Some(json) = &self.json {
            let all = unknown.clone();
            each_field(json, &mut |path, again| {
                let known = !all.iter().any(|u| is_below(path, u));
                if let Some(at) = unknown.iter().position(|u| *u == path) {
                    told.push(unknown_field(unknown.remove(at)));
                } else if known && again {
                    push_new(&mut told, duplicate_field(path));
                }
            });
        }
        told.extend(unknown.into_iter().map(unknown_field));
        told.truncate(TOLD_MAX);
        told
    }

    /// What is to be told of an object that is read first, and then pruned.
    #[must_use]
    pub fn pruned(&self, unknown: &[String]) -> Vec<String> {
        let mut told = self.found.clone();
        if let Some(json) = &self.json {
            told.extend(twice(json));
        }
        told.extend(unknown.iter().map(|path| unknown_field(path)));
        told
    }
}

/// What a client is warned of: the reader of YAML says what it read before it says what it found.
#[must_use]
pub fn as_warning(text: &str) -> String {
    let (_, found) = text.rsplit_once(IN_YAML).unwrap_or(("", text));
    found.to_owned()
}

fn unknown_field(path: &str) -> String {
    format!("unknown field {path:?}")
}

fn duplicate_field(path: &str) -> String {
    format!("duplicate field {path:?}")
}

fn push_new(told: &mut Vec<String>, text: String) {
    if !told.contains(&text) {
        told.push(text);
    }
}

/// Whether a path is that of a field or of something in it.
fn is_below(path: &str, field: &str) -> bool {
    path.strip_prefix(field)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// What is told of the fields of a document in JSON that come twice.
fn twice(json: &[u8]) -> Vec<String> {
    let mut told = Vec::new();
    each_field(json, &mut |path, again| {
        if again && told.len() < TOLD_MAX {
            push_new(&mut told, duplicate_field(path));
        }
    });
    told
}

fn of_patch(kind: PatchKind, body: &[u8]) -> Vec<String> {
    if kind != PatchKind::Json {
        return twice(body);
    }
    let mut told = Vec::new();
    let mut skipped = String::new();
    each_field(body, &mut |path, again| {
        if !skipped.is_empty() && is_below(path, &skipped) {
            return;
        }
        let field = path.split_once("].").map_or("", |(_, field)| field);
        let text = if !field.contains(['.', '[']) && !OPERATION.contains(&field) {
            skipped = path.to_owned();
            unknown_field(path)
        } else if again {
            duplicate_field(path)
        } else {
            return;
        };
        push_new(&mut told, format!("json patch {text}"));
    });
    told
}

/// The first key of a document in YAML that its map has already.
fn twice_in_yaml(body: &[u8]) -> Option<String> {
    let options = serde_saphyr::options! { duplicate_keys: DuplicateKeyPolicy::Error };
    let error =
        serde_saphyr::from_slice_with_options::<serde::de::IgnoredAny>(body, options).err()?;
    let serde_saphyr::Error::DuplicateMappingKey { key, location } = error.without_snippet() else {
        return None;
    };
    let key = key.as_deref().unwrap_or_default();
    let line = location.line();
    Some(format!(
        "{IN_YAML}line {line}: key {key:?} already set in map"
    ))
}

/// Calls `see` with the path of every field of a document, and whether its object has one of that name already. What is
/// not JSON ends it.
fn each_field(json: &[u8], see: &mut dyn FnMut(&str, bool)) {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let mut path = String::new();
    let node = Node {
        path: &mut path,
        see,
    };
    // Whoever reads the document says what is wrong with it.
    let _ = node.deserialize(&mut reader);
}

/// A place in a document.
struct Node<'a> {
    path: &'a mut String,
    see: &'a mut dyn FnMut(&str, bool),
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        let start = self.path.len();
        while let Some(key) = map.next_key::<String>()? {
            if start > 0 {
                self.path.push('.');
            }
            self.path.push_str(&key);
            (self.see)(self.path, !seen.insert(key));
            map.next_value_seed(Node {
                path: self.path,
                see: self.see,
            })?;
            self.path.truncate(start);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let start = self.path.len();
        for index in 0_usize.. {
            self.path.push_str(&format!("[{index}]"));
            let item = list.next_element_seed(Node {
                path: self.path,
                see: self.see,
            })?;
            self.path.truncate(start);
            if item.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Written {
        Written::json(&Bytes::from(text.to_owned()))
    }

    #[test]
    fn fields_are_told_in_the_order_in_which_they_stand() {
        let body = json(
            r#"{"z": 1, "spec": {"a": 1, "list": [{"k": 1}, {"k": 1, "k": 2, "k": 3}], "a": 2}, "b": {"c": 1, "c": 2}}"#,
        );
        let unknown = ["b".to_owned(), "z".to_owned()];
        let (z, k, a) = (
            "unknown field \"z\"",
            "duplicate field \"spec.list[1].k\"",
            "duplicate field \"spec.a\"",
        );
        assert_eq!(body.typed(&unknown), [z, k, a, "unknown field \"b\""]);
        let pruned = [
            k,
            a,
            "duplicate field \"b.c\"",
            "unknown field \"b\"",
            "unknown field \"z\"",
        ];
        assert_eq!(body.pruned(&unknown), pruned);
        assert!(json("{\"a\": 1").typed(&[]).is_empty());
    }

    #[test]
    fn operations_of_a_patch_have_fields_of_their_own() {
        let body = br#"[{"op": "add", "path": "/a", "value": {"x": 1, "x": 2}, "why": {"y": 1, "y": 2}, "op": "add"}]"#;
        assert_eq!(
            Written::patch(PatchKind::Json, body).found,
            [
                "json patch duplicate field \"[0].value.x\"",
                "json patch unknown field \"[0].why\"",
                "json patch duplicate field \"[0].op\""
            ]
        );
        assert_eq!(
            Written::patch(PatchKind::Merge, br#"{"a": 1, "a": 2}"#).found,
            ["duplicate field \"a\""]
        );
    }

    #[test]
    fn yaml_tells_the_line() {
        assert_eq!(
            Written::yaml(b"a: 1\nb: {}\na: 2\n").found,
            ["yaml: unmarshal errors:\n  line 3: key \"a\" already set in map"]
        );
        assert!(Written::yaml(b"a: 1\nb: 2\n").found.is_empty());
    }
}
