//! What is generated from the table: help text, docs page, JSON schema.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::Settings;
use super::table::{GATES, Kind, Row, TABLE};

/// Text of `--help`.
#[must_use]
pub fn help() -> String {
    let defaults = Settings::default();
    let mut text = String::from("Flags (environment variable, default):\n");
    for row in TABLE {
        // Writing into a String cannot fail.
        let _ = writeln!(
            text,
            "  --{} ({}, {})\n      {} Takes {}.",
            row.flag,
            row.env,
            shown((row.show)(&defaults)),
            row.help,
            row.kind.expected()
        );
    }
    text
}

/// The docs page's table, in Markdown.
#[must_use]
pub fn markdown() -> String {
    let defaults = Settings::default();
    let mut text = String::from(
        "| Flag | Environment variable | Chart value | Default | Meaning |\n|---|---|---|---|---|\n",
    );
    for row in TABLE {
        let chart = row
            .chart
            .map_or("–".to_owned(), |name| format!("`settings.{name}`"));
        let _ = writeln!(
            text,
            "| `--{}` | `{}` | {chart} | `{}` | {} |",
            row.flag,
            row.env,
            shown((row.show)(&defaults)),
            row.help
        );
    }
    text.push_str("\n| Feature gate | Chart value | Meaning |\n|---|---|---|\n");
    for gate in GATES {
        let _ = writeln!(
            text,
            "| `{}` | `settings.featureGates.{}` | {} |",
            gate.name, gate.chart, gate.help
        );
    }
    text
}

/// JSON schema of the chart's `settings` values, which scenarios use too.
#[must_use]
pub fn chart_schema() -> Value {
    let mut properties = Map::new();
    for row in TABLE {
        if let Some(name) = row.chart {
            properties.insert(name.to_owned(), property(row));
        }
    }
    let mut gates = Map::new();
    for gate in GATES {
        let on = json!({"description": gate.help, "type": "boolean"});
        properties.insert(format!("featureGates.{}", gate.chart), on.clone());
        gates.insert(gate.chart.to_owned(), on);
    }
    let gates = json!({"type": "object", "additionalProperties": false, "properties": gates});
    properties.insert("featureGates".to_owned(), gates);
    json!({"type": "object", "additionalProperties": false, "properties": properties})
}

/// Numbers and booleans may be quoted, as charts do.
fn property(row: &Row) -> Value {
    let mut schema = match row.kind {
        Kind::Text | Kind::Url | Kind::List | Kind::Gates => json!({"type": "string"}),
        Kind::Bool => json!({"enum": [true, false, "true", "false"]}),
        Kind::Integer(least, _) => json!({"type": ["integer", "string"], "minimum": least}),
        Kind::Ratio => json!({"type": ["number", "string"], "minimum": 0}),
        Kind::Duration(_) => {
            json!({"type": "string", "pattern": "^(0|([0-9]+(\\.[0-9]+)?(ns|us|µs|ms|s|m|h))+)$"})
        }
        Kind::OneOf(words) => json!({"enum": words}),
        Kind::SchedulerConfig => json!({"type": ["object", "string"]}),
    };
    if let Some(map) = schema.as_object_mut() {
        map.insert("description".to_owned(), Value::from(row.help));
    }
    schema
}

fn shown(value: String) -> String {
    if value.is_empty() {
        "\"\"".to_owned()
    } else {
        value
    }
}
