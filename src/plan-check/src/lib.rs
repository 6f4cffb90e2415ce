//! An independent judge of plans: knows Kubernetes' and Karpenter's rules, shares no helper with the solver.

use karpenter_model::{Plan, Problem};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Odd but harmless.
    Warning,
    /// The plan breaks a rule.
    Error,
}

/// Something wrong with a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Rule, such as `taints` or `limits`.
    pub rule: &'static str,
    /// How bad.
    pub severity: Severity,
    /// Object and what is wrong with it.
    pub message: String,
}

/// Checks `plan` as an answer to `problem`; empty = clean.
#[must_use]
pub fn check(_problem: &Problem, _plan: &Plan) -> Vec<Finding> {
    Vec::new() // INTERFACE: the plan-check author fills this in.
}
