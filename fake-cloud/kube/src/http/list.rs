//! Lists: selected, in pages, written straight from the shared objects.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::query::Query;
use crate::error::{ApiError, Result};
use crate::meta;
use crate::ops::{State, Target};
use crate::selectors::{FieldSelector, LabelSelector, Selectors};

/// A page of objects.
pub struct Page {
    /// The objects, shared with the store.
    pub items: Vec<Arc<Value>>,
    /// `metadata` of the list.
    pub metadata: Value,
}

/// Reads the selectors of a request; a name in the path selects one object.
///
/// # Errors
/// 400.
pub fn selectors(target: &Target, query: &Query) -> Result<Selectors> {
    Ok(Selectors {
        labels: LabelSelector::parse(query.get("labelSelector").unwrap_or(""))?,
        fields: FieldSelector::parse(&target.info, query.get("fieldSelector").unwrap_or(""))?,
    })
}

/// Collects a page.
///
/// # Errors
/// 400 for malformed parameters, 410 for a continue token from before a restart.
pub fn page(state: &State, target: &Target, query: &Query) -> Result<Page> {
    let selectors = selectors(target, query)?;
    let limit = query.number::<usize>("limit")?.filter(|l| *l > 0);
    check_version(state, query)?;
    let token = query.get("continue").map(Token::decode).transpose()?;
    let namespace = (!target.namespace.is_empty()).then_some(target.namespace.as_str());
    let after = token
        .as_ref()
        .map(|t| (t.namespace.as_str(), t.name.as_str()));
    let everything = selectors.is_everything();
    let mut items = Vec::new();
    let mut more = false;
    let mut remaining = 0_usize;
    for object in state.store.iter(&target.key, namespace, after) {
        if !everything && !selectors.matches(object) {
            continue;
        }
        if limit.is_some_and(|limit| items.len() >= limit) {
            more = true;
            if !everything {
                break;
            }
            remaining += 1;
            continue;
        }
        items.push(Arc::clone(object));
    }
    // All pages of a list tell the version of the first, from which a client then watches.
    let version = token.map_or_else(|| state.store.version(), |t| t.version);
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if let (true, Some(last), Some(map)) = (more, items.last(), metadata.as_object_mut()) {
        let token = Token {
            version,
            namespace: meta::namespace(last).to_owned(),
            name: meta::name(last).to_owned(),
        };
        map.insert("continue".into(), token.encode().into());
        if everything {
            map.insert("remainingItemCount".into(), remaining.into());
        }
    }
    Ok(Page { items, metadata })
}

/// Refuses versions from the future, as a list "not older than" them cannot be served.
fn check_version(state: &State, query: &Query) -> Result<()> {
    let Some(version) = query.number::<u64>("resourceVersion")? else {
        return Ok(());
    };
    if version > state.store.version() {
        return Err(ApiError {
            code: 504,
            reason: "Timeout",
            message: format!(
                "Timeout: Too large resource version: {version}, current: {}",
                state.store.version()
            ),
            details: json!({"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}], "retryAfterSeconds": 1}),
        });
    }
    Ok(())
}

/// Where a list goes on.
#[derive(Debug, PartialEq, Eq)]
struct Token {
    version: u64,
    namespace: String,
    name: String,
}

impl Token {
    fn encode(&self) -> String {
        let text = json!({"v": "meta.k8s.io/v1", "rv": self.version, "ns": self.namespace, "start": self.name});
        BASE64_URL_SAFE_NO_PAD.encode(text.to_string())
    }

    fn decode(text: &str) -> Result<Self> {
        let bad = || ApiError::bad_request("continue key is not valid");
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| bad())?;
        let token: Value = serde_json::from_slice(&bytes).map_err(|_| bad())?;
        Ok(Self {
            version: token.get("rv").and_then(Value::as_u64).ok_or_else(bad)?,
            namespace: meta::text(&token, &["ns"]).to_owned(),
            name: meta::text(&token, &["start"]).to_owned(),
        })
    }
}

/// The list document, written without copying an object.
#[must_use]
pub fn write(target: &Target, page: &Page) -> Vec<u8> {
    let api_version = target.api_version();
    let convert = target.version != target.info.storage;
    let mut out = Vec::with_capacity(256 + page.items.len() * 1024);
    let head = format!(
        "{{\"kind\":{},\"apiVersion\":{},\"metadata\":{},\"items\":[",
        Value::from(target.info.list_kind.as_str()),
        Value::from(api_version.as_str()),
        page.metadata
    );
    out.extend_from_slice(head.as_bytes());
    for (i, item) in page.items.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        let written = if convert {
            serde_json::to_writer(&mut out, &in_version(item, &api_version))
        } else {
            serde_json::to_writer(&mut out, &**item)
        };
        debug_assert!(written.is_ok(), "writing to memory does not fail");
    }
    out.extend_from_slice(b"]}");
    out
}

/// An object as another version of its resource shows it (definitions convert by `None` only).
#[must_use]
pub fn in_version(object: &Value, api_version: &str) -> Value {
    let mut object = object.clone();
    meta::as_map(&mut object).insert("apiVersion".into(), api_version.into());
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_wire() {
        let token = Token {
            version: 7,
            namespace: "a".into(),
            name: "b/c".into(),
        };
        assert_eq!(Token::decode(&token.encode()).unwrap(), token);
        assert_eq!(Token::decode("%%%").unwrap_err().code, 400);
    }
}
