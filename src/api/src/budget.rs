//! Disruption budgets: how many nodes of a pool may be given back at once, for which reason, and when that changes.
//! What cannot be read allows nothing.

use jiff::{SignedDuration, Timestamp};

use crate::cron::{ParseScheduleError, Schedule};
use crate::duration::{self, ParseDurationError};
use crate::nodepool::{Budget, Disruption};

/// Reasons that budgets bind.
pub mod reason {
    /// Pods fit on fewer or cheaper nodes.
    pub const UNDERUTILIZED: &str = "Underutilized";
    /// No pods.
    pub const EMPTY: &str = "Empty";
    /// Not what would be bought today.
    pub const DRIFTED: &str = "Drifted";
    /// All of them.
    pub const ALL: [&str; 3] = [UNDERUTILIZED, EMPTY, DRIFTED];
}

/// What a pool without budgets in force allows.
pub const UNBOUNDED: usize = i32::MAX as usize;

/// Budget of a pool that names none.
pub const DEFAULT_NODES: &str = "10%";

/// Most hits of a schedule that are followed to see when an active budget ends.
const MAX_HITS_FOLLOWED: usize = 1000;

/// Why a budget cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BudgetError {
    /// The number of nodes.
    #[error(
        "spec.disruption.budgets[{index}].nodes: {text:?}; expected a number or a percentage, such as 5 or 10%"
    )]
    Nodes {
        /// Which budget, from 0.
        index: usize,
        /// The offending text.
        text: String,
    },
    /// The schedule.
    #[error("spec.disruption.budgets[{index}].schedule: {source}")]
    Schedule {
        /// Which budget, from 0.
        index: usize,
        /// Why.
        source: ParseScheduleError,
    },
    /// The duration.
    #[error("spec.disruption.budgets[{index}].duration: {source}")]
    Duration {
        /// Which budget, from 0.
        index: usize,
        /// Why.
        source: ParseDurationError,
    },
    /// One of schedule and duration is missing.
    #[error(
        "spec.disruption.budgets[{index}]: {missing} is missing; schedule and duration come together"
    )]
    Half {
        /// Which budget, from 0.
        index: usize,
        /// The field that is missing.
        missing: &'static str,
    },
}

/// Budgets of a pool, read once.
#[derive(Clone, Debug, PartialEq)]
pub struct Budgets {
    entries: Vec<Entry>,
    errors: Vec<BudgetError>,
}

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    nodes: Nodes,
    reasons: Option<Vec<String>>,
    window: Option<Window>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Nodes {
    Count(usize),
    Percent(usize),
}

/// When a budget is in force: for `length` from each hit of `schedule`.
#[derive(Clone, Debug, PartialEq)]
struct Window {
    schedule: Schedule,
    length: SignedDuration,
}

impl Budgets {
    /// Reads the budgets of a pool.
    #[must_use]
    pub fn of(disruption: &Disruption) -> Self {
        let default = [Budget {
            nodes: DEFAULT_NODES.to_owned(),
            ..Budget::default()
        }];
        let (mut entries, mut errors) = (Vec::new(), Vec::new());
        let budgets = disruption.budgets.as_deref().unwrap_or(&default);
        for (index, budget) in budgets.iter().enumerate() {
            match read(index, budget) {
                Ok(entry) => entries.push(entry),
                Err(error) => errors.push(error),
            }
        }
        Self { entries, errors }
    }

    /// What could not be read.
    #[must_use]
    pub fn errors(&self) -> &[BudgetError] {
        &self.errors
    }

    /// How many of the pool's `total` nodes may be in disruption for `reason` at once: the least that a budget in
    /// force allows, [`UNBOUNDED`] if none is, and 0 if any budget of the pool cannot be read.
    #[must_use]
    pub fn allowed(&self, reason: &str, total: usize, now: Timestamp) -> usize {
        if !self.errors.is_empty() {
            return 0;
        }
        self.entries
            .iter()
            .filter(|e| {
                e.reasons
                    .as_ref()
                    .is_none_or(|all| all.iter().any(|r| r == reason))
            })
            .filter(|e| e.window.as_ref().is_none_or(|w| w.is_active(now)))
            .map(|e| e.nodes.of(total))
            .min()
            .unwrap_or(UNBOUNDED)
    }

    /// The moment after `now` until which no budget comes into force or goes out of it; none if none ever does. Who
    /// waits for a budget to allow more sleeps until then.
    #[must_use]
    pub fn next_transition(&self, now: Timestamp) -> Option<Timestamp> {
        let windows = self.entries.iter().filter_map(|e| e.window.as_ref());
        windows.filter_map(|w| w.next_transition(now)).min()
    }
}

fn read(index: usize, budget: &Budget) -> Result<Entry, BudgetError> {
    let bad_nodes = || BudgetError::Nodes {
        index,
        text: budget.nodes.clone(),
    };
    let number = |text: &str| {
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse().ok()).flatten()
    };
    let nodes = match budget.nodes.strip_suffix('%') {
        Some(percent) => number(percent).map(Nodes::Percent),
        None => number(&budget.nodes).map(Nodes::Count),
    };
    let half = |missing| BudgetError::Half { index, missing };
    let window = match (&budget.schedule, &budget.duration) {
        (None, None) => None,
        (None, Some(_)) => return Err(half("schedule")),
        (Some(_), None) => return Err(half("duration")),
        (Some(schedule), Some(length)) => Some(Window {
            schedule: schedule
                .parse()
                .map_err(|source| BudgetError::Schedule { index, source })?,
            length: duration::parse_hms(length)
                .map(|d| SignedDuration::try_from(d).unwrap_or(SignedDuration::MAX))
                .map_err(|source| BudgetError::Duration { index, source })?,
        }),
    };
    Ok(Entry {
        nodes: nodes.ok_or_else(bad_nodes)?,
        reasons: budget.reasons.clone(),
        window,
    })
}

impl Nodes {
    fn of(self, total: usize) -> usize {
        match self {
            Self::Count(count) => count.min(UNBOUNDED),
            Self::Percent(percent) => total.saturating_mul(percent).div_ceil(100).min(UNBOUNDED),
        }
    }
}

impl Window {
    /// Whether a hit lies within the last `length`.
    fn is_active(&self, now: Timestamp) -> bool {
        let since = now.checked_sub(self.length).unwrap_or(Timestamp::MIN);
        // A schedule without hits counts as in force, as it does upstream: it errs on the side of keeping nodes.
        self.schedule.next_after(since).is_none_or(|hit| hit <= now)
    }

    fn next_transition(&self, now: Timestamp) -> Option<Timestamp> {
        if self.length.is_zero() {
            return None;
        }
        let since = now.checked_sub(self.length).unwrap_or(Timestamp::MIN);
        let mut hit = self.schedule.next_after(since)?;
        if hit > now {
            return Some(hit);
        }
        let end = |hit: Timestamp| hit.checked_add(self.length).ok();
        for _ in 0..MAX_HITS_FOLLOWED {
            match self.schedule.next_after(hit) {
                // The next window opens before this one closes.
                Some(next) if next <= end(hit)? => hit = next,
                _ => return end(hit),
            }
        }
        // Perhaps it never ends; until here nothing changes.
        end(hit)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::reason::{DRIFTED, EMPTY, UNDERUTILIZED};
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn budgets(list: Value) -> Budgets {
        let disruption: Disruption =
            serde_json::from_value(json!({ "consolidateAfter": "0s", "budgets": list })).unwrap();
        Budgets::of(&disruption)
    }

    fn daily() -> Budgets {
        budgets(json!([{ "nodes": "0", "schedule": "0 9 * * *", "duration": "8h" }]))
    }

    #[rstest]
    #[case::default(Value::Null, 15, 2)]
    #[case::none(json!([]), 15, UNBOUNDED)]
    #[case::count(json!([{ "nodes": "5" }]), 3, 5)]
    #[case::percent_rounds_up(json!([{ "nodes": "10%" }]), 11, 2)]
    #[case::percent_of_none(json!([{ "nodes": "10%" }]), 0, 0)]
    #[case::zero_percent(json!([{ "nodes": "0%" }]), 100, 0)]
    #[case::all(json!([{ "nodes": "100%" }]), 7, 7)]
    #[case::least(json!([{ "nodes": "50%" }, { "nodes": "3" }]), 10, 3)]
    fn counts(#[case] list: Value, #[case] total: usize, #[case] expected: usize) {
        let now = at("2026-03-01T12:00:00Z");
        assert_eq!(budgets(list).allowed(EMPTY, total, now), expected);
    }

    #[test]
    fn reasons_select() {
        let b = budgets(
            json!([{ "nodes": "1", "reasons": ["Empty"] }, { "nodes": "2", "reasons": ["Drifted", "Empty"] }]),
        );
        let now = Timestamp::UNIX_EPOCH;
        let of = |reason| b.allowed(reason, 10, now);
        assert_eq!(
            [of(EMPTY), of(DRIFTED), of(UNDERUTILIZED)],
            [1, 2, UNBOUNDED]
        );
    }

    #[rstest]
    #[case("2026-03-01T08:59:59.9Z", UNBOUNDED, "2026-03-01T09:00:00Z")]
    #[case("2026-03-01T09:00:00Z", 0, "2026-03-01T17:00:00Z")]
    #[case("2026-03-01T16:59:59Z", 0, "2026-03-01T17:00:00Z")]
    #[case("2026-03-01T17:00:00Z", UNBOUNDED, "2026-03-02T09:00:00Z")]
    fn windows_open_and_close(#[case] now: &str, #[case] allowed: usize, #[case] next: &str) {
        assert_eq!(daily().allowed(EMPTY, 10, at(now)), allowed);
        assert_eq!(daily().next_transition(at(now)), Some(at(next)));
    }

    #[test]
    fn windows_that_overlap_are_one() {
        let b = budgets(json!([{ "nodes": "0", "schedule": "0 9,12 * * *", "duration": "4h" }]));
        let now = at("2026-03-01T10:00:00Z");
        assert_eq!(b.next_transition(now), Some(at("2026-03-01T16:00:00Z")));
        let touching =
            budgets(json!([{ "nodes": "0", "schedule": "0 9,13 * * *", "duration": "4h" }]));
        assert_eq!(
            touching.next_transition(now),
            Some(at("2026-03-01T17:00:00Z"))
        );
    }

    #[test]
    fn a_window_without_end_says_how_long_nothing_changes() {
        let b = budgets(json!([{ "nodes": "0", "schedule": "* * * * *", "duration": "24h" }]));
        let now = at("2026-03-01T10:00:00Z");
        assert_eq!(b.allowed(EMPTY, 10, now), 0);
        assert!(b.next_transition(now).unwrap() > now + SignedDuration::from_hours(12));
    }

    #[test]
    fn windows_that_never_or_always_hold_have_no_transition() {
        let now = at("2026-03-01T10:00:00Z");
        let always = budgets(json!([{ "nodes": "1" }]));
        assert_eq!(always.next_transition(now), None);
        let empty = budgets(json!([{ "nodes": "0", "schedule": "* * * * *", "duration": "0m" }]));
        assert_eq!(
            (empty.next_transition(now), empty.allowed(EMPTY, 1, now)),
            (None, UNBOUNDED)
        );
        let no_hits =
            budgets(json!([{ "nodes": "1", "schedule": "0 0 30 2 *", "duration": "1h" }]));
        assert_eq!(
            (no_hits.next_transition(now), no_hits.allowed(EMPTY, 9, now)),
            (None, 1)
        );
    }

    #[rstest]
    #[case(json!({ "nodes": "many" }), "spec.disruption.budgets[1].nodes: \"many\"; expected a number")]
    #[case(json!({ "nodes": "-1" }), "nodes")]
    #[case(json!({ "nodes": "%" }), "nodes")]
    #[case(json!({ "nodes": "1", "schedule": "* * * * 7", "duration": "1h" }), "spec.disruption.budgets[1].schedule: \"* * * * 7\"")]
    #[case(json!({ "nodes": "1", "schedule": "@daily", "duration": "1d" }), "spec.disruption.budgets[1].duration: \"1d\"")]
    #[case(json!({ "nodes": "1", "schedule": "@daily" }), "duration is missing")]
    #[case(json!({ "nodes": "1", "duration": "1h" }), "schedule is missing")]
    fn what_cannot_be_read_allows_nothing(#[case] bad: Value, #[case] message: &str) {
        let mut bad = bad;
        bad["reasons"] = json!(["Drifted"]);
        let b = budgets(json!([{ "nodes": "5" }, bad]));
        assert_eq!(b.errors().len(), 1);
        assert!(
            b.errors()[0].to_string().contains(message),
            "{}",
            b.errors()[0]
        );
        for reason in reason::ALL {
            assert_eq!(b.allowed(reason, 10, Timestamp::UNIX_EPOCH), 0);
        }
    }

    proptest! {
        /// Until the transition nothing changes, and there it does, unless the window goes on for very long.
        #[test]
        fn transitions_are_where_the_answer_changes(
            minute in 0..60, hour in prop_oneof![Just("*".to_owned()), (0..24).prop_map(|h: i32| h.to_string())],
            weekday in prop_oneof![Just("*"), Just("1-5"), Just("0,6")],
            length in 1_i64..3000, second in 1_700_000_000_i64..1_800_000_000, probe in 0.0..1.0_f64,
        ) {
            let schedule = format!("{minute} {hour} * * {weekday}");
            let b = budgets(json!([{ "nodes": "0", "schedule": schedule, "duration": format!("{length}m") }]));
            let now = Timestamp::from_second(second).unwrap();
            let next = b.next_transition(now).unwrap();
            prop_assert!(next > now);
            let before = b.allowed(EMPTY, 1, now);
            let gap = next.duration_since(now);
            let probed = now + SignedDuration::from_secs_f64(gap.as_secs_f64() * probe * 0.999);
            prop_assert_eq!(b.allowed(EMPTY, 1, probed), before);
            if gap < SignedDuration::from_hours(24 * 30) {
                prop_assert_ne!(b.allowed(EMPTY, 1, next), before);
            }
        }
    }
}
