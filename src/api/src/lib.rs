//! Karpenter's API: the kinds, their statuses and conditions, labels, quantities, durations, cron and hashes.
//! Pure data and pure functions; nothing here does I/O or reads a clock.

pub mod budget;
pub mod capacitybuffer;
pub mod condition;
pub mod convert;
pub mod crd;
pub mod cron;
pub mod duration;
pub mod hash;
pub mod kinds;
pub mod labels;
pub mod nodeclaim;
pub mod nodeoverlay;
pub mod nodepool;
pub mod quantity;
pub mod validation;

pub use capacitybuffer::CapacityBuffer;
pub use kinds::ManagedKind;
pub use nodeclaim::{NodeClaim, NodeClaimSpec, NodeClaimStatus};
pub use nodeoverlay::NodeOverlay;
pub use nodepool::{NodePool, NodePoolSpec, NodePoolStatus};
pub use quantity::Quantity;
