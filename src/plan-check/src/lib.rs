//! An independent judge of plans: knows Kubernetes' and Karpenter's rules, shares no helper with the solver.
//!
//! It reads the plain data of `karpenter-model` and decides everything anew, in the most direct way there is:
//! for a machine to be bought it makes up each Node that could come of it, label by label, and asks of each pod
//! what kube-scheduler would ask. Nothing is clever here but one thing: pods that nothing can tell apart are judged once.

mod bookkeeping;
mod case;
mod claims;
mod fits;
mod kinds;
mod labels;
mod missed;
mod nodes;
mod prices;
mod reservations;
mod topology;
mod volumes;

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

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.rule, self.message)
    }
}

/// Findings as they are gathered.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn error(&mut self, rule: &'static str, message: String) {
        self.0.push(Finding {
            rule,
            severity: Severity::Error,
            message,
        });
    }
}

/// Checks `plan` as an answer to `problem`; empty = clean.
#[must_use]
pub fn check(problem: &Problem, plan: &Plan) -> Vec<Finding> {
    let mut findings = Findings::default();
    let case = case::Case::new(problem, plan);
    bookkeeping::check(problem, plan, &mut findings);
    nodes::check(&case, &mut findings);
    claims::check(&case, &mut findings);
    reservations::check(&case, &mut findings);
    topology::check(&case, &mut findings);
    volumes::check(&case, &mut findings);
    missed::check(&case, &mut findings);
    findings.0
}
