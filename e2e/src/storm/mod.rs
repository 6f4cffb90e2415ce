//! Stories that nobody wrote: a random cluster, what an operator does to it and what goes wrong meanwhile, all from a
//! seed; watched from outside while they are told, healed at their end, and shortened where they fail.

pub mod cluster;
mod evictions;
pub mod listen;
pub mod operator;
pub mod shrink;
pub mod steady;
pub mod tell;
pub mod watch;

use karpenter_runtime::rng::Rng;

/// One of several, each as likely as the others.
fn one<'a, T>(rng: &mut Rng, of: &'a [T]) -> Option<&'a T> {
    let index = usize::try_from(rng.below(of.len() as u64)).unwrap_or_default();
    of.get(index)
}

/// The same of words; empty where there are none.
fn word<'a>(rng: &mut Rng, of: &[&'a str]) -> &'a str {
    one(rng, of).copied().unwrap_or_default()
}
