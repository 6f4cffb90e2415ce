//! Server-side apply and field ownership: sets of fields, merging by structure, and who owns what.

pub mod fields;
pub mod managers;
pub mod merge;

pub use fields::FieldSet;
pub use managers::{Manager, Operation};
