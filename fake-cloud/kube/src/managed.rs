//! Field ownership (`metadata.managedFields`) of writes that are not applies.

use serde_json::Value;

use crate::ops::{Part, State, Target, WriteOptions};

/// Notes who owns the fields that a write changed.
pub fn track_write(
    _state: &State,
    _target: &Target,
    _old: Option<(&Value, Part)>,
    _new: &mut Value,
    _options: &WriteOptions,
) {
}

/// Whether two `metadata` are the same but for the times in `managedFields`.
#[must_use]
pub fn same_metadata(new: &Value, old: &Value) -> bool {
    new == old
}
