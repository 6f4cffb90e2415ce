//! What Go's types say of the built-in kinds: their fields by name and by number, for bodies in protobuf and for OpenAPI.

pub mod gojson;
pub mod protobuf;
pub mod types;

#[cfg(test)]
mod judged_tests;
