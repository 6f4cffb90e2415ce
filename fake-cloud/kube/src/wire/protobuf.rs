//! Bodies in protobuf, as kubectl and Go clients send them, read into the JSON that they stand for.
//!
//! A body is `k8s\0` and a message that tells kind and version and holds the object's own message.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::types::{self, Field, Kind};
use crate::error::{ApiError, Result};
use crate::meta;

/// The media type.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

const MAGIC: &[u8] = b"k8s\0";
/// Messages nest at most this deep.
const DEPTH_MAX: usize = 64;

/// Reads a body that brings an object of `wanted`.
///
/// # Errors
/// 400 when it is malformed or of a kind that is not known.
pub fn read(body: &[u8], wanted: &str) -> Result<Value> {
    let unrecognized = |why: &str, shown: String| {
        ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {wanted}): {why} ({shown})"
        ))
    };
    let refuse = |why: String| {
        let hex: Vec<String> = body.iter().map(|b| format!("{b:02x}")).collect();
        unrecognized(&why, hex.concat())
    };
    let envelope = body.strip_prefix(MAGIC).ok_or_else(|| {
        unrecognized(
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]",
            String::from_utf8_lossy(body).into_owned(),
        )
    })?;
    let (mut version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for field in Fields(envelope) {
        match field.map_err(refuse)? {
            (1, Wire::Bytes(type_meta)) => {
                for field in Fields(type_meta) {
                    match field.map_err(refuse)? {
                        (1, Wire::Bytes(text)) => version = utf8(text).map_err(refuse)?,
                        (2, Wire::Bytes(text)) => kind = utf8(text).map_err(refuse)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(object)) => raw = object,
            _ => {}
        }
    }
    let Some(name) = types::all().of_kind(&version, &kind) else {
        return Err(ApiError::bad_request(format!(
            "no kind \"{kind}\" is registered for version \"{version}\" in protobuf: send JSON"
        )));
    };
    let mut map = message(name, raw, 0).map_err(|why| {
        let version = version.rsplit('/').next().unwrap_or_default();
        ApiError::unreadable(&kind, version, &kind, why)
    })?;
    map.insert("apiVersion".into(), version.into());
    map.insert("kind".into(), kind.into());
    Ok(Value::Object(map))
}

/// A field's value on the wire.
enum Wire<'a> {
    Number(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
}

impl Wire<'_> {
    /// The number of the wire type.
    const fn number(&self) -> u8 {
        match self {
            Self::Number(_) => 0,
            Self::Fixed64(_) => 1,
            Self::Bytes(_) => 2,
        }
    }
}

type Read<T> = std::result::Result<T, String>;

/// What Go says of a message that breaks off.
const EOF: &str = "unexpected EOF";

/// The fields of a message, one after the other.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn number(&mut self) -> Read<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (first, rest) = self.0.split_first().ok_or(EOF)?;
            self.0 = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("proto: integer overflow".to_owned())
    }

    fn take(&mut self, count: usize) -> Read<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(EOF)?;
        self.0 = rest;
        Ok(taken)
    }

    fn field(&mut self) -> Read<(u32, Wire<'a>)> {
        let tag = self.number()?;
        let number = u32::try_from(tag >> 3).map_err(|_| "proto: integer overflow")?;
        let value = match tag & 7 {
            0 => Wire::Number(self.number()?),
            1 => Wire::Fixed64(fixed(self.take(8)?)),
            2 => {
                let count = self.number()?;
                let count = usize::try_from(count).map_err(|_| "proto: integer overflow")?;
                Wire::Bytes(self.take(count)?)
            }
            5 => Wire::Number(fixed(self.take(4)?)),
            other => return Err(format!("proto: illegal wireType {other}")),
        };
        Ok((number, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Read<(u32, Wire<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

fn fixed(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |value, byte| (value << 8) | u64::from(*byte))
}

fn utf8(bytes: &[u8]) -> Read<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "a text is no UTF-8".to_owned())
}

fn message(name: &str, bytes: &[u8], depth: usize) -> Read<Map<String, Value>> {
    if depth > DEPTH_MAX {
        return Err("messages nest too deep".to_owned());
    }
    let fields = types::all().fields(name);
    let mut map = Map::new();
    for field in Fields(bytes) {
        let (number, wire) = field?;
        // Fields of newer versions are left alone.
        if let Some(field) = fields.iter().find(|f| f.number == number) {
            add(&mut map, field, wire, depth)?;
        }
    }
    Ok(map)
}

fn add(map: &mut Map<String, Value>, field: &Field, wire: Wire<'_>, depth: usize) -> Read<()> {
    let Some(name) = field.name else {
        if let (Kind::Type(below), Wire::Bytes(bytes)) = (&field.kind, wire) {
            map.extend(message(below, bytes, depth + 1)?);
        }
        return Ok(());
    };
    let of = |kind: &Kind, wire: Wire<'_>| -> Read<Value> {
        let wire_type = wire.number();
        value(kind, wire, depth)?.ok_or_else(|| other_type(wire_type, name))
    };
    match (&field.kind, wire) {
        (Kind::List(item), Wire::Bytes(bytes)) if is_number(item) => {
            // Numbers may come together.
            let mut packed = Fields(bytes);
            while !packed.0.is_empty() {
                let number = packed.number()?;
                push(map, name, of(item, Wire::Number(number))?);
            }
        }
        (Kind::List(item), wire) => push(map, name, of(item, wire)?),
        (Kind::Map(item), Wire::Bytes(bytes)) => {
            let (key, found) = entry(bytes, |wire| of(item, wire))?;
            let found = found.unwrap_or_else(|| empty(item));
            meta::as_map(map.entry(name).or_insert(Value::Null)).insert(key, found);
        }
        (Kind::MapOfLists(item), Wire::Bytes(bytes)) => {
            let (key, found) = entry(bytes, |wire| {
                let Wire::Bytes(list) = wire else {
                    return Err("a list in a map is no message".to_owned());
                };
                let items = Fields(list).filter_map(|field| match field {
                    Ok((1, one)) => Some(of(item, one)),
                    Ok(_) => None,
                    Err(why) => Some(Err(why)),
                });
                items.collect::<Read<Vec<Value>>>().map(Value::Array)
            })?;
            let found = found.unwrap_or_else(|| Value::Array(Vec::new()));
            meta::as_map(map.entry(name).or_insert(Value::Null)).insert(key, found);
        }
        (kind, wire) => {
            let value = of(kind, wire)?;
            // No time.
            if value.is_null() {
                return Ok(());
            }
            if field.pointer || !(field.omits_empty && is_empty(&value)) {
                map.insert(name.to_owned(), value);
            }
        }
    }
    Ok(())
}

fn push(map: &mut Map<String, Value>, name: &str, value: Value) {
    let list = map
        .entry(name)
        .or_insert_with(|| Value::Array(Vec::new()))
        .as_array_mut();
    list.into_iter().for_each(|list| list.push(value.clone()));
}

/// Key and value of a map's entry.
fn entry<'a>(
    bytes: &'a [u8],
    value: impl Fn(Wire<'a>) -> Read<Value>,
) -> Read<(String, Option<Value>)> {
    let (mut key, mut found) = (String::new(), None);
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Bytes(text)) => key = utf8(text)?,
            (2, wire) => found = Some(value(wire)?),
            _ => {}
        }
    }
    Ok((key, found))
}

fn is_number(kind: &Kind) -> bool {
    matches!(kind, Kind::Bool | Kind::Int32 | Kind::Int64)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

fn empty(kind: &Kind) -> Value {
    match kind {
        Kind::Bool => false.into(),
        Kind::Int32 | Kind::Int64 | Kind::Double => 0.into(),
        Kind::String | Kind::Bytes => "".into(),
        Kind::Quantity => "0".into(),
        _ => Value::Object(Map::new()),
    }
}

/// What Go says of a field that is sent in another form than its type's.
fn other_type(wire_type: u8, name: &str) -> String {
    let mut letters = name.chars();
    let first = letters.next().map(|c| c.to_ascii_uppercase());
    let name: String = first.into_iter().chain(letters).collect();
    format!("proto: wrong wireType = {wire_type} for field {name}")
}

/// One value; none when it is not in its kind's form.
fn value(kind: &Kind, wire: Wire<'_>, depth: usize) -> Read<Option<Value>> {
    Ok(Some(match (kind, wire) {
        (Kind::Bool, Wire::Number(n)) => (n != 0).into(),
        (Kind::Int32 | Kind::Int64, Wire::Number(n)) => signed(n).into(),
        (Kind::Double, Wire::Fixed64(bits)) => f64::from_bits(bits).into(),
        (Kind::String, Wire::Bytes(text)) => utf8(text)?.into(),
        (Kind::Bytes, Wire::Bytes(bytes)) => BASE64_STANDARD.encode(bytes).into(),
        (Kind::Time | Kind::MicroTime, Wire::Bytes(bytes)) => time(kind, bytes)?,
        (Kind::Quantity, Wire::Bytes(bytes)) => {
            let mut text = "0".to_owned();
            for field in Fields(bytes) {
                if let (1, Wire::Bytes(amount)) = field? {
                    text = utf8(amount)?;
                }
            }
            text.into()
        }
        (Kind::IntOrString, Wire::Bytes(bytes)) => int_or_string(bytes)?,
        (Kind::FieldsV1 | Kind::Raw, Wire::Bytes(bytes)) => {
            let mut document = Value::Null;
            for field in Fields(bytes) {
                if let (1, Wire::Bytes(json)) = field? {
                    document = serde_json::from_slice(json).map_err(|_| "a document is no JSON")?;
                }
            }
            document
        }
        (Kind::Type(name), Wire::Bytes(bytes)) => Value::Object(message(name, bytes, depth + 1)?),
        _ => return Ok(None),
    }))
}

/// Numbers below zero are sent as their 64 bits.
fn signed(number: u64) -> i64 {
    i64::from_ne_bytes(number.to_ne_bytes())
}

fn time(kind: &Kind, bytes: &[u8]) -> Read<Value> {
    let (mut seconds, mut nanos, mut told) = (0, 0, false);
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Number(n)) => (seconds, told) = (signed(n), true),
            (2, Wire::Number(n)) => nanos = i32::try_from(signed(n)).unwrap_or(0),
            _ => {}
        }
    }
    // No time at all is an empty message.
    if !told {
        return Ok(Value::Null);
    }
    let at = Timestamp::new(seconds, nanos).map_err(|_| "a time is out of bounds")?;
    Ok(match kind {
        Kind::MicroTime => meta::micro_time(at),
        _ => meta::time(at),
    }
    .into())
}

fn int_or_string(bytes: &[u8]) -> Read<Value> {
    let (mut is_text, mut number, mut text) = (false, 0, String::new());
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Number(n)) => is_text = n == 1,
            (2, Wire::Number(n)) => number = signed(n),
            (3, Wire::Bytes(t)) => text = utf8(t)?,
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    /// A field that holds bytes.
    fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
        out.extend_from_slice(content);
        out
    }

    fn body(version: &str, kind: &str, object: &[u8]) -> Vec<u8> {
        let type_meta = [bytes(1, version.as_bytes()), bytes(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), bytes(1, &type_meta), bytes(2, object)].concat()
    }

    #[test]
    fn reads_metadata_numbers_maps_and_what_is_inlined() {
        let label = [bytes(1, b"a"), bytes(2, b"b")].concat();
        let metadata = [
            bytes(1, b"p"),
            bytes(3, b""),
            bytes(8, b""),
            bytes(11, &label),
        ]
        .concat();
        let secret = bytes(1, b"s");
        // name, and the source that stands beside it.
        let volume = [bytes(1, b"v"), bytes(2, &bytes(6, &secret))].concat();
        let grace = [4 << 3, 30];
        let spec = [bytes(1, &volume), grace.to_vec()].concat();
        let pod = [bytes(1, &metadata), bytes(2, &spec)].concat();
        assert_eq!(
            read(&body("v1", "Pod", &pod), "Pod").unwrap(),
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "p", "labels": {"a": "b"}},
                "spec": {"volumes": [{"name": "v", "secret": {"secretName": "s"}}], "terminationGracePeriodSeconds": 30},
            })
        );
    }

    #[test]
    fn reads_either_form_of_a_port() {
        let number = [1 << 3, 0, 2 << 3, 80];
        let text = [vec![1 << 3, 1], bytes(3, b"web")].concat();
        assert_eq!(int_or_string(&number), Ok(json!(80)));
        assert_eq!(int_or_string(&text), Ok(json!("web")));
    }

    #[rstest]
    #[case(b"{}", "expected prefix [107 56 115 0] ({})")]
    #[case(b"k8s\0\x0a\xff", "unexpected EOF (6b3873000aff)")]
    #[case(b"k8s\0\x0b", "illegal wireType 3")]
    #[case(b"k8s\0\x0a\x04\x0a\x02v1", "no kind")]
    fn malformed_bodies_are_refused(#[case] body: &[u8], #[case] why: &str) {
        let error = read(body, "Pod").unwrap_err();
        assert_eq!(error.code, 400);
        assert!(error.message.contains(why), "{error}");
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let whole = body("v1", "Pod", &bytes(1, &bytes(1, b"p")));
        for end in 0..whole.len() {
            let _ = read(&whole[..end], "Pod");
        }
        for at in 0..whole.len() {
            for byte in 0..=255 {
                let mut spoilt = whole.clone();
                spoilt[at] = byte;
                let _ = read(&spoilt, "Pod");
            }
        }
    }
}
