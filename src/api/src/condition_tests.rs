//! Conditions: every rule of the root-condition algorithm, on a NodeClaim's set.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use rstest::rstest;

use super::node_claim::{DRIFTED, INITIALIZED, LAUNCHED, REGISTERED};
use super::{
    AWAITING_RECONCILIATION, About, ConditionSet, NODE_CLAIM, READY, RECONCILING_DEPENDENTS,
    Status, UNHEALTHY_DEPENDENTS, get, is_true, status,
};
use crate::kinds::{Condition, ObjectMeta};

fn at(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)
}

fn about(generation: i64) -> About {
    About {
        generation,
        created: Some(at(10)),
        deleting: false,
    }
}

fn lines(conditions: &[Condition]) -> Vec<String> {
    conditions
        .iter()
        .map(|c| {
            format!(
                "{}={} {} {:?} @{} g{}",
                c.type_,
                c.status,
                c.reason,
                c.message,
                c.last_transition_time.0.as_second(),
                c.observed_generation.unwrap()
            )
        })
        .collect()
}

fn ready() -> Vec<Condition> {
    let mut all = Vec::new();
    let mut edit = NODE_CLAIM.edit(&mut all, about(1), at(20));
    for kind in NODE_CLAIM.dependents {
        edit.set_true(kind);
    }
    all
}

#[test]
fn missing_dependents_begin_unknown_at_the_creation_and_the_root_when_it_is_summed_up() {
    let mut all = Vec::new();
    assert!(NODE_CLAIM.edit(&mut all, about(1), at(20)).changed());
    let text = format!("Unknown {AWAITING_RECONCILIATION} \"object is awaiting reconciliation\"");
    assert_eq!(
        lines(&all),
        [
            format!("Launched={text} @10 g1"),
            format!("Registered={text} @10 g1"),
            format!("Initialized={text} @10 g1"),
            format!(
                "Ready=Unknown {RECONCILING_DEPENDENTS} \"Launched=Unknown, Registered=Unknown, Initialized=Unknown\" @20 g1"
            ),
        ]
    );
    assert!(!NODE_CLAIM.edit(&mut all, about(1), at(30)).changed());
}

#[test]
fn an_object_that_is_not_created_yet_begins_now() {
    let mut all = Vec::new();
    let meta = ObjectMeta::default();
    NODE_CLAIM.edit(&mut all, &meta, at(20));
    assert!(all.iter().all(|c| c.last_transition_time.0 == at(20)));
}

#[test]
fn the_root_is_true_when_every_dependent_is() {
    let all = ready();
    assert_eq!(lines(&all).last().unwrap(), "Ready=True Ready \"\" @20 g1");
    assert_eq!(
        lines(&all).first().unwrap(),
        "Launched=True Launched \"\" @20 g1"
    );
}

#[test]
fn one_false_dependent_makes_the_root_false_and_the_newest_change_is_named_first() {
    let mut all = Vec::new();
    let mut edit = NODE_CLAIM.edit(&mut all, about(1), at(20));
    edit.set_true(LAUNCHED);
    let mut edit = NODE_CLAIM.edit(&mut all, about(1), at(30));
    edit.set_false(REGISTERED, "MultipleNodesFound", "two");
    assert_eq!(
        lines(&all).last().unwrap(),
        &format!(
            "Ready=False {UNHEALTHY_DEPENDENTS} \"Registered=False, Initialized=Unknown\" @30 g1"
        )
    );
}

#[test]
fn a_new_generation_makes_the_root_unknown_until_all_are_judged_anew() {
    let mut all = ready();
    let mut edit = NODE_CLAIM.edit(&mut all, about(2), at(40));
    assert!(edit.set_true(LAUNCHED), "the generation is news");
    assert_eq!(status(edit.all(), READY), Status::Unknown);
    assert!(
        get(edit.all(), READY)
            .unwrap()
            .message
            .contains("Registered")
    );
    edit.set_true(REGISTERED);
    edit.set_true(INITIALIZED);
    assert!(is_true(&all, READY));
    // Dependents kept their status all along; the root's moved.
    assert_eq!(get(&all, LAUNCHED).unwrap().last_transition_time.0, at(20));
    assert_eq!(get(&all, READY).unwrap().last_transition_time.0, at(40));
}

#[test]
fn false_about_an_old_generation_is_only_unknown() {
    let mut all = ready();
    NODE_CLAIM
        .edit(&mut all, about(1), at(30))
        .set_false(REGISTERED, "MultipleNodesFound", "two");
    NODE_CLAIM
        .edit(&mut all, about(2), at(40))
        .set_true(LAUNCHED);
    assert_eq!(status(&all, READY), Status::Unknown);
}

#[test]
fn a_new_reason_does_not_move_the_transition_time() {
    let mut all = Vec::new();
    let mut edit = NODE_CLAIM.edit(&mut all, about(1), at(20));
    assert!(edit.set_unknown(LAUNCHED, "LaunchFailed", "no capacity"));
    let launched = get(&all, LAUNCHED).unwrap();
    assert_eq!(launched.reason, "LaunchFailed");
    assert_eq!(launched.last_transition_time.0, at(10));
}

#[test]
fn what_changes_nothing_says_so_and_leaves_the_root() {
    let mut all = ready();
    let root = all.iter_mut().find(|c| c.type_ == READY).unwrap();
    root.message = "left alone".to_owned();
    let mut edit = NODE_CLAIM.edit(&mut all, about(1), at(30));
    assert!(!edit.set_true(LAUNCHED));
    assert!(!edit.changed());
    assert_eq!(get(&all, READY).unwrap().message, "left alone");
}

#[test]
fn others_do_not_count_for_the_root_and_can_be_cleared() {
    let mut all = ready();
    let mut edit = NODE_CLAIM.edit(&mut all, about(1), at(30));
    assert!(edit.set_true_because(DRIFTED, "AMIDrift", "AMIDrift"));
    assert!(edit.clear(DRIFTED));
    assert!(!edit.clear(DRIFTED));
    for kind in [READY, LAUNCHED] {
        assert!(!edit.clear(kind), "{kind}");
    }
    assert!(edit.changed());
    assert!(is_true(&all, READY));
    assert_eq!(all.len(), 4);
}

#[test]
fn they_are_sorted_by_time_with_the_root_at_the_end() {
    let mut all = ready();
    NODE_CLAIM
        .edit(&mut all, about(1), at(15))
        .set_false(DRIFTED, "Older", "");
    NODE_CLAIM
        .edit(&mut all, about(1), at(50))
        .set_unknown(LAUNCHED, "Newest", "");
    let order: Vec<&str> = all.iter().map(|c| c.type_.as_str()).collect();
    assert_eq!(order, [DRIFTED, REGISTERED, INITIALIZED, LAUNCHED, READY]);
}

#[test]
fn while_deleting_every_condition_is_about_the_present_generation() {
    let mut all = ready();
    let about = About {
        deleting: true,
        ..about(2)
    };
    NODE_CLAIM
        .edit(&mut all, about, at(60))
        .set_unknown("Drained", "Draining", "2 pods");
    assert!(all.iter().all(|c| c.observed_generation == Some(2)));
    assert!(is_true(&all, READY));
}

#[test]
fn a_root_without_dependents_is_true() {
    let set = ConditionSet {
        root: READY,
        dependents: &[],
    };
    let mut all = Vec::new();
    set.edit(&mut all, about(1), at(20)).set_true("Other");
    assert!(is_true(&all, READY));
}

#[rstest]
#[case("True", Status::True)]
#[case("False", Status::False)]
#[case("Unknown", Status::Unknown)]
#[case("Maybe", Status::Unknown)]
fn statuses_are_read_leniently(#[case] text: &str, #[case] expected: Status) {
    let mut all = ready();
    all.iter_mut().for_each(|c| c.status = text.to_owned());
    assert_eq!(status(&all, LAUNCHED), expected);
    assert_eq!(status(&all, "Missing"), Status::Unknown);
}

proptest! {
    /// Whatever is set in whatever order: the root says what its dependents say, and comes last.
    #[test]
    fn the_root_follows(changes in prop::collection::vec((0_usize..4, 0_u8..3, 1_i64..3, 20_i64..30), 1..20)) {
        let mut all = Vec::new();
        let mut generation = 1;
        for (kind, status, step, time) in changes {
            generation = generation.max(step);
            let kind = [LAUNCHED, REGISTERED, INITIALIZED, DRIFTED][kind];
            let mut edit = NODE_CLAIM.edit(&mut all, about(generation), at(time));
            let status = [Status::True, Status::False, Status::Unknown][usize::from(status)];
            let changed = edit.set(kind, status, "Because", "");
            if !changed {
                continue;
            }
            let current = |kind: &&str| {
                let c = get(&all, kind).unwrap();
                (c.observed_generation == Some(generation)).then_some(c.status.clone())
            };
            let seen: Vec<_> = NODE_CLAIM.dependents.iter().map(current).collect();
            let expected = if seen.iter().all(|s| s.as_deref() == Some("True")) {
                Status::True
            } else if seen.iter().any(|s| s.as_deref() == Some("False")) {
                Status::False
            } else {
                Status::Unknown
            };
            prop_assert_eq!(super::status(&all, READY), expected);
            prop_assert_eq!(&all.last().unwrap().type_, READY);
        }
    }
}
