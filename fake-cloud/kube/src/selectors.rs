//! Label selectors (text and object form) and field selectors.

use serde_json::Value;

use crate::error::{ApiError, Result};
use crate::meta::{self, at, text};
use crate::registry::ResourceInfo;
use crate::validate::names;

/// One requirement of a label selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
    Greater(i64),
    Less(i64),
}

/// A label selector: all requirements hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector(Vec<Requirement>);

impl LabelSelector {
    /// Reads the text form: `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1`.
    ///
    /// # Errors
    /// 400 with the place that is wrong.
    pub fn parse(text: &str) -> Result<Self> {
        let mut requirements = Vec::new();
        for part in split_outside_parentheses(text) {
            let part = part.trim();
            if part.is_empty() {
                if text.trim().is_empty() {
                    continue;
                }
                return Err(ApiError::bad_request(format!(
                    "unable to parse requirement: found '', expected: identifier in label selector {text:?}"
                )));
            }
            requirements.push(requirement(part)?);
        }
        Ok(Self(requirements))
    }

    /// Reads the object form (`matchLabels`, `matchExpressions`); nothing selected by a malformed one.
    #[must_use]
    pub fn from_object(selector: &Value) -> Option<Self> {
        let mut requirements = Vec::new();
        for (key, value) in selector
            .get("matchLabels")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            requirements.push(Requirement {
                key: key.clone(),
                test: Test::In(vec![value.as_str()?.to_owned()]),
            });
        }
        for expression in selector
            .get("matchExpressions")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let values = || -> Vec<String> {
                expression
                    .get("values")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                    .filter_map(|v| v.as_str().map(str::to_owned))
                    .collect()
            };
            let test = match meta::text(expression, &["operator"]) {
                "In" => Test::In(values()),
                "NotIn" => Test::NotIn(values()),
                "Exists" => Test::Exists,
                "DoesNotExist" => Test::Absent,
                _ => return None,
            };
            requirements.push(Requirement {
                key: meta::text(expression, &["key"]).to_owned(),
                test,
            });
        }
        Some(Self(requirements))
    }

    /// Whether it selects everything.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it selects an object.
    #[must_use]
    pub fn matches(&self, object: &Value) -> bool {
        let labels = at(object, &["metadata", "labels"]);
        self.0.iter().all(|r| {
            let value = labels.and_then(|l| l.get(&r.key)).and_then(Value::as_str);
            match (&r.test, value) {
                (Test::In(values), Some(v)) => values.iter().any(|x| x == v),
                (Test::NotIn(values), Some(v)) => !values.iter().any(|x| x == v),
                (Test::NotIn(_) | Test::Absent, None) | (Test::Exists, Some(_)) => true,
                (Test::Greater(bound), Some(v)) => v.parse::<i64>().is_ok_and(|v| v > *bound),
                (Test::Less(bound), Some(v)) => v.parse::<i64>().is_ok_and(|v| v < *bound),
                _ => false,
            }
        })
    }
}

/// The text form of an object-form selector, as the scale subresource shows it.
#[must_use]
pub fn text_of_label_selector(selector: &Value) -> String {
    let Some(LabelSelector(mut requirements)) = LabelSelector::from_object(selector) else {
        return String::new();
    };
    requirements.sort_by(|a, b| a.key.cmp(&b.key));
    let texts: Vec<String> = requirements
        .iter()
        .map(|r| match &r.test {
            Test::In(values) => match values.as_slice() {
                [one] => format!("{}={one}", r.key),
                many => format!("{} in ({})", r.key, many.join(",")),
            },
            Test::NotIn(values) => format!("{} notin ({})", r.key, values.join(",")),
            Test::Exists => r.key.clone(),
            Test::Absent => format!("!{}", r.key),
            Test::Greater(n) => format!("{}>{n}", r.key),
            Test::Less(n) => format!("{}<{n}", r.key),
        })
        .collect();
    texts.join(",")
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0_usize, 0_usize);
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(text.get(start..i).unwrap_or(""));
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(text.get(start..).unwrap_or(""));
    parts
}

fn requirement(part: &str) -> Result<Requirement> {
    let bad = |why: String| ApiError::bad_request(format!("unable to parse requirement: {why}"));
    let check_key = |key: &str| -> Result<String> {
        let key = key.trim();
        match names::qualified_errors(key).first() {
            Some(error) => Err(bad(format!("<nil>: Invalid value: {key:?}: {error}"))),
            None => Ok(key.to_owned()),
        }
    };
    let check_value = |value: &str| -> Result<String> {
        let value = value.trim();
        match names::label_value_errors(value).first() {
            Some(error) => Err(bad(format!(
                "values[0][]: Invalid value: {value:?}: {error}"
            ))),
            None => Ok(value.to_owned()),
        }
    };
    if let Some(key) = part.strip_prefix('!') {
        return Ok(Requirement {
            key: check_key(key)?,
            test: Test::Absent,
        });
    }
    if let Some((head, rest)) = part.split_once('(') {
        let list = rest
            .trim_end()
            .strip_suffix(')')
            .ok_or_else(|| bad(format!("found '{part}', expected: ',' or ')'")))?;
        let values = list
            .split(',')
            .map(check_value)
            .collect::<Result<Vec<_>>>()?;
        let mut words = head.split_whitespace();
        let key = check_key(words.next().unwrap_or(""))?;
        let test = match words.next() {
            Some("in") => Test::In(values),
            Some("notin") => Test::NotIn(values),
            other => {
                return Err(bad(format!(
                    "found '{}', expected: in, notin, =, ==, !=, gt, lt",
                    other.unwrap_or("(")
                )));
            }
        };
        return Ok(Requirement { key, test });
    }
    // A set begins with a parenthesis.
    if let [_, "in" | "notin", other, ..] = part.split_whitespace().collect::<Vec<_>>().as_slice() {
        return Err(bad(format!("found '{other}' expected: '('")));
    }
    for (operator, negated) in [("!=", true), ("==", false), ("=", false)] {
        if let Some((key, value)) = part.split_once(operator) {
            let values = vec![check_value(value)?];
            return Ok(Requirement {
                key: check_key(key)?,
                test: if negated {
                    Test::NotIn(values)
                } else {
                    Test::In(values)
                },
            });
        }
    }
    for (operator, greater) in [('>', true), ('<', false)] {
        if let Some((key, value)) = part.split_once(operator) {
            let bound = value.trim().parse::<i64>().map_err(|_| {
                bad(format!(
                    "values[0]: Invalid value: {:?}: for 'Gt', 'Lt' operators, the value must be an integer",
                    value.trim()
                ))
            })?;
            return Ok(Requirement {
                key: check_key(key)?,
                test: if greater {
                    Test::Greater(bound)
                } else {
                    Test::Less(bound)
                },
            });
        }
    }
    Ok(Requirement {
        key: check_key(part)?,
        test: Test::Exists,
    })
}

/// A field selector: all terms hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector(Vec<FieldTerm>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct FieldTerm {
    path: Vec<String>,
    value: String,
    equal: bool,
}

impl FieldSelector {
    /// Reads `a.b=c,d!=e`; only fields that the resource declares selectable.
    ///
    /// # Errors
    /// 400 with the field that is not selectable.
    pub fn parse(info: &ResourceInfo, text: &str) -> Result<Self> {
        Self::parse_with(info, &[], text)
    }

    /// The same where a definition declares more fields.
    ///
    /// # Errors
    /// 400 with the field that is not selectable.
    pub fn parse_with(info: &ResourceInfo, declared: &[String], text: &str) -> Result<Self> {
        let mut terms = Vec::new();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let found = [("!=", false), ("==", true), ("=", true)]
                .into_iter()
                .find_map(|(op, equal)| {
                    part.split_once(op)
                        .map(|(k, v)| (k.trim(), v.trim(), equal))
                });
            let Some((field, value, equal)) = found else {
                return Err(ApiError::bad_request(format!(
                    "invalid selector: '{text}'; can't understand '{part}'"
                )));
            };
            if !selectable(info, field) && !declared.iter().any(|d| d == field) {
                return Err(ApiError::bad_request(if declares_its_own(info) {
                    format!("field label not supported: {field}")
                } else {
                    format!(
                        "{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                    )
                }));
            }
            terms.push(FieldTerm {
                path: field.split('.').map(str::to_owned).collect(),
                value: value.to_owned(),
                equal,
            });
        }
        Ok(Self(terms))
    }

    /// Whether it selects everything.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it selects an object.
    #[must_use]
    pub fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|term| {
            let words: Vec<&str> = term.path.iter().map(String::as_str).collect();
            // Two selectors are not called what the fields are.
            let value = match words.as_slice() {
                ["source"] => at(object, &["source", "component"])
                    .filter(|c| c.as_str() != Some(""))
                    .or_else(|| object.get("reportingComponent")),
                ["status", "successful"] => at(object, &["status", "succeeded"]),
                path => at(object, path),
            };
            let equal = match value {
                None | Some(Value::Null) => default_of(&term.path) == term.value,
                Some(Value::String(s)) => *s == term.value,
                // Numbers and booleans are selected by their text.
                Some(other) => format!("{other}") == term.value,
            };
            equal == term.equal
        })
    }

    /// The name it asks for, if it asks for one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0
            .iter()
            .find(|t| t.equal && t.path.iter().map(String::as_str).eq(["metadata", "name"]))
            .map(|t| t.value.as_str())
    }
}

/// How an absent field reads: booleans are false, all else empty.
fn default_of(path: &[String]) -> &'static str {
    match path.last().map(String::as_str) {
        Some("unschedulable" | "hostNetwork") => "false",
        Some("successful" | "replicas") => "0",
        _ => "",
    }
}

/// Whether a kind has fields of its own to select on, which shows in how it refuses others.
fn declares_its_own(info: &ResourceInfo) -> bool {
    info.custom || !fields_of(info).is_empty()
}

/// Whether a field of a resource can be selected on; the lists are those of the real server's registries.
fn selectable(info: &ResourceInfo, field: &str) -> bool {
    if field == "metadata.name" || (field == "metadata.namespace" && info.namespaced) {
        return true;
    }
    fields_of(info).contains(&field)
}

fn fields_of(info: &ResourceInfo) -> &'static [&'static str] {
    match (info.group.as_str(), info.plural.as_str()) {
        ("", "pods") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        ("", "nodes") => &["spec.unschedulable"],
        ("" | "events.k8s.io", "events") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        ("", "namespaces") => &["status.phase"],
        ("", "secrets") => &["type"],
        ("", "services") => &["spec.clusterIP", "spec.type"],
        ("", "replicationcontrollers") => &["status.replicas"],
        ("batch", "jobs") => &["status.successful"],
        _ => &[],
    }
}

/// Both selectors of a list or watch.
#[derive(Clone, Debug, Default)]
pub struct Selectors {
    /// By labels.
    pub labels: LabelSelector,
    /// By fields.
    pub fields: FieldSelector,
}

impl Selectors {
    /// Whether they select everything.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// Whether they select an object.
    #[must_use]
    pub fn matches(&self, object: &Value) -> bool {
        self.labels.matches(object) && self.fields.matches(object)
    }
}

/// Whether an object-form selector selects an object; a malformed or absent one selects nothing.
#[must_use]
pub fn object_selects(selector: Option<&Value>, object: &Value) -> bool {
    selector
        .and_then(LabelSelector::from_object)
        .is_some_and(|s| s.matches(object))
}

/// `status.phase` of an object.
#[must_use]
pub fn phase(object: &Value) -> &str {
    text(object, &["status", "phase"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case("", true)]
    #[case("app=web", true)]
    #[case("app==web", true)]
    #[case("app!=web", false)]
    #[case("none!=web", true)]
    #[case("app in (web, db),tier", true)]
    #[case("app notin (web)", false)]
    #[case("none notin (web)", true)]
    #[case("!none", true)]
    #[case("!app", false)]
    #[case("rank>3", true)]
    #[case("rank>4", false)]
    #[case("rank<5", true)]
    #[case("empty=", true)]
    fn label_selectors(#[case] selector: &str, #[case] selected: bool) {
        let object =
            json!({"metadata": {"labels": {"app": "web", "tier": "1", "rank": "4", "empty": ""}}});
        assert_eq!(
            LabelSelector::parse(selector).unwrap().matches(&object),
            selected,
            "{selector}"
        );
    }

    #[rstest]
    #[case("a=b,,c")]
    #[case("a in (b")]
    #[case("a near (b)")]
    #[case("a>x")]
    #[case("-a")]
    #[case("a=b c")]
    fn malformed_label_selectors(#[case] selector: &str) {
        assert_eq!(
            LabelSelector::parse(selector).unwrap_err().code,
            400,
            "{selector}"
        );
    }

    #[test]
    fn object_form_and_its_text() {
        let selector = json!({"matchLabels": {"b": "1"}, "matchExpressions": [
            {"key": "a", "operator": "In", "values": ["x", "y"]}, {"key": "c", "operator": "DoesNotExist"}]});
        assert!(object_selects(
            Some(&selector),
            &json!({"metadata": {"labels": {"a": "y", "b": "1"}}})
        ));
        assert!(!object_selects(
            Some(&selector),
            &json!({"metadata": {"labels": {"a": "y", "b": "1", "c": ""}}})
        ));
        assert_eq!(text_of_label_selector(&selector), "a in (x,y),b=1,!c");
    }

    #[test]
    fn field_selectors_know_what_each_kind_declares() {
        let registry = Registry::default();
        let pods = registry.get("", "pods").unwrap();
        let nodes = registry.get("", "nodes").unwrap();
        let unbound = FieldSelector::parse(pods, "spec.nodeName=,status.phase!=Failed").unwrap();
        assert!(unbound.matches(&json!({"spec": {}, "status": {"phase": "Pending"}})));
        assert!(
            !unbound.matches(&json!({"spec": {"nodeName": "n"}, "status": {"phase": "Pending"}}))
        );
        assert!(
            FieldSelector::parse(nodes, "spec.unschedulable=false")
                .unwrap()
                .matches(&json!({"spec": {}}))
        );
        let error = FieldSelector::parse(nodes, "spec.providerID=x").unwrap_err();
        assert_eq!(error.code, 400);
        assert!(
            error
                .message
                .contains("field label not supported: spec.providerID"),
            "{error}"
        );
        assert_eq!(
            FieldSelector::parse(nodes, "metadata.name=n")
                .unwrap()
                .name(),
            Some("n")
        );
    }
}
