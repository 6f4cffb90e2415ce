//! What budgets allow in the week to come, and where they allow more than was meant.

use jiff::{SignedDuration, Timestamp};
use karpenter_api::budget::{Budgets, UNBOUNDED};

use super::report::{Allowed, WindowReport};
use crate::disruption::method::Reason;

/// How far ahead the windows of budgets are told.
const DAYS_AHEAD: i64 = 7;
/// Most windows that are told; a schedule may open one every minute.
const MAX_WINDOWS: usize = 200;

/// All of them.
pub(super) const REASONS: [Reason; 3] = [Reason::Empty, Reason::Drifted, Reason::Underutilized];

pub(super) fn allowed(budgets: &Budgets, reason: Reason, total: usize, at: Timestamp) -> Allowed {
    let allowed = budgets.allowed(reason.as_str(), total, at);
    Allowed {
        reason: reason.as_str(),
        allowed: (allowed < UNBOUNDED).then_some(allowed),
        left: None,
    }
}

/// What budgets allow from `now` on, as long as it stays the same, for a week.
pub(super) fn windows(budgets: &Budgets, total: usize, now: Timestamp) -> Vec<WindowReport> {
    let ahead = SignedDuration::from_hours(24 * DAYS_AHEAD);
    let end = now.checked_add(ahead).unwrap_or(Timestamp::MAX);
    let mut windows: Vec<WindowReport> = Vec::new();
    let mut at = now;
    while windows.len() < MAX_WINDOWS {
        let here: Vec<Allowed> = REASONS
            .into_iter()
            .map(|reason| allowed(budgets, reason, total, at))
            .collect();
        let next = budgets.next_transition(at).filter(|next| *next < end);
        match windows.last_mut().filter(|w| w.allowed == here) {
            Some(last) => last.until = next.map(|t| t.to_string()),
            None => windows.push(WindowReport {
                from: at.to_string(),
                until: next.map(|t| t.to_string()),
                allowed: here,
            }),
        }
        match next {
            Some(next) => at = next,
            None => break,
        }
    }
    windows
}

/// Reasons that budgets limit at times and leave to themselves at others: mostly not what was meant.
pub(super) fn unrestricted(windows: &[WindowReport]) -> Vec<String> {
    let of = |reason: Reason| {
        let all = windows
            .iter()
            .flat_map(|w| w.allowed.iter().map(move |a| (w, a)));
        all.filter(move |(_, a)| a.reason == reason.as_str())
    };
    let mut warnings = Vec::new();
    for reason in REASONS {
        let limited = of(reason).any(|(_, a)| a.allowed.is_some());
        let free = of(reason).find(|(_, a)| a.allowed.is_none());
        if let Some((window, _)) = free {
            let text = if limited {
                format!(
                    "outside of the windows of its budgets nothing limits {}: all nodes may go at once, next from {}",
                    reason.as_str(),
                    window.from
                )
            } else {
                format!(
                    "no budget limits {}: all nodes may go at once",
                    reason.as_str()
                )
            };
            warnings.push(text);
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn budgets(json: serde_json::Value) -> Budgets {
        Budgets::of(&serde_json::from_value(json!({"budgets": json})).expect("a disruption"))
    }

    #[test]
    fn windows_follow_schedules_and_what_is_unrestricted_outside_is_told() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let set = budgets(json!([
            {"nodes": "0", "reasons": ["Underutilized"], "schedule": "0 9 * * *", "duration": "8h"},
            {"nodes": "50%", "reasons": ["Drifted"]},
        ]));
        let windows = windows(&set, 10, now);
        assert_eq!(windows.len(), 15, "seven closed ones, eight around them");
        let at = |i: usize, reason: &str| {
            let window = windows.get(i).expect("a window");
            let found = window.allowed.iter().find(|a| a.reason == reason);
            (window.from.clone(), found.expect("a reason").allowed)
        };
        assert_eq!(
            at(0, "Underutilized"),
            ("2026-01-01T00:00:00Z".into(), None)
        );
        assert_eq!(
            at(1, "Underutilized"),
            ("2026-01-01T09:00:00Z".into(), Some(0))
        );
        assert_eq!(
            at(2, "Underutilized"),
            ("2026-01-01T17:00:00Z".into(), None)
        );
        assert_eq!(at(2, "Drifted").1, Some(5));
        let warnings = unrestricted(&windows);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(
            warnings[0].starts_with("no budget limits Empty"),
            "{warnings:?}"
        );
        assert!(
            warnings[1]
                .starts_with("outside of the windows of its budgets nothing limits Underutilized"),
            "{warnings:?}"
        );
    }

    #[test]
    fn a_week_without_schedules_is_one_window() {
        let windows = windows(&budgets(json!([{"nodes": "1"}])), 3, Timestamp::UNIX_EPOCH);
        assert_eq!(windows.len(), 1);
        assert!(windows[0].until.is_none());
        assert!(unrestricted(&windows).is_empty());
    }
}
