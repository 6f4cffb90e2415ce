//! Lists: selected, in pages, written straight from the shared objects.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::query::Query;
use crate::error::{ApiError, FieldError, Result};
use crate::meta;
use crate::ops::{State, Target};
use crate::selectors::{FieldSelector, LabelSelector, Selectors};
use crate::store::{Kept, Undone, write_typed};

/// A page of objects.
pub struct Page {
    /// The objects and their texts, shared with the store.
    pub items: Vec<Kept>,
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
        fields: FieldSelector::parse_with(
            &target.info,
            target
                .version_info()
                .map_or(&[], |v| v.selectable.as_slice()),
            query.get("fieldSelector").unwrap_or(""),
        )?,
    })
}

impl Page {
    /// The objects alone.
    #[must_use]
    pub fn objects(&self) -> Vec<Arc<Value>> {
        self.items.iter().map(|k| Arc::clone(&k.object)).collect()
    }
}

/// Collects a page.
///
/// # Errors
/// 400 and 422 for malformed parameters, 410 for a version or a continue token older than the history kept.
pub fn page(state: &State, target: &Target, query: &Query) -> Result<Page> {
    let selectors = selectors(target, query)?;
    let limit = query
        .number("limit")?
        .and_then(|l| usize::try_from(l).ok())
        .filter(|l| *l > 0);
    let asked = check_options(state, query)?;
    let token = query.get("continue").map(Token::decode).transpose()?;
    let after = token
        .as_ref()
        .map(|t| (t.namespace.as_str(), t.name.as_str()));
    let exact = query.get("resourceVersionMatch") == Some("Exact");
    let now = state.store.version();
    // All pages of a list show the state of the first, and tell its version, from which a client then watches.
    let version = match &token {
        Some(token) => token.version.unwrap_or(now),
        None if exact => asked,
        None => now,
    };
    let was = state
        .store
        .undone(&target.key, version)
        .map_err(|_| too_old(token.as_ref()))?;
    let everything = selectors.is_everything();
    let mut items: Vec<Kept> = Vec::new();
    let mut remaining = 0_usize;
    for kept in objects(state, target, after, &was) {
        if limit.is_some_and(|limit| items.len() >= limit) {
            remaining += 1;
            if !everything {
                break;
            }
        } else if everything || selectors.matches(&kept.object) {
            items.push(kept);
        }
    }
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if let (true, Some(last), Some(map)) = (remaining > 0, items.last(), metadata.as_object_mut()) {
        let token = Token {
            version: Some(version),
            namespace: meta::namespace(&last.object).to_owned(),
            name: meta::name(&last.object).to_owned(),
        };
        map.insert("continue".into(), token.encode().into());
        if everything {
            map.insert("remainingItemCount".into(), remaining.into());
        }
    }
    for kept in &mut items {
        crate::crd::versions::show(target, kept);
    }
    Ok(Page { items, metadata })
}

/// Objects after a key, in order, as they were before what `was` undoes.
fn objects(state: &State, target: &Target, after: Option<(&str, &str)>, was: &Undone) -> Vec<Kept> {
    let namespace = (!target.namespace.is_empty()).then_some(target.namespace.as_str());
    let live = state.store.kept(&target.key, namespace, after);
    if was.is_empty() {
        return live.cloned().collect();
    }
    let key = |o: &Value| (meta::namespace(o).to_owned(), meta::name(o).to_owned());
    let mut objects: Vec<Kept> = live
        .filter(|k| !was.contains_key(&key(&k.object)))
        .cloned()
        .collect();
    let former = was.iter().filter(|((ns, name), _)| {
        namespace.is_none_or(|n| n == ns)
            && after.is_none_or(|after| (ns.as_str(), name.as_str()) > after)
    });
    objects.extend(former.filter_map(|(_, object)| object.clone().map(Kept::new)));
    objects.sort_by_cached_key(|k| key(&k.object));
    objects
}

/// 410, with a token for who would rather have the rest as it is now than start again.
fn too_old(token: Option<&Token>) -> ApiError {
    let Some(token) = token else {
        return ApiError::expired("The resourceVersion for the provided list is too old.");
    };
    let mut error = ApiError::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    );
    let rest = Token {
        version: None,
        namespace: token.namespace.clone(),
        name: token.name.clone(),
    };
    error.next = Some(rest.encode().into());
    error
}

/// Checks what says which state is listed; answers the version asked for, 0 when none is.
fn check_options(state: &State, query: &Query) -> Result<u64> {
    let kind = "ListOptions";
    if query.get("sendInitialEvents").is_some() {
        let why = "sendInitialEvents is forbidden for list";
        let error = FieldError::forbidden("sendInitialEvents", why);
        return Err(ApiError::invalid_options(kind, &[error]));
    }
    let version = query.get("resourceVersion").unwrap_or("");
    let continues = query.get("continue").is_some();
    if let Some(how) = query.get("resourceVersionMatch") {
        let field = "resourceVersionMatch";
        let mut errors = Vec::new();
        if continues {
            let why = "resourceVersionMatch is forbidden for continue";
            errors.push(FieldError::forbidden(field, why));
        }
        if version.is_empty() {
            let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            errors.push(FieldError::forbidden(field, why));
        }
        if !matches!(how, "Exact" | "NotOlderThan") {
            let known = ["Exact", "NotOlderThan", ""];
            errors.push(FieldError::not_supported(field, how, &known));
        }
        if how == "Exact" && version == "0" {
            let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            errors.push(FieldError::forbidden(field, why));
        }
        if !errors.is_empty() {
            return Err(ApiError::invalid_options(kind, &errors));
        }
    }
    let asked = query
        .version("resourceVersion")
        .map_err(|why| ApiError::bad_request(format!("invalid resource version: {why}")))?
        .unwrap_or(0);
    if continues && asked != 0 {
        return Err(ApiError::bad_request(
            "specifying resource version is not allowed when using continue",
        ));
    }
    let now = state.store.version();
    if asked > now {
        let mut error = ApiError::bad_request(format!(
            "Timeout: Too large resource version: {asked}, current: {now}"
        ));
        (error.code, error.reason) = (504, "Timeout");
        error.details = json!({"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}], "retryAfterSeconds": 1});
        return Err(error);
    }
    Ok(asked)
}

/// Where a list goes on.
#[derive(Debug, PartialEq, Eq)]
struct Token {
    /// None: whatever is newest.
    version: Option<u64>,
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
            version: match token.get("rv").ok_or_else(bad)? {
                Value::Null => None,
                version => Some(version.as_u64().ok_or_else(bad)?),
            },
            namespace: meta::text(&token, &["ns"]).to_owned(),
            name: meta::text(&token, &["start"]).to_owned(),
        })
    }
}

/// The list document, written without copying an object.
#[must_use]
pub fn write(target: &Target, page: &Page) -> Vec<u8> {
    let api_version = target.api_version();
    let length: usize = page.items.iter().map(|k| k.written.len()).sum();
    // Each has a comma after it, and says what it is if it is of a custom kind.
    let each = if target.info.custom { 128 } else { 1 };
    let mut out = Vec::with_capacity(256 + length + each * page.items.len());
    let head = format!(
        "{{\"kind\":{},\"apiVersion\":{},\"metadata\":{},\"items\":[",
        Value::from(target.info.list_kind.as_str()),
        Value::from(api_version.as_str()),
        page.metadata
    );
    out.extend_from_slice(head.as_bytes());
    for (i, Kept { written, .. }) in page.items.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        // Items of built-in kinds do not say what they are: the list does.
        if target.info.custom {
            write_typed(&mut out, &target.info.kind, &api_version, written);
        } else {
            out.extend_from_slice(written);
        }
    }
    out.extend_from_slice(b"]}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_wire() {
        let token = Token {
            version: Some(7),
            namespace: "a".into(),
            name: "b/c".into(),
        };
        assert_eq!(Token::decode(&token.encode()).unwrap(), token);
        assert_eq!(Token::decode("%%%").unwrap_err().code, 400);
    }
}
