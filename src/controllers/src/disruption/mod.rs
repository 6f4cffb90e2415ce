//! Giving machines back that are not needed: methods that propose commands from a snapshot, the checks every
//! candidate has to pass, budgets, and the queue that carries a command out (`lifecycle-and-disruption.md` §6).

mod allowance;
mod candidate;
mod controller;
mod emptiness;
mod events;
mod method;
mod orchestrate;
mod snapshot;

pub(crate) use controller::start;

#[cfg(test)]
mod tests;
