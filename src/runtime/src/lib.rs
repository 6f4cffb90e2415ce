//! What every loop shares: the clock, seeded randomness, the settings table, the keyed runner, events, metrics,
//! log format, health endpoints and leader election.

pub mod api_client;
pub mod build;
pub mod clock;
mod event_writer;
pub mod events;
pub mod gzip;
pub mod health;
pub mod key;
pub mod leader;
pub mod log;
pub mod metrics;
mod queue;
pub mod reflector;
pub mod rng;
pub mod runner;
pub mod settings;

pub use clock::Clock;
pub use events::EventRecorder;
pub use key::Key;
pub use reflector::{Reflection, ReflectorEvent, ReflectorOptions};
pub use rng::{Rng, RngTree};
pub use runner::{Action, Queue, Reconciler};
pub use settings::Settings;
