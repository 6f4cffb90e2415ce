//! Registration hooks: what a provider does for a Node that has joined before pods may come to it
//! (`lifecycle-and-disruption.md` §3 "Registration").

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use karpenter_api::NodeClaim;
use karpenter_cloud::{HookAnswer, RegistrationHook};

/// Shortest wait before a hook is asked again, whatever it says.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Hooks that are not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pending {
    /// For condition `Registered`.
    pub(crate) message: String,
    /// When to ask again.
    pub(crate) wait: Duration,
}

/// Asks all hooks at once; labels of those that are done are put on the claim. None: all are done.
pub(crate) async fn ask(
    hooks: &[Arc<dyn RegistrationHook>],
    claim: &mut NodeClaim,
) -> Option<Pending> {
    let answers = join_all(hooks.iter().map(|h| h.registered(claim))).await;
    let mut pending: Vec<&str> = Vec::new();
    let mut wait: Option<Duration> = None;
    for (hook, answer) in hooks.iter().zip(answers) {
        match answer {
            HookAnswer::Done(labels) => {
                let all = claim.metadata.labels.get_or_insert_default();
                all.extend(labels);
            }
            HookAnswer::Pending(after) => {
                pending.push(hook.name());
                let after = after.max(ASK_AGAIN);
                wait = Some(wait.map_or(after, |w| w.min(after)));
            }
        }
    }
    wait.map(|wait| Pending {
        message: format!("waiting for registration hooks: {}", pending.join(", ")),
        wait,
    })
}
