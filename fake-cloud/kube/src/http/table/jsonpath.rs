//! The simple JSONPaths that printed columns use: fields, quoted fields, indices, `[*]` and equality filters.

use serde_json::Value;

#[derive(Debug, PartialEq)]
enum Step {
    Field(String),
    Index(usize),
    All,
    /// Elements whose field equals a text.
    Where(Vec<Step>, String),
}

/// The values a path finds.
#[must_use]
pub fn find<'a>(object: &'a Value, path: &str) -> Vec<&'a Value> {
    let mut found = vec![object];
    for step in parse(path) {
        found = found
            .into_iter()
            .flat_map(|value| take(value, &step))
            .collect();
    }
    found
}

fn take<'a>(value: &'a Value, step: &Step) -> Vec<&'a Value> {
    match step {
        Step::Field(name) => value.get(name).into_iter().collect(),
        Step::Index(at) => value.get(at).into_iter().collect(),
        Step::All => match value {
            Value::Array(items) => items.iter().collect(),
            Value::Object(map) => map.values().collect(),
            _ => Vec::new(),
        },
        Step::Where(path, wanted) => value
            .as_array()
            .into_iter()
            .flatten()
            .filter(|item| {
                let mut at = vec![*item];
                for step in path {
                    at = at.into_iter().flat_map(|v| take(v, step)).collect();
                }
                at.first().is_some_and(|v| {
                    v.as_str()
                        .map_or_else(|| v.to_string() == *wanted, |s| s == wanted)
                })
            })
            .collect(),
    }
}

fn parse(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = path
        .trim()
        .trim_start_matches('{')
        .trim_end_matches('}')
        .trim_start_matches(['$', '@']);
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let Some(end) = closing(inner) else {
                return steps;
            };
            let (inside, after) = inner.split_at(end);
            steps.extend(bracket(inside));
            rest = after.strip_prefix(']').unwrap_or("");
            continue;
        }
        let field = rest.strip_prefix('.').unwrap_or(rest);
        let mut name = String::new();
        let mut length = 0;
        let mut escaped = false;
        for c in field.chars() {
            if !escaped && (c == '.' || c == '[') {
                break;
            }
            length += c.len_utf8();
            if !escaped && c == '\\' {
                escaped = true;
                continue;
            }
            escaped = false;
            name.push(c);
        }
        if name == "*" {
            steps.push(Step::All);
        } else if !name.is_empty() {
            steps.push(Step::Field(name));
        }
        let next = field.get(length..).unwrap_or("");
        if next.len() == rest.len() {
            return steps;
        }
        rest = next;
    }
    steps
}

/// Where the bracket that is open closes; quotes and inner brackets do not count.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0_usize, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn bracket(inside: &str) -> Option<Step> {
    let inside = inside.trim();
    if inside == "*" {
        return Some(Step::All);
    }
    if let Some(filter) = inside.strip_prefix("?(").and_then(|f| f.strip_suffix(')')) {
        let (left, right) = filter.split_once("==")?;
        let wanted = unquote(right.trim());
        return Some(Step::Where(parse(left.trim()), wanted));
    }
    match inside.parse::<usize>() {
        Ok(at) => Some(Step::Index(at)),
        Err(_) => Some(Step::Field(unquote(inside).replace("\\.", "."))),
    }
}

fn unquote(text: &str) -> String {
    text.trim_matches(['"', '\'']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case(".spec.weight", json!([3]))]
    #[case(".spec.none", json!([]))]
    #[case(r#".status.conditions[?(@.type=="Ready")].status"#, json!(["True"]))]
    #[case(".metadata.labels.node\\.kubernetes\\.io/type", json!(["m5"]))]
    #[case(".metadata.labels['node.kubernetes.io/type']", json!(["m5"]))]
    #[case(".spec.items[1].a", json!([2]))]
    #[case(".spec.items[*].a", json!([1, 2]))]
    fn finds(#[case] path: &str, #[case] expected: Value) {
        let object = json!({
            "metadata": {"labels": {"node.kubernetes.io/type": "m5"}},
            "spec": {"weight": 3, "items": [{"a": 1}, {"a": 2}]},
            "status": {"conditions": [{"type": "Launched", "status": "False"}, {"type": "Ready", "status": "True"}]},
        });
        assert_eq!(json!(find(&object, path)), expected, "{path}");
    }
}
