//! Cells of a table.

use serde_json::Value;

use crate::crd::Column;
use crate::meta;
use crate::ops::Target;

/// Cells of an object, one a column.
#[must_use]
pub fn cells(
    _target: &Target,
    columns: &[Column],
    object: &Value,
    _now_seconds: i64,
) -> Vec<Value> {
    columns
        .iter()
        .map(|c| {
            if c.name == "Name" {
                meta::name(object).into()
            } else {
                Value::Null
            }
        })
        .collect()
}
