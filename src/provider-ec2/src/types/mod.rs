//! Instance types as Karpenter buys them: requirements, capacity, overhead, offerings.

pub(crate) mod capacity;
pub(crate) mod family;
pub(crate) mod requirements;

pub use family::Family;
