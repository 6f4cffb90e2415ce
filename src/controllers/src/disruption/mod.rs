//! Giving machines back that are not needed: methods that propose commands from a snapshot, the checks every
//! candidate has to pass, budgets, and the queue that carries a command out (`lifecycle-and-disruption.md` §6).

mod allowance;
mod balanced;
mod candidate;
mod consolidation;
mod controller;
mod drift;
mod emptiness;
mod events;
pub mod explain;
mod ground;
mod method;
mod moves;
mod multi;
mod orchestrate;
mod replace;
mod room;
mod sets;
mod single;
mod snapshot;
mod static_drift;
mod under_way;
mod worth;

pub(crate) use controller::start;

#[cfg(test)]
mod decision_tests;
#[cfg(test)]
mod kit;
#[cfg(test)]
mod sets_tests;
#[cfg(test)]
mod tests;
