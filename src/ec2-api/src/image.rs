//! Machine images.

use jiff::Timestamp;

use crate::{Filter, Tags};

/// A machine image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// `ami-...`.
    pub id: String,
    /// Name.
    pub name: String,
    /// `x86_64`, `arm64`...
    pub architecture: String,
    /// When it was made.
    pub creation_date: Timestamp,
    /// When it is or was deprecated.
    pub deprecation_time: Option<Timestamp>,
    /// Owner: an account id or an alias such as `amazon`.
    pub owner: String,
    /// Tags.
    pub tags: Tags,
}

/// What images to describe; only those in state `available` are ever asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DescribeImagesInput {
    /// Filters (`image-id`, `name`, `state`, tags).
    pub filters: Vec<Filter>,
    /// Owners; empty = any.
    pub owners: Vec<String>,
    /// Whether deprecated ones count.
    pub include_deprecated: bool,
}
