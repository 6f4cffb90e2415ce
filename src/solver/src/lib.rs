//! The pure solver: `solve(&Problem) -> Plan`. No I/O, no clock, not async, no randomness.

use karpenter_model::{Plan, Problem};

/// Plans where the problem's pods go and what to buy for those that fit nowhere.
#[must_use]
pub fn solve(_problem: &Problem) -> Plan {
    Plan::default() // INTERFACE: the solver author fills this in.
}
