//! The fields of the built-in kinds' types, from a table that `local-control-plane types` prints of the real ones.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

const TABLE: &str = include_str!("types.txt");

/// What a field holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number of 32 bits.
    Int32,
    /// A whole number of 64 bits.
    Int64,
    /// A number with a fraction.
    Double,
    /// Text.
    String,
    /// Bytes, in base64 where they are shown.
    Bytes,
    /// A time in seconds.
    Time,
    /// A time in microseconds.
    MicroTime,
    /// An amount such as `1Gi`.
    Quantity,
    /// A number or text.
    IntOrString,
    /// A set of fields that a manager owns, as JSON.
    FieldsV1,
    /// Any document.
    Raw,
    /// Another type, by its name.
    Type(&'static str),
    /// A list.
    List(Box<Kind>),
    /// A map from text.
    Map(Box<Kind>),
    /// A map from text to lists, which protobuf has as messages.
    MapOfLists(Box<Kind>),
}

/// One field.
#[derive(Clone, Debug)]
pub struct Field {
    /// Its name in JSON; none where its fields stand in the type itself.
    pub name: Option<&'static str>,
    /// Its number in protobuf.
    pub number: u32,
    /// Not shown when it is empty.
    pub omits_empty: bool,
    /// May be left out, which is not the same as empty.
    pub pointer: bool,
    /// What it holds.
    pub kind: Kind,
}

/// All types and kinds.
#[derive(Debug, Default)]
pub struct Types {
    kinds: HashMap<(&'static str, &'static str), &'static str>,
    fields: BTreeMap<&'static str, Vec<Field>>,
}

static TYPES: LazyLock<Types> = LazyLock::new(|| Types::read(TABLE));

/// The table.
#[must_use]
pub fn all() -> &'static Types {
    &TYPES
}

impl Types {
    fn read(table: &'static str) -> Self {
        let mut types = Self::default();
        let mut current = "";
        for line in table.lines() {
            let words: Vec<&'static str> = line.split(' ').collect();
            match words.as_slice() {
                ["kind", version, kind, name] => {
                    types.kinds.insert((version, kind), name);
                }
                ["type", name] => {
                    current = name;
                    types.fields.entry(name).or_default();
                }
                [name, number, kind] => {
                    let digits = number.trim_end_matches(['?', '*']);
                    types.fields.entry(current).or_default().push(Field {
                        name: (*name != "-").then_some(name),
                        number: digits.parse().unwrap_or(0),
                        omits_empty: number.ends_with('?'),
                        pointer: number.ends_with('*'),
                        kind: Kind::read(kind),
                    });
                }
                _ => {}
            }
        }
        types
    }

    /// The type of a kind.
    #[must_use]
    pub fn of_kind(&self, api_version: &str, kind: &str) -> Option<&'static str> {
        self.kinds.get(&(api_version, kind)).copied()
    }

    /// The fields of a type; none of one that is not known.
    #[must_use]
    pub fn fields(&self, name: &str) -> &[Field] {
        self.fields.get(name).map_or(&[], Vec::as_slice)
    }
}

impl Kind {
    fn read(text: &'static str) -> Self {
        if let Some(below) = text.strip_prefix("[]") {
            return Self::List(Box::new(Self::read(below)));
        }
        if let Some(below) = text.strip_prefix("map:items:") {
            return Self::MapOfLists(Box::new(Self::read(below)));
        }
        if let Some(below) = text.strip_prefix("map:") {
            return Self::Map(Box::new(Self::read(below)));
        }
        match text {
            "bool" => Self::Bool,
            "int32" => Self::Int32,
            "int64" => Self::Int64,
            "double" => Self::Double,
            "string" => Self::String,
            "bytes" => Self::Bytes,
            "Time" => Self::Time,
            "MicroTime" => Self::MicroTime,
            "Quantity" => Self::Quantity,
            "IntOrString" => Self::IntOrString,
            "FieldsV1" => Self::FieldsV1,
            "Raw" => Self::Raw,
            name => Self::Type(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_that_a_field_names_is_there() {
        fn below(kind: &Kind) -> Option<&'static str> {
            match kind {
                Kind::Type(name) => Some(name),
                Kind::List(k) | Kind::Map(k) | Kind::MapOfLists(k) => below(k),
                _ => None,
            }
        }
        let types = all();
        assert!(types.fields.len() > 300, "{}", types.fields.len());
        for (name, fields) in &types.fields {
            for field in fields {
                assert!(field.number > 0, "{name}: {field:?}");
                let known = below(&field.kind).is_none_or(|t| types.fields.contains_key(t));
                assert!(known, "{name}: {field:?}");
            }
        }
        for (kind, name) in &types.kinds {
            assert!(types.fields.contains_key(name), "{kind:?}");
        }
    }

    #[test]
    fn a_pod_has_its_fields() {
        let types = all();
        let pod = types.of_kind("v1", "Pod").unwrap();
        let names: Vec<_> = types.fields(pod).iter().filter_map(|f| f.name).collect();
        assert_eq!(names, ["metadata", "spec", "status"]);
        assert_eq!(types.of_kind("v1", "Nothing"), None);
    }
}
