//! Values as Go prints them (`%v`), which some messages of the real server show.

use serde_json::Value;

/// A value.
#[must_use]
pub fn value(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(self::value).collect();
            format!("[{}]", items.join(" "))
        }
        // In the order of the keys, as Go prints maps.
        Value::Object(map) => {
            let mut pairs: Vec<(&String, &Value)> = map.iter().collect();
            pairs.sort_by_key(|(key, _)| key.as_str());
            let pairs: Vec<String> = pairs
                .into_iter()
                .map(|(key, below)| format!("{key}:{}", self::value(below)))
                .collect();
            format!("map[{}]", pairs.join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn prints_as_go_does() {
        let document = json!({"b": [1, {"x": null}], "a": "t", "c": true});
        assert_eq!(value(&document), "map[a:t b:[1 map[x:<nil>]] c:true]");
    }
}
