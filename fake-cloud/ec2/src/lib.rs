//! The EC2 engine: a seeded account with capacity pools, prices and faults, behind the provider's narrow trait.
//! State is a function of the clock: nothing runs while nothing happens.

pub mod account;
mod calls;
pub mod catalog;
pub mod engine;
pub mod events;
mod facts;
pub mod faults;
mod fleet;
pub mod prices;
pub mod record;
pub mod region;
mod state;

pub use account::Account;
pub use catalog::Catalog;
pub use engine::{Engine, EngineOptions};
pub use events::{InstanceEvent, LaunchedInstance};
pub use faults::{CallFault, CallFaultKind, PoolLimit, PoolRule};
pub use fleet::DEEP_POOL;
pub use prices::PoolMatch;
pub use record::InstanceRecord;
