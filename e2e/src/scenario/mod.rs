//! Scenarios: a folder with a `scenario.yaml` is a story and a test.

pub mod faults;
pub mod load;
pub mod schema;

pub use load::{Loaded, ScenarioError, load};
pub use schema::Scenario;
