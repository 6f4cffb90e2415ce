//! A structural schema of one version of a custom resource.

use serde_json::Value;

/// A structural schema, ready to default, prune and validate objects.
#[derive(Debug)]
pub struct CrdSchema {
    /// The schema as the definition has it.
    pub raw: Value,
}

impl CrdSchema {
    /// Prepares a schema.
    #[must_use]
    pub fn new(schema: &Value) -> Self {
        Self {
            raw: schema.clone(),
        }
    }
}
