//! CustomResourceDefinitions: turning a definition into a served resource, and what its schema does to objects.

pub mod definition;
pub mod schema;

pub use definition::resource_of;
pub use schema::CrdSchema;

/// A printed column (`additionalPrinterColumns`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Heading.
    pub name: String,
    /// `string`, `integer`, `number`, `boolean`, `date`.
    pub kind: String,
    /// Format hint.
    pub format: String,
    /// Description.
    pub description: String,
    /// 0 is always shown, others with `-o wide`.
    pub priority: i64,
    /// Simple JSONPath.
    pub json_path: String,
}

use serde_json::Value;

use crate::error::Result;
use crate::ops::{Target, WriteOptions};

/// Defaults and prunes a custom object.
///
/// # Errors
/// 400 for unknown fields under strict field validation.
pub fn admit(_target: &Target, _object: &mut Value, _options: &mut WriteOptions) -> Result<()> {
    Ok(())
}
