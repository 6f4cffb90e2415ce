//! Kubernetes objects from files: YAML streams, JSON, `List`s, gzip. Every error names the file and the document.

use std::path::Path;

use karpenter_runtime::gzip::{self, GzipError};
use serde_json::Value;

/// Why a file is not a list of objects.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file cannot be read.
    #[error("{file}: cannot be read: {source}")]
    Read {
        /// File.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// It cannot be decompressed.
    #[error(transparent)]
    Gzip(#[from] GzipError),
    /// The text is not YAML or JSON.
    #[error("{file}: expected YAML or JSON: {message}")]
    Parse {
        /// File.
        file: String,
        /// Why, with line and column.
        message: String,
    },
    /// An object of an old version cannot be made one of today's.
    #[error("{file}: {message}")]
    Convert {
        /// File.
        file: String,
        /// Object, field and expectation.
        message: String,
    },
    /// A document is no object.
    #[error("{file}: document {index}: expected a Kubernetes object with {missing}")]
    NotAnObject {
        /// File.
        file: String,
        /// Which document, from 1.
        index: usize,
        /// The missing field.
        missing: &'static str,
    },
}

/// Manifests of before `v1` as `convert` rewrites them, with a line for each warning.
///
/// # Errors
/// When one cannot be converted.
pub fn upgrade(
    objects: Vec<Value>,
    file: &str,
) -> Result<(Vec<Value>, Vec<String>), ManifestError> {
    let converted = karpenter_api::convert::convert(objects);
    if let Some(error) = converted.errors.first() {
        return Err(ManifestError::Convert {
            file: file.to_owned(),
            message: error.to_string(),
        });
    }
    let warnings = converted.warnings.iter();
    let warnings = warnings
        .map(|w| format!("{}: {}: {}", w.object, w.field, w.message))
        .collect();
    Ok((converted.docs, warnings))
}

/// Reads a file, decompressing it when it starts with gzip's magic bytes.
///
/// # Errors
/// When it cannot be read or decompressed.
pub fn read_bytes(path: &Path) -> Result<Vec<u8>, ManifestError> {
    let file = path.display().to_string();
    let raw = std::fs::read(path).map_err(|source| ManifestError::Read {
        file: file.clone(),
        source,
    })?;
    Ok(gzip::unpack(&raw, &file)?.into_owned())
}

/// The objects of a file, `List`s taken apart, empty documents left out.
///
/// # Errors
/// See [`ManifestError`].
pub fn read_objects(path: &Path) -> Result<Vec<Value>, ManifestError> {
    let bytes = read_bytes(path)?;
    parse_objects(&bytes, &path.display().to_string())
}

/// The objects of a text.
///
/// # Errors
/// See [`ManifestError`].
pub fn parse_objects(bytes: &[u8], file: &str) -> Result<Vec<Value>, ManifestError> {
    let parse_error = |message: String| ManifestError::Parse {
        file: file.to_owned(),
        message,
    };
    let text = std::str::from_utf8(bytes).map_err(|e| parse_error(format!("not UTF-8: {e}")))?;
    let documents: Vec<Value> = if text.trim_start().starts_with(['{', '[']) {
        // A big dump in JSON is read by the JSON parser: several times faster, and its limits are not YAML's.
        let json = serde_json::Deserializer::from_str(text).into_iter::<Value>();
        match json.collect::<Result<_, _>>() {
            Ok(documents) => documents,
            // YAML may open with a brace, too.
            Err(e) => serde_saphyr::from_multiple(text).map_err(|_| parse_error(e.to_string()))?,
        }
    } else {
        serde_saphyr::from_multiple(text).map_err(|e| parse_error(e.to_string()))?
    };
    let mut objects = Vec::new();
    for (i, document) in documents.into_iter().enumerate() {
        flatten(document, file, i + 1, &mut objects)?;
    }
    Ok(objects)
}

fn flatten(
    document: Value,
    file: &str,
    index: usize,
    out: &mut Vec<Value>,
) -> Result<(), ManifestError> {
    let missing = |missing| ManifestError::NotAnObject {
        file: file.to_owned(),
        index,
        missing,
    };
    match document {
        Value::Null => Ok(()),
        Value::Array(items) => items
            .into_iter()
            .try_for_each(|item| flatten(item, file, index, out)),
        Value::Object(mut map) => {
            let kind = map
                .get("kind")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned();
            if kind.is_empty() {
                return Err(missing("a kind"));
            }
            if map
                .get("apiVersion")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .is_empty()
            {
                return Err(missing("an apiVersion"));
            }
            if let (true, Some(Value::Array(items))) = (kind.ends_with("List"), map.remove("items"))
            {
                let item_kind = kind.strip_suffix("List").unwrap_or_default().to_owned();
                let version = map.get("apiVersion").cloned().unwrap_or_default();
                for mut item in items {
                    // Items of a typed list (`PodList`) come without kind and apiVersion.
                    if let (false, Value::Object(o)) = (item_kind.is_empty(), &mut item) {
                        o.entry("kind")
                            .or_insert_with(|| Value::String(item_kind.clone()));
                        o.entry("apiVersion").or_insert_with(|| version.clone());
                    }
                    flatten(item, file, index, out)?;
                }
                return Ok(());
            }
            out.push(Value::Object(map));
            Ok(())
        }
        _ => Err(missing("fields")),
    }
}
